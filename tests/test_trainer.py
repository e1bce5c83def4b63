"""The training loop on a tiny network: resume to the bit, replicas that agree, precision, XLA, callbacks, and what stops it."""

import dataclasses
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_freezing import tiny_classifier

from tl_keras.config import RuntimeConfig, TrainConfig
from tl_keras.errors import ConfigError, DamagedError, TrainingError
from tl_keras.strategies import Phase, build_phases
from tl_keras.training import checkpoint, runtime
from tl_keras.training.epoch_meter import EpochMeter
from tl_keras.training.losses import build_loss
from tl_keras.training.trainer import Batches, Trainer

NUM_TRAIN, NUM_VALIDATION, BATCH = 22, 13, 8  # neither divides by the batch
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(0, 255, (NUM_TRAIN + NUM_VALIDATION, 8, 8, 3)).astype("float32")
LABELS = RANDOM.integers(0, 3, NUM_TRAIN + NUM_VALIDATION).astype("int32")
TARGETS = np.eye(3, dtype="float32")[LABELS]


def make_batches(images=IMAGES, replicas=1, validation=True, batch=BATCH, targets=TARGETS) -> Batches:
    def training(epoch):
        order = np.random.default_rng((0, epoch)).permutation(NUM_TRAIN)
        return tf.data.Dataset.from_tensor_slices((images[order], targets[order])).batch(batch)

    rest = (images[NUM_TRAIN:], LABELS[NUM_TRAIN:], np.ones(NUM_VALIDATION, "float32"))
    padded = tuple(np.concatenate([part, np.zeros((-NUM_VALIDATION % replicas, *part.shape[1:]), part.dtype)]) for part in rest)
    return Batches(training, NUM_TRAIN, tf.data.Dataset.from_tensor_slices(padded).batch(BATCH) if validation else None)


def make_trainer(directory, *, phases=None, settings=None, on_epoch=lambda progress: None, **config) -> Trainer:
    train = TrainConfig(**{"batch_size": BATCH, "learning_rate": 0.05, "epochs": 3, **config})
    machine = runtime.make_runtime(RuntimeConfig(**{"precision": "float32", **(settings or {})}), seed=3, batch_size=BATCH, depthwise=False)
    with machine.scope():
        model, stages = tiny_classifier()
    phases = phases or build_phases(("stem", "body"), train)
    loss = build_loss(train, dict(Counter(LABELS[:NUM_TRAIN].tolist())), 3)
    return Trainer(model, stages, phases, train, machine, directory, loss=loss, on_epoch=on_epoch)


def values(trainer: Trainer) -> list[np.ndarray]:
    return [variable.numpy() for variable in [*trainer.model.variables, *trainer._variables()]]


class Killed(Exception):
    pass


GRADUAL = (
    Phase("head", 2, {"head": "all"}),
    Phase("body", 1, {"body": "all", "head": "all"}, lr_multipliers={"body": 0.1}),
    Phase("full", 2, {"stem": "all", "body": "all", "head": "all"}, frozen_mode="training"),
)


