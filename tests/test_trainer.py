"""The training loop on a tiny model: exact resume, equal replicas, precision, XLA, callbacks, and what stops a run."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain_config import PLAIN
from test_freezing import tiny_classifier

from tl_keras.config import RuntimeConfig
from tl_keras.data.sampling import batch_sizes
from tl_keras.errors import DamagedError, TrainingError
from tl_keras.strategies import Phase, build_phases, freezing
from tl_keras.training import checkpoint, train_step
from tl_keras.training import trainer as trainer_module
from tl_keras.training.epoch_meter import EpochMeter
from tl_keras.training.evaluation import compute_metrics, predict_logits
from tl_keras.training.losses import build_loss
from tl_keras.training.runtime import make_runtime
from tl_keras.training.trainer import Batches, Trainer

NUM_TRAIN, NUM_VALIDATION, BATCH = 22, 13, 8  # neither is a multiple of the batch size
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
    return Batches(training, batch_sizes(NUM_TRAIN, batch), tf.data.Dataset.from_tensor_slices(padded).batch(BATCH) if validation else None)


def make_trainer(*, phases=None, settings=None, unbiased_variance=False, **config) -> Trainer:
    """Return a trainer of `tiny_classifier`, which has BatchNorm and dropout in both stages."""
    train = replace(PLAIN.train, **{"batch_size": BATCH, "learning_rate": 0.05, "epochs": 3, **config})
    runtime = make_runtime(RuntimeConfig(**{"precision": "float32", **(settings or {})}), seed=3, batch_size=BATCH, depthwise=False)
    with runtime.scope():
        model, stages = tiny_classifier()
    phases = phases or build_phases(("stem", "body"), train)
    loss = build_loss(train, dict(Counter(LABELS[:NUM_TRAIN].tolist())), 3)
    return Trainer(model, stages, phases, train, runtime, loss=loss, unbiased_variance=unbiased_variance)


def plain_trainer(settings=None, **chosen) -> Trainer:
    """Return a trainer of a model without BatchNorm and dropout: the gradient of a batch is the mean of those of its parts."""
    train = replace(PLAIN.train, **{"batch_size": BATCH, "learning_rate": 0.05, "epochs": 2, "selection": "last", **chosen})
    runtime = make_runtime(
        RuntimeConfig(**{"precision": "float32", **(settings or {})}), seed=3, batch_size=train.batch_size, depthwise=False
    )
    with runtime.scope():
        layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    loss = build_loss(train, dict(Counter(LABELS[:NUM_TRAIN].tolist())), 3)
    return Trainer(model, {"head": model.layers}, build_phases((), train), train, runtime, loss=loss)


def values(trainer: Trainer) -> list[np.ndarray]:
    return [variable.numpy() for variable in [*trainer.model.variables, *trainer.optimizer.variables]]


def validation_loss(trainer: Trainer) -> float:
    """Return the validation loss of the model with its current weights."""
    return compute_metrics(*predict_logits(trainer.predict, trainer.runtime, make_batches().validation))["loss"]


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
        pytest.param(1, {"optimizer": "sgd"}, marks=pytest.mark.slow),
        (2, {"optimizer": "adamw", "ema": 0.9}),
        pytest.param(3, {"optimizer": "sgd", "learning_rate": 1.0, "selection": "best"}, marks=pytest.mark.slow),
        (3, {"optimizer": "sgd", "nesterov": True, "l2": 0.01, "accumulate_steps": 2, "schedule": "one_cycle"}),
        (4, {"optimizer": "adam", "clip_norm": 0.1, "ema": 0.9, "accumulate_steps": 2}),
        (2, {"optimizer": "adamw", "settings": {"precision": "mixed_bfloat16"}}),
        pytest.param(3, {"optimizer": "sgd", "nesterov": True, "settings": {"precision": "mixed_bfloat16"}}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(tmp_path, kill_after, chosen, monkeypatch):
    """After a kill in any epoch, at phase boundaries too: weights, moments, history and audits are equal."""
    monkeypatch.setattr(train_step, "MIN_SIXTEEN_BIT", 1)

    def kill(progress):
        if progress.epoch == kill_after + 1:
            raise Killed

    settings = {"schedule": "cosine", "warmup_epochs": 1.0, "epochs": 5, "phases": GRADUAL, "selection": "last", **chosen}
    straight = make_trainer(**settings)
    expected = straight.fit(make_batches(), tmp_path / "straight")
    with pytest.raises(Killed):
        make_trainer(**settings).fit(make_batches(), tmp_path / "killed", on_epoch=kill)
    resumed = make_trainer(**settings)
    progress = resumed.fit(make_batches(), tmp_path / "killed")
    for one, other in zip(values(straight), values(resumed), strict=True):
        np.testing.assert_array_equal(one, other)
    timeless = [
        {key: row[key] for key in ("epoch", "phase", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")}
        for row in progress.history
    ]
    assert timeless == [{key: row[key] for key in timeless[0]} for row in expected.history]
    assert [record["audit"] for record in progress.phases] == [record["audit"] for record in expected.phases]
    assert [record["epochs"] for record in progress.phases] == [2, 1, 2]


@pytest.mark.parametrize(
    ("kill_after", "optimizer", "reset"),
    [
        (1, "sgd", "epoch"),
        (2, "adamw", "phase"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((1, "adamw", "phase"), (2, "sgd", "epoch"), (3, "sgd", "epoch"), (3, "adamw", "phase"))
        ),
    ],
)
def test_a_run_resumes_exactly_across_switches_of_mode_and_optimizer(tmp_path, kill_after, optimizer, reset):
    """Evaluation mode begins after one epoch, the stem is unfrozen after two, and the moments start at zero."""
    settings = {
        "strategy": f"gradual:start=body,every=2,reset={reset}", "epochs": 4, "eval_mode_after": 1, "frozen_mode": "training",
        "optimizer": optimizer, "selection": "last", "ema": 0.5,
    }  # fmt: skip

    def kill(progress):
        if progress.epoch == kill_after + 1:
            raise Killed

    straight, resumed = make_trainer(**settings), make_trainer(**settings)
    expected = straight.fit(make_batches(), tmp_path / "straight")
    with pytest.raises(Killed):
        make_trainer(**settings).fit(make_batches(), tmp_path / "killed", on_epoch=kill)
    progress = resumed.fit(make_batches(), tmp_path / "killed")
    for one, other in zip(values(straight), values(resumed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [row["loss"] for row in progress.history] == [row["loss"] for row in expected.history]
    assert [(record["epochs"], record["eval_mode"]) for record in progress.phases] == [(1, False), (1, True), (2, True)]


class RecordSlots(keras.callbacks.Callback):
    """Keeps the sum of all moments at the first step of each epoch."""

    def __init__(self, trainer):
        super().__init__()
        self.trainer, self.sums = trainer, []

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.sums.append(sum(float(np.abs(slot.numpy()).sum()) for slot in self.trainer.optimizer.slots))


@pytest.mark.parametrize(
    ("reset", "optimizer", "distribution", "zero_in"),
    [
        ("never", "sgd", "none", [1]),
        ("phase", "sgd", "none", [1, 3]),
        ("phase", "adam", "none", [1, 3]),
        ("epoch", "adam", "mirrored", [1, 2, 3, 4]),
    ],
)
def test_moments_start_at_zero_with_each_phase_or_epoch(tmp_path, reset, optimizer, distribution, zero_in):
    """Four epochs in two phases. Adam's numbers of steps are among the moments."""
    config = {"strategy": f"gradual:start=body,every=2,reset={reset}", "epochs": 4, "optimizer": optimizer}
    trainer = make_trainer(settings={"distribution": distribution}, **config)
    record = RecordSlots(trainer)
    trainer.fit(make_batches(replicas=trainer.runtime.replicas), tmp_path, [record])
    assert [epoch for epoch, total in enumerate(record.sums, start=1) if total == 0] == zero_in


def test_a_reset_at_a_phase_equals_a_new_optimizer(tmp_path):
    """The second phase trains as a run of its own that begins with the weights of the first."""
    phases = (Phase("head", 1, {"head": "all"}), Phase("body", 1, {"body": "all", "head": "all"}, reset_optimizer="phase"))
    settings = {"optimizer": "adam", "epochs": 2, "selection": "last"}
    whole, first = make_trainer(phases=phases, **settings), make_trainer(phases=phases[:1], **settings)
    whole.fit(make_batches(), tmp_path / "whole")
    first.fit(make_batches(), tmp_path / "first")
    second = make_trainer(phases=phases[1:], **settings)
    for variable, value in zip(second.model.variables, first.model.variables, strict=True):
        variable.assign(value)
    batches = make_batches()
    second.fit(Batches(lambda epoch: batches.training(epoch + 1), batches.sizes, batches.validation), tmp_path / "second")
    for one, other in zip(whole.model.variables, second.model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


EVALUATED = {"strategy": "head", "frozen_mode": "training", "eval_mode_after": 1, "selection": "last"}


def test_frozen_statistics_move_in_the_first_epoch_and_nothing_frozen_moves_after_it(tmp_path):
    trainer, record = make_trainer(**EVALUATED), RecordWeights()
    start = [variable.numpy() for variable in trainer.model.variables]
    progress = trainer.fit(make_batches(), tmp_path, [record])
    names = [variable.path for variable in trainer.model.variables]
    changes = [
        {name for name, one, other in zip(names, before, after, strict=True) if not np.array_equal(one, other)}
        for before, after in zip([start, *record.weights], record.weights, strict=False)
    ]
    head = {"logits/kernel", "logits/bias"}
    statistics = {f"{stage}_bn/moving_{statistic}" for stage in ("stem", "body") for statistic in ("mean", "variance")}
    seeds = {name for name in names if "seed" in name}
    assert changes == [head | statistics | seeds, head, head]
    assert [(phase["eval_mode"], phase["audit"]["changed"]) for phase in progress.phases] == [(False, 6), (True, 2)]


def test_the_audit_finds_statistics_that_move_in_evaluation_mode(tmp_path, monkeypatch):
    """Without `apply_phase` every layer runs in training mode. The first phase may move its statistics, the second may not."""
    monkeypatch.setattr(freezing, "apply_phase", lambda stages, phase: nullcontext())
    trainer = make_trainer(**EVALUATED)
    with pytest.raises(TrainingError, match=r"'head \(eval mode\)': 4 weights \(body_bn/moving_mean, .* although the strategy freezes"):
        trainer.fit(make_batches(), tmp_path)
    assert [phase["name"] for phase in trainer.progress.phases] == ["head"]


class RecordWeights(keras.callbacks.Callback):
    """Keeps the weights of the model at the end of each epoch."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append([variable.numpy() for variable in self.model.variables])


def test_an_interrupted_run_selects_the_best_epoch_from_its_checkpoint(tmp_path, monkeypatch):
    """Every epoch is written, the second of four is the best, and a run that resumes at the end only loads its weights."""
    monkeypatch.setattr(checkpoint.SavePolicy, "is_due", True)
    scores = iter([{"loss": loss, "accuracy": accuracy} for loss, accuracy in ((1.0, 0.5), (0.5, 0.9), (0.7, 0.6), (0.6, 0.9))])
    monkeypatch.setattr(trainer_module, "compute_metrics", lambda logits, labels: next(scores))
    settings, record = {"epochs": 4, "selection": "best"}, RecordWeights()
    straight, resumed = make_trainer(**settings), make_trainer(**settings)
    best = straight.fit(make_batches(), tmp_path, [record]).best
    assert best == {"epoch": 2, "accuracy": 0.9, "loss": 0.5}
    assert resumed.fit(make_batches(), tmp_path).best == best and resumed.selected_epoch() == 2
    for trainer in (straight, resumed):
        for variable, value in zip(trainer.model.variables, record.weights[1], strict=True):
            np.testing.assert_array_equal(variable.numpy(), value)


def test_writing_checkpoints_takes_a_tenth_of_the_time_at_most(monkeypatch):
    clock = [50.0]
    monkeypatch.setattr("tl_keras.training.checkpoint.time.perf_counter", lambda: clock[0])
    policy = checkpoint.SavePolicy()
    assert policy.is_due
    with policy.writing():
        clock[0] += 2.0
    for seconds, due in ((0.0, False), (19.0, False), (1.0, True)):
        clock[0] += seconds
        assert policy.is_due is due


HEAD_ONLY = (Phase("head", 3, {"head": "all"}),)


def kill_head_run(directory) -> None:
    """Train the head alone and kill the run after its second epoch."""

    def on_epoch(progress):
        if progress.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        make_trainer(phases=HEAD_ONLY).fit(make_batches(), directory, on_epoch=on_epoch)


def test_a_checkpoint_contains_only_what_training_changes(tmp_path):
    kill_head_run(tmp_path / "killed")
    resumed, straight = (make_trainer(phases=HEAD_ONLY) for _ in range(2))
    with np.load(tmp_path / "killed" / "latest.npz") as arrays:
        shapes = sorted(arrays[name].shape for name in arrays.files if arrays[name].ndim > 1)
    head = tuple(resumed.model.get_layer("logits").kernel.shape)
    assert shapes == [head] * 3  # the kernel, its momentum, and the kernel in the best epoch
    for trainer, name in ((resumed, "killed"), (straight, "straight")):
        trainer.fit(make_batches(), tmp_path / name)
    for one, other in zip(values(resumed), values(straight), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_is_not_resumed_on_other_frozen_weights(tmp_path):
    kill_head_run(tmp_path)
    resumed = make_trainer(phases=HEAD_ONLY)
    kernel = resumed.model.get_layer("stem_conv").kernel
    kernel.assign(kernel + 1e-3)
    with pytest.raises(DamagedError, match=r"1 weights \(.*conv/kernel\) differ"):
        resumed.fit(make_batches(), tmp_path)


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    kill_head_run(tmp_path)
    restore = checkpoint.restore

    def restore_older(*arguments):
        best_values, state = restore(*arguments)
        return best_values, state | {"rate_factor": 1.0}

    monkeypatch.setattr(checkpoint, "restore", restore_older)
    with pytest.raises(DamagedError, match="another version"):
        make_trainer(phases=HEAD_ONLY).fit(make_batches(), tmp_path)


def remove_dropout(trainer: Trainer) -> None:
    """Set the dropout rates to 0: replicas and XLA draw other masks."""
    for layer in trainer.model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0


@pytest.mark.parametrize("chosen", [{}, {"clip_norm": 0.1, "accumulate_steps": 2, "ema": 0.9, "class_weights": "balanced"}], ids=str)
@pytest.mark.parametrize("strategy", ["head", "full"])
def test_two_replicas_train_as_one(tmp_path, strategy, chosen):
    """The losses agree to rounding: of a head behind BatchNorm in inference mode, and of a whole model without BatchNorm."""
    histories = []
    for distribution, replicas in (("none", 1), ("mirrored", 2)):
        make = make_trainer if strategy == "head" else plain_trainer
        trainer = make(strategy=strategy, settings={"distribution": distribution}, **chosen)
        assert trainer.runtime.replicas == replicas
        remove_dropout(trainer)
        histories.append(trainer.fit(make_batches(replicas=replicas), tmp_path / distribution).history)
    for one, two in zip(*histories, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_batch_norm_keeps_the_statistics_of_each_replica(tmp_path, replicas):
    """Each replica normalizes with its own part of the batch. The weights that are saved are those of the first replica."""
    trainer = make_trainer(epochs=1, selection="last", settings={"distribution": "mirrored" if replicas == 2 else "none"})
    remove_dropout(trainer)
    outputs = keras.Model(trainer.model.input, trainer.model.get_layer("stem_conv").output)(IMAGES[:BATCH]).numpy()
    dataset = tf.data.Dataset.from_tensors((IMAGES[:BATCH], TARGETS[:BATCH]))
    trainer.fit(Batches(lambda epoch: dataset, (BATCH,), None), tmp_path)
    norm = trainer.model.get_layer("stem_bn")  # its momentum is 0.5
    means, variances = (
        [variable.numpy() for variable in trainer.runtime.strategy.experimental_local_results(statistic.value)]
        for statistic in (norm.moving_mean, norm.moving_variance)
    )
    for mean, variance, part in zip(means, variances, np.split(outputs, replicas), strict=True):
        np.testing.assert_allclose(mean, 0.5 * part.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(variance, 0.5 + 0.5 * part.var(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), means[0])
    assert replicas == 1 or not np.allclose(means[0], means[1], rtol=1e-3)


@pytest.mark.parametrize(
    "chosen", [{"optimizer": "sgd"}, {"optimizer": "adamw", "schedule": "cosine", "clip_norm": 0.5, "ema": 0.9}], ids=str
)
def test_accumulated_batches_equal_one_larger_batch(tmp_path, chosen):
    """With 22 images two batches of 4 equal one of 8. The last update of an epoch has a batch of 4 and one of 2."""
    one = plain_trainer(batch_size=8, **chosen)
    many = plain_trainer(batch_size=4, accumulate_steps=2, **chosen)
    histories = [one.fit(make_batches(batch=8), tmp_path / "one").history, many.fit(make_batches(batch=4), tmp_path / "many").history]
    assert one.optimizer.iterations.numpy() == many.optimizer.iterations.numpy() == 6
    for expected, value in zip(values(one), values(many), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)
    for key in ("val_loss", "learning_rate"):
        assert [row[key] for row in histories[1]] == pytest.approx([row[key] for row in histories[0]], rel=1e-4)


class RecordUpdates(keras.callbacks.Callback):
    """Keeps the trained weights and statistics before the first step and after each."""

    def __init__(self, variables):
        super().__init__()
        self.variables, self.weights = variables, [[variable.numpy() for variable in variables]]

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append([variable.numpy() for variable in self.variables])


def test_the_moving_average_is_validated_and_tested(tmp_path):
    """It follows its formula for trained weights and running statistics. Training continues with the raw weights."""
    plain = make_trainer(selection="last").fit(make_batches(), tmp_path / "plain")
    trainer = make_trainer(selection="last", ema=0.8)
    record = RecordUpdates([variable for variable in trainer.model.variables if "seed" not in variable.path])
    progress = trainer.fit(make_batches(), tmp_path / "ema", [record])
    assert [row["loss"] for row in progress.history] == [row["loss"] for row in plain.history]
    assert [row["val_loss"] for row in progress.history] != pytest.approx([row["val_loss"] for row in plain.history], rel=1e-5)
    averages = record.weights[0]
    for step, weights in enumerate(record.weights[1:]):
        decay = min(0.8, (1 + step) / (10 + step))
        averages = [decay * average + (1 - decay) * weight for average, weight in zip(averages, weights, strict=True)]
    for variable, expected in zip(record.variables, averages, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-4, atol=1e-6, err_msg=variable.path)
    assert validation_loss(trainer) == pytest.approx(progress.history[-1]["val_loss"], rel=1e-6)


def test_the_averages_of_the_best_epoch_are_kept(tmp_path):
    trainer = make_trainer(epochs=6, learning_rate=0.3, ema=0.5)
    progress = trainer.fit(make_batches(), tmp_path)
    assert validation_loss(trainer) == pytest.approx(progress.best["loss"], rel=1e-6)


def test_a_mixed_target_counts_as_its_largest_class(tmp_path):
    """Targets of 0.9 for the label and 0.05 for the others have the accuracy of one-hot targets with the same smoothing."""
    mixed = 0.85 * TARGETS + 0.05
    histories = [
        make_trainer().fit(make_batches(targets=targets), tmp_path / name).history for name, targets in (("0", TARGETS), ("1", mixed))
    ]
    assert histories[1][0]["loss"] != histories[0][0]["loss"]
    smoothed = make_trainer(label_smoothing=0.15).fit(make_batches(), tmp_path / "2").history
    assert [row["loss"] for row in smoothed] == pytest.approx([row["loss"] for row in histories[1]], rel=1e-4)
    assert [row["accuracy"] for row in smoothed] == [row["accuracy"] for row in histories[1]]


def test_xla_trains_the_same(tmp_path):
    histories = []
    for xla in ("off", "on"):
        trainer = make_trainer(settings={"xla": xla}, epochs=2)
        remove_dropout(trainer)
        assert trainer.runtime.record()["xla"] == (xla == "on")
        histories.append(trainer.fit(make_batches(), tmp_path / xla).history)
    assert [row["loss"] for row in histories[1]] == pytest.approx([row["loss"] for row in histories[0]], rel=1e-4)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_float32_weights_and_logits(tmp_path, precision):
    trainer = make_trainer(settings={"precision": precision})
    history = trainer.fit(make_batches(), tmp_path).history
    assert trainer.model.get_layer("stem_conv").compute_dtype == precision.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in trainer.model.weights} == {"float32"}
    assert trainer.model.output.dtype == "float32"
    assert all(np.isfinite(row["loss"]) for row in history)


@pytest.mark.parametrize("settings", [{}, {"precision": "mixed_float16"}, {"distribution": "mirrored"}], ids=str)
def test_clipping_acts_on_the_whole_unscaled_gradient(tmp_path, settings):
    """One update of three batches has the length learning_rate x clip_norm, over all weights, replicas and batches together."""
    trainer = make_trainer(epochs=1, accumulate_steps=3, clip_norm=0.01, momentum=0.0, settings=settings)
    trained = trainer.model.trainable_variables
    before = [variable.numpy() for variable in trained]
    trainer.fit(make_batches(replicas=trainer.runtime.replicas), tmp_path)
    change = [variable.numpy() - value for variable, value in zip(trained, before, strict=True)]
    assert np.sqrt(sum(np.sum(part**2) for part in change)) == pytest.approx(0.05 * 0.01, rel=1e-2)


def test_selection_restores_the_best_epoch_on_validation(tmp_path):
    trainer = make_trainer(epochs=6, selection="best")
    progress = trainer.fit(make_batches(), tmp_path)
    scores = [(row["val_accuracy"], -row["val_loss"]) for row in progress.history]
    assert trainer.selected_epoch() == 1 + max(range(6), key=lambda index: scores[index])
    assert validation_loss(trainer) == pytest.approx(progress.best["loss"], rel=1e-6)


def test_without_validation_the_last_epoch_is_selected(tmp_path):
    trainer = make_trainer(selection="best")
    progress = trainer.fit(make_batches(validation=False), tmp_path)
    assert trainer.selected_epoch() == 3 and not progress.best and "val_loss" not in progress.history[0]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    images = IMAGES.copy()
    images[np.random.default_rng((0, 1)).permutation(NUM_TRAIN)[BATCH]] = np.nan  # first seen in some step of the first epoch
    with pytest.raises(TrainingError, match=r"loss became nan at step [123] \(epoch 1\); the last finite"):
        make_trainer().fit(make_batches(images), tmp_path)
    assert not (tmp_path / "latest.npz").exists()


def test_the_meter_separates_computing_from_waiting_and_omits_the_first_step(monkeypatch):
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

    stopping = keras.callbacks.EarlyStopping(monitor="learning_rate", mode="min", patience=2)
    callbacks = [Watch(), stopping, keras.callbacks.CSVLogger(tmp_path / "log.csv")]
    progress = make_trainer(epochs=9).fit(make_batches(), tmp_path, callbacks)
    assert progress.stopped and len(progress.history) == 4  # the learning rate falls once, then two epochs of patience
    assert seen == [0, 1, 2] * 4
    assert [row["learning_rate"] for row in progress.history[1:]] == pytest.approx([0.0125] * 3)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5


def test_functions_are_traced_once_per_phase_for_whole_and_ragged_batches(tmp_path, monkeypatch):
    """Each phase traces its own step, and one prediction serves all phases."""
    steps = []

    def recording(*arguments, make=trainer_module.make_train_step, **options):
        steps.append(make(*arguments, **options))
        return steps[-1]

    monkeypatch.setattr(trainer_module, "make_train_step", recording)
    trainer = make_trainer(phases=GRADUAL, epochs=5)
    trainer.fit(make_batches(), tmp_path)
    assert len(steps) == len(GRADUAL)
    assert [function.function.experimental_get_tracing_count() for function in (*steps, trainer.predict)] == [1] * (len(GRADUAL) + 1)