@pytest.mark.parametrize(
    ("kill_after", "chosen"),
    [
        (1, {"optimizer": "sgd"}),
        (2, {"optimizer": "adamw", "ema": 0.9}),
        (3, {"optimizer": "sgd", "learning_rate": 1.0, "selection": "best"}),
        (3, {"optimizer": "sgd", "accumulate_steps": 2, "schedule": "one_cycle"}),
        (4, {"optimizer": "adamw", "clip_norm": 0.1, "ema": 0.9, "accumulate_steps": 2}),
    ],
    ids=str,
)
def test_a_killed_run_resumes_to_the_bit(tmp_path, kill_after, chosen):
    """Killed after any epoch, phase boundaries among them: weights, moments, history and audits as of the straight run."""

    def kill(progress):
        if progress.epoch == kill_after + 1:
            raise Killed

    settings = {"schedule": "cosine", "warmup_epochs": 1.0, "epochs": 5, "phases": GRADUAL, "selection": "last", **chosen}
    straight = make_trainer(tmp_path / "straight", **settings)
    expected = straight.fit(make_batches())
    with pytest.raises(Killed):
        make_trainer(tmp_path / "killed", on_epoch=kill, **settings).fit(make_batches())
    resumed = make_trainer(tmp_path / "killed", **settings)
    progress = resumed.fit(make_batches())
    for one, other in zip(values(straight), values(resumed), strict=True):
        np.testing.assert_array_equal(one, other)
    timeless = [
        {key: row[key] for key in ("epoch", "phase", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")}
        for row in progress.history
    ]
    assert timeless == [{key: row[key] for key in timeless[0]} for row in expected.history]
    assert [record["audit"] for record in progress.phases] == [record["audit"] for record in expected.phases]
    assert [record["epochs"] for record in progress.phases] == [2, 1, 2]


def test_the_best_epoch_is_found_again_after_an_interruption(tmp_path, monkeypatch):
    """Every epoch is written, and the last is not the best: what is tested comes from the file alone."""
    monkeypatch.setattr(checkpoint.SavePolicy, "is_due", True)
    settings = {"epochs": 4, "selection": "best"}
    straight = make_trainer(tmp_path, **settings)
    best = straight.fit(make_batches()).best
    if best["epoch"] == 4:
        pytest.fail("choose settings whose best epoch is not the last")
    resumed = make_trainer(tmp_path, **settings)
    assert resumed.fit(make_batches()).best == best
    for one, other in zip(straight.model.variables, resumed.model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_writing_takes_a_tenth_of_the_time_at_most(monkeypatch):
    clock = [50.0]
    monkeypatch.setattr("tl_keras.training.checkpoint.time.perf_counter", lambda: clock[0])
    pace = checkpoint.SavePolicy()
    assert pace.is_due
    with pace.writing():
        clock[0] += 2.0
    for later, due in ((0.0, False), (19.0, False), (1.0, True)):
        clock[0] += later
        assert pace.is_due is due


HEAD_ONLY = (Phase("head", 3, {"head": "all"}),)


def killed_head(directory):
    """A run of the head alone, killed after its second epoch."""
    kill = {2: Killed}

    def on_epoch(progress):
        if progress.epoch in kill:
            raise kill[progress.epoch]

    with pytest.raises(Killed):
        make_trainer(directory, phases=HEAD_ONLY, on_epoch=on_epoch).fit(make_batches())


def test_a_checkpoint_holds_what_training_changes_alone(tmp_path):
    killed_head(tmp_path / "killed")
    resumed, straight = (make_trainer(tmp_path / name, phases=HEAD_ONLY) for name in ("killed", "straight"))
    with np.load(tmp_path / "killed" / "latest.npz") as arrays:
        shapes = sorted(arrays[name].shape for name in arrays.files if arrays[name].ndim > 1)
    head = tuple(resumed.model.get_layer("logits").kernel.shape)
    assert shapes == [head] * 3  # the kernel, its momentum, and the kernel in the best epoch
    for trainer in (resumed, straight):
        trainer.fit(make_batches())
    for one, other in zip(values(resumed), values(straight), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_is_not_resumed_on_other_frozen_weights(tmp_path):
    killed_head(tmp_path)
    resumed = make_trainer(tmp_path, phases=HEAD_ONLY)
    kernel = resumed.model.get_layer("stem_conv").kernel
    kernel.assign(kernel + 1e-3)
    with pytest.raises(DamagedError, match=r"1 weights \(.*conv/kernel\) differ"):
        resumed.fit(make_batches())


def without_norm(trainer: Trainer) -> None:
    """BatchNorm sees the half of the batch that its replica has, so exact agreement is asked of a network without it."""
    for layer in trainer.model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0


@pytest.mark.parametrize("chosen", [{}, {"clip_norm": 0.1, "accumulate_steps": 2, "ema": 0.9, "class_weights": "balanced"}], ids=str)
@pytest.mark.parametrize("strategy", ["head", "full"])
def test_two_replicas_train_as_one(tmp_path, strategy, chosen):
    """With BatchNorm in inference mode (head) the losses agree to rounding; in training mode it sees half batches."""
    histories = []
    for distribution, replicas in (("none", 1), ("mirrored", 2)):
        trainer = make_trainer(tmp_path / distribution, strategy=strategy, settings={"distribution": distribution}, **chosen)
        assert trainer.runtime.replicas == replicas
        without_norm(trainer)
        histories.append(trainer.fit(make_batches(replicas=replicas)).history)
    for one, two in zip(*histories, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5 if strategy == "head" else 0.2)
        assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-5 if strategy == "head" else 0.2)


def plain_trainer(directory, **config) -> Trainer:
    """A network without BatchNorm and dropout, of which the gradient of a batch is the mean of the gradients of its parts."""
    config = TrainConfig(**{"learning_rate": 0.05, "epochs": 2, "selection": "last", **config})
    machine = runtime.make_runtime(RuntimeConfig(precision="float32"), seed=3, batch_size=config.batch_size, depthwise=False)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    stages = {"head": model.layers}
    return Trainer(model, stages, build_phases((), config), config, machine, directory, loss=build_loss(config, {}, 3))


@pytest.mark.parametrize(
    "chosen", [{"optimizer": "sgd"}, {"optimizer": "adamw", "schedule": "cosine", "clip_norm": 0.5, "ema": 0.9}], ids=str
)
def test_batches_accumulate_to_a_larger_one(tmp_path, chosen):
    """22 images: twice 4 are once 8, and the last update of an epoch has a whole batch of 4 and one of 2."""
    one = plain_trainer(tmp_path / "one", batch_size=8, **chosen)
    many = plain_trainer(tmp_path / "many", batch_size=4, accumulate_steps=2, **chosen)
    histories = [one.fit(make_batches(batch=8)).history, many.fit(make_batches(batch=4)).history]
    assert one.optimizer.iterations.numpy() == many.optimizer.iterations.numpy() == 6
    for expected, value in zip(values(one), values(many), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)
    for key in ("val_loss", "learning_rate"):
        assert [row[key] for row in histories[1]] == pytest.approx([row[key] for row in histories[0]], rel=1e-4)


def test_the_moving_average_is_what_is_validated_and_tested(tmp_path, monkeypatch):
    """Of the trained weights and the running statistics, by its formula, with the raw ones kept for training."""
    monkeypatch.setattr(checkpoint.SavePolicy, "is_due", True)
    seen = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append([variable.numpy() for variable in watched])

    plain = make_trainer(tmp_path / "plain", selection="last").fit(make_batches())
    trainer = make_trainer(tmp_path / "ema", selection="last", ema=0.8)
    watched = [variable for variable in trainer.model.variables if "seed" not in variable.path]
    progress = trainer.fit(make_batches(), [Record()])
    trained = [variable.numpy() for variable in watched]
    assert [row["loss"] for row in progress.history] == [row["loss"] for row in plain.history]
    assert [row["val_loss"] for row in progress.history] != pytest.approx([row["val_loss"] for row in plain.history], rel=1e-5)
    trainer._resume()  # the raw weights, which the last step left
    averages = seen[0]
    for number, weights in enumerate([*seen[1:], [variable.numpy() for variable in watched]]):
        decay = min(0.8, (1 + number) / (10 + number))
        averages = [decay * average + (1 - decay) * weight for average, weight in zip(averages, weights, strict=True)]
    for variable, expected, value in zip(watched, averages, trained, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6, err_msg=variable.path)


def test_the_best_epoch_is_kept_with_its_averages(tmp_path):
    trainer = make_trainer(tmp_path, epochs=6, learning_rate=0.3, ema=0.5)
    progress = trainer.fit(make_batches())
    trainer._average.variables.clear()  # so that validation takes the weights as they are
    trainer._average._sources.clear()
    assert trainer._validate(trainer.predict, make_batches().validation)["val_loss"] == pytest.approx(progress.best["loss"], rel=1e-6)


def test_mixed_targets_count_by_their_largest_share(tmp_path):
    """Half-and-half mixtures would be right by luck alone; 0.9 of the label is as right as all of it."""
    mixed = 0.85 * TARGETS + 0.05
    histories = [
        make_trainer(tmp_path / name).fit(make_batches(targets=targets)).history for name, targets in (("0", TARGETS), ("1", mixed))
    ]
    assert histories[1][0]["loss"] != histories[0][0]["loss"]
    smoothed = make_trainer(tmp_path / "2", label_smoothing=0.15).fit(make_batches()).history
    assert [row["loss"] for row in smoothed] == pytest.approx([row["loss"] for row in histories[1]], rel=1e-4)
    assert [row["accuracy"] for row in smoothed] == [row["accuracy"] for row in histories[1]]


def test_xla_trains_the_same(tmp_path):
    histories = []
    for xla in ("off", "on"):
        trainer = make_trainer(tmp_path / xla, settings={"xla": xla}, epochs=2)
        without_norm(trainer)
        assert trainer.runtime.record()["xla"] == (xla == "on")
        histories.append(trainer.fit(make_batches()).history)
    assert [row["loss"] for row in histories[1]] == pytest.approx([row["loss"] for row in histories[0]], rel=1e-4)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_float32_weights_and_logits(tmp_path, precision):
    trainer = make_trainer(tmp_path, settings={"precision": precision})
    history = trainer.fit(make_batches()).history
    assert trainer.model.get_layer("stem_conv").compute_dtype == precision.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in trainer.model.weights} == {"float32"}
    assert trainer.model.output.dtype == "float32"
    assert all(np.isfinite(row["loss"]) for row in history)


@pytest.mark.parametrize("settings", [{}, {"precision": "mixed_float16"}, {"distribution": "mirrored"}], ids=str)
def test_what_is_clipped_is_the_whole_gradient_unscaled(tmp_path, settings):
    """One update, of three batches: it is as long as rate x clip_norm, over all weights, replicas and batches together."""
    trainer = make_trainer(tmp_path, epochs=1, accumulate_steps=3, clip_norm=0.01, momentum=0.0, settings=settings)
    before = [variable.numpy() for variable in trainer._trained]
    trainer.fit(make_batches(replicas=trainer.runtime.replicas))
    change = [variable.numpy() - value for variable, value in zip(trainer._trained, before, strict=True)]
    assert np.sqrt(sum(np.sum(part**2) for part in change)) == pytest.approx(0.05 * 0.01, rel=1e-2)


def test_selection_restores_the_best_epoch_on_validation(tmp_path):
    trainer = make_trainer(tmp_path, epochs=6, selection="best")
    progress = trainer.fit(make_batches())
    scores = [(row["val_accuracy"], -row["val_loss"]) for row in progress.history]
    assert trainer.selected_epoch() == 1 + max(range(6), key=lambda index: scores[index])
    assert trainer._validate(trainer.predict, make_batches().validation)["val_loss"] == pytest.approx(progress.best["loss"], rel=1e-6)


def test_without_validation_the_last_epoch_stands(tmp_path):
    trainer = make_trainer(tmp_path, selection="best")
    progress = trainer.fit(make_batches(validation=False))
    assert trainer.selected_epoch() == 3 and not progress.best and "val_loss" not in progress.history[0]


def test_nan_stops_with_the_step(tmp_path):
    images = IMAGES.copy()
    images[np.random.default_rng((0, 1)).permutation(NUM_TRAIN)[BATCH]] = np.nan  # first seen in the second step of its epoch, or before
    with pytest.raises(TrainingError, match=r"loss became nan at step [123] \(epoch 1\); the last finite"):
        make_trainer(tmp_path).fit(make_batches(images))
    assert not (tmp_path / "latest.npz").exists()


def test_the_meter_tells_computing_from_waiting_and_leaves_the_first_step_out(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("tl_keras.training.epoch_meter.time.perf_counter", lambda: clock[0])

    def batches(seconds=(9.0, 1.0, 1.0)):
        for waiting in seconds:
            clock[0] += waiting
            yield

    meter = EpochMeter(1, 0)
    for _ in meter.timed(batches()):
        clock[0] += 3.0
        meter.add(8, tf.constant(16.0), tf.constant(4.0))
    assert meter.finish() == {"loss": 2.0, "accuracy": 0.5, "images/s": 2.0, "input_wait": 0.25}  # 16 images and 2 s of waiting in 8 s


def test_keras_callbacks_work(tmp_path):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

        def on_epoch_end(self, epoch, logs=None):
            assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} <= set(logs)
            if epoch == 0:
                self.model.optimizer.learning_rate = 0.0125

    trainer = make_trainer(tmp_path, epochs=9)
    stopping = keras.callbacks.EarlyStopping(monitor="learning_rate", mode="min", patience=2)
    progress = trainer.fit(make_batches(), [Watch(), stopping, keras.callbacks.CSVLogger(tmp_path / "log.csv")])
    assert progress.stopped and len(progress.history) == 4  # the rate falls once, then two epochs of patience
    assert seen == [0, 1, 2] * 4
    assert [row["learning_rate"] for row in progress.history[1:]] == pytest.approx([0.0125] * 3)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5


def test_steps_are_traced_once_for_whole_and_ragged_batches(tmp_path):
    trainer = make_trainer(tmp_path)
    traces = []
    make = trainer._make_step
    trainer._make_step = lambda *arguments: traces.append(make(*arguments)) or traces[-1]
    trainer.fit(make_batches())
    assert traces[0].experimental_get_tracing_count() <= 2
