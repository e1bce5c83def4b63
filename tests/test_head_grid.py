"""A grid of heads: its grammar, and each head against the same head in the training loop."""

import csv
import dataclasses
import subprocess
import sys
from collections import Counter

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from plain_config import PLAIN

from tl_keras.backbones.layers import dense
from tl_keras.config import RunConfig, RuntimeConfig
from tl_keras.data.examples import Examples, ImageStore
from tl_keras.data.sampling import batch_sizes, epoch_order
from tl_keras.errors import ConfigError, TrainingError
from tl_keras.runs.evaluate import evaluate_run
from tl_keras.runs.fallbacks import EMBEDDED_SETTINGS
from tl_keras.runs.run import run
from tl_keras.strategies import build_phases, grid
from tl_keras.training.head_grid import GridResult, train_heads
from tl_keras.training.losses import build_loss
from tl_keras.training.runtime import make_runtime
from tl_keras.training.trainer import Batches, Trainer

NUM_TRAIN, NUM_VALIDATION, FEATURES, CLASSES, BATCH = 45, 30, 12, 4, 8  # neither count divides by the batch
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.choice(CLASSES, NUM_TRAIN + NUM_VALIDATION, p=[0.5, 0.2, 0.2, 0.1])
VALUES = (RANDOM.normal(size=(len(LABELS), FEATURES)) + 0.8 * np.eye(CLASSES, FEATURES)[LABELS]).astype("float32")
TRAINING, VALIDATION = (VALUES[:NUM_TRAIN], LABELS[:NUM_TRAIN]), (VALUES[NUM_TRAIN:], LABELS[NUM_TRAIN:])
EXAMPLES = Examples(ImageStore(np.zeros((NUM_TRAIN, 1, 1, 3), "uint8")), TRAINING[1], np.arange(NUM_TRAIN))


def settings(**chosen) -> RunConfig:
    return PLAIN.replace(**{"strategy": "head", "batch_size": BATCH, "epochs": 4, "learning_rate": 0.05, **chosen})


def build(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    features = keras.Input((FEATURES,))
    return keras.Model(features, dense(features, CLASSES, "logits", dtype="float32"))


def initial(seed: int):
    return build(seed).get_layer("logits").get_weights()


def order(epoch: int, sampling: str = "natural") -> np.ndarray:
    return epoch_order(EXAMPLES, sampling, seed=0, epoch=epoch)[0]


def train(heads, config, *, training=TRAINING, validation=VALIDATION, sampling="natural", **options) -> GridResult:
    drawn = {"num_classes": CLASSES, "order": lambda epoch: order(epoch, sampling), "initial": initial}
    return train_heads(training, validation, heads, config.train, **drawn, **options)


def train_alone(head: grid.HeadConfig, config: RunConfig, directory, sampling="natural") -> tuple[Trainer, keras.Model]:
    """Train one head in the training loop."""
    chosen = {name: value for name, value in dataclasses.asdict(head).items() if name != "seed"}
    config = dataclasses.replace(config.train, **chosen)
    runtime = make_runtime(RuntimeConfig(precision="float32"), seed=head.seed, batch_size=BATCH, depthwise=False)
    model = build(head.seed)
    features, labels = TRAINING
    targets = np.eye(CLASSES, dtype="float32")[labels]

    def training(epoch):
        rows = order(epoch, sampling)
        return tf.data.Dataset.from_tensor_slices((features[rows], targets[rows])).batch(BATCH)

    validation = tf.data.Dataset.from_tensor_slices((*VALIDATION, np.ones(NUM_VALIDATION, "float32"))).batch(BATCH)
    loss = build_loss(config, dict(Counter(labels.tolist())), CLASSES)
    trainer = Trainer(model, {"head": tuple(model.layers)}, build_phases((), config), config, runtime, loss=loss)
    trainer.fit(Batches(training, batch_sizes(len(order(0, sampling)), BATCH), validation), directory)
    return trainer, model


@pytest.mark.parametrize(
    ("text", "chosen", "sampling"),
    [
        ("learning_rate=1e-2|0.3,l2=0|0.1", {"optimizer": "sgd", "nesterov": True, "schedule": "cosine", "warmup_epochs": 1.0}, "natural"),
        (
            "learning_rate=0.01|0.05,weight_decay=0|0.5",
            {"optimizer": "adamw", "decay_biases": False, "class_weights": "balanced"},
            "natural",
        ),
        ("l2=0|0.1", {"optimizer": "adam", "ema": 0.9, "accumulate_steps": 2, "schedule": "step"}, "natural"),
        ("label_smoothing=0|0.3,seed=0|5", {"clip_norm": 0.1, "momentum": 0.0, "selection": "last"}, "natural"),
        ("learning_rate=0.01|0.5", {"schedule": "plateau", "epochs": 16, "loss": "focal"}, "balanced"),
    ],
    ids=["sgd", "adamw", "adam", "clipped", "plateau"],
)
def test_a_head_of_a_grid_equals_the_head_of_its_own_run(tmp_path, text, chosen, sampling):
    """The table has the scores of the runs; weights, history and best epoch are those of the run of the best head."""
    config = settings(**chosen)
    heads = grid.parse(text, config)
    result = train(heads, config, sampling=sampling)
    for number, (head, row) in enumerate(zip(heads, result.table, strict=True)):
        trainer, model = train_alone(head, config, tmp_path / str(number), sampling)
        history, selected = trainer.progress.history, trainer.selected_epoch()
        expected = {name: history[selected - 1][name] for name in ("val_accuracy", "val_loss")} | {"loss": history[-1]["loss"]}
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        assert (row["selected_epoch"], row["diverged"]) == (selected, False)
        assert {name: row[name] for name in grid.HEAD_SETTINGS} == dataclasses.asdict(head)
        if number != result.best_index:
            continue
        for mine, alone in zip((result.kernel, result.bias), model.get_layer("logits").get_weights(), strict=True):
            np.testing.assert_allclose(mine, alone, rtol=1e-3, atol=2e-5)
        assert result.best == pytest.approx(trainer.progress.best, rel=1e-5) and result.selected_epoch == selected
        for mine, alone in zip(result.history, history, strict=True):
            assert mine["phase"] == alone["phase"] and set(mine) == set(alone) - {"images/s", "input_wait"}
            names = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
            assert {name: mine[name] for name in names} == pytest.approx({name: alone[name] for name in names}, rel=1e-5)


def test_the_best_head_is_the_best_on_validation():
    config = settings()
    result = train(grid.parse("learning_rate=1e-5|1e-1,l2=0|10", config), config)
    scores = [(row["val_accuracy"], -row["val_loss"]) for row in result.table]
    assert result.best_index == scores.index(max(scores)) and len(set(scores)) == 4
    logits = VALIDATION[0] @ result.kernel + result.bias
    row = result.table[result.best_index]
    assert (logits.argmax(axis=1) == VALIDATION[1]).mean() == pytest.approx(row["val_accuracy"])
    assert result.best == {"epoch": row["selected_epoch"], "accuracy": row["val_accuracy"], "loss": row["val_loss"]}


def test_a_head_that_diverges_is_marked_and_does_not_change_the_others():
    config = settings(l2=0.1)
    wild, tame = grid.parse("learning_rate=1e30|0.1", config)
    together, alone = train([wild, tame], config), train([tame], config)
    assert [row["diverged"] for row in together.table] == [True, False] and together.best_index == 1
    np.testing.assert_allclose(together.kernel, alone.kernel, rtol=1e-5, atol=1e-6)
    with pytest.raises(TrainingError, match="every head"):
        train([wild], config)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16], ids=str)
def test_features_may_be_half_precision_and_memory_mapped(tmp_path, monkeypatch, dtype):
    """They train as the same numbers in float32 do; from a file in blocks, of which the last is smaller, to the bit as from memory."""
    config = settings(optimizer="adam", ema=0.5)
    heads = grid.parse("learning_rate=1e-2|1e-1", config)
    parts = [(features.astype(dtype), labels) for features, labels in (TRAINING, VALIDATION)]
    widened = [(features.astype("float32"), labels) for features, labels in parts]
    memory, wide = (train(heads, config, training=one, validation=other) for one, other in (parts, widened))
    monkeypatch.setattr("tl_keras.training.head_grid.BLOCK_BYTES", 2 * BATCH * FEATURES * 2)
    mapped = []
    for name, (features, labels) in zip(("training", "validation"), parts, strict=True):
        file = np.memmap(tmp_path / name, dtype=dtype, mode="w+", shape=features.shape)
        file[:] = features
        mapped.append((file, labels))
    stored = train(heads, config, training=mapped[0], validation=mapped[1])
    for one in (wide, stored):
        np.testing.assert_array_equal(one.kernel, memory.kernel)
        assert one.table == memory.table


def test_xla_trains_the_same():
    config = settings(optimizer="adam", ema=0.5, clip_norm=1.0)
    heads = grid.parse("learning_rate=1e-2|1e-1", config)
    plain, compiled = (train(heads, config, xla=xla) for xla in (False, True))
    np.testing.assert_allclose(compiled.kernel, plain.kernel, rtol=1e-3, atol=1e-5)


def test_a_grid_needs_validation_examples():
    config = settings()
    empty = (VALUES[:0], LABELS[:0])
    with pytest.raises(ConfigError, match="validation_fraction"):
        train(grid.parse("l2=0|1", config), config, validation=empty)


def test_the_grammar_has_values_and_ranges():
    config = settings(seed=3, weight_decay=0.25)
    heads = grid.parse("learning_rate=1e-4:1e-1:7,l2=0:1e-2:3", config)
    assert len(heads) == 21 and heads[0] == grid.HeadConfig(1e-4, 0.0, 0.25, 0.0, 3)
    assert [head.l2 for head in heads[:4]] == [0.0, 0.001, 0.01, 0.0]
    assert [head.learning_rate for head in heads[::3]] == [1e-4, 0.000316228, 1e-3, 0.00316228, 1e-2, 0.0316228, 0.1]
    assert grid.parse("seed=0|7,label_smoothing=0.1", config) == tuple(grid.HeadConfig(0.05, 0.0, 0.25, 0.1, seed) for seed in (0, 7))
    assert [head.l2 for head in grid.parse("l2=0:1e-2:2", config)] == [0.0, 0.01]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "name=values"),
        ("learning_rate", "name=values"),
        ("l2=0,l2=1", "different name=values"),
        ("momentum=0.9", "Unknown setting of a head 'momentum'"),
        ("learnin_rate=1|2", "Did you mean 'learning_rate'"),
        ("l2=a|b", "l2=a"),
        ("l2=0|0", "different values"),
        ("l2=1:0.1:3", "low < high"),
        ("l2=0.1:1:1", "count at least 2"),
        ("l2=0.1:1", "low:high:count"),
        ("l2=0.1:1:many", "low:high:count"),
        ("l2=0.1:inf:3", "low:high:count"),
        ("l2=nan", "finite"),
        ("learning_rate=0:1:3", "above 0"),
        ("label_smoothing=1", "fraction in"),
        ("seed=0:4:5", "seed=0|1|2"),
        ("seed=-1", "2^31"),
        ("learning_rate=1e-5:1:100,l2=0:1:6", "at most 512 heads, not 600"),
        ("l2=1e-9:1:100000", "low:high:count"),
    ],
)
def test_the_error_of_a_grid_states_the_cause(text, words):
    with pytest.raises(ConfigError) as caught:
        grid.parse(text, settings())
    assert words in str(caught.value) and str(caught.value).startswith(f"`grid={text}`: ")


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"strategy": "last:1"}, "strategy=head"),
        ({"frozen_mode": "training"}, "frozen_mode"),
        ({"eval_mode_after": 1}, "eval_mode_after=-1"),
        ({"stage_learning_rates": "head=1"}, "`stage_learning_rates` empty"),
        ({"validation_fraction": 0.0}, "validation"),
    ],
)
def test_settings_that_exclude_a_grid_are_refused(chosen, words):
    with pytest.raises(ConfigError, match=words):
        grid.parse("l2=0|1", settings(**chosen))


def test_a_grid_is_parsed_without_tensorflow():
    code = (
        "import sys; from tl_keras.strategies import grid; from tl_keras.config import RunConfig; "
        "grid.parse('l2=0|1', RunConfig().replace(strategy='head')); sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_of_a_grid_writes_a_table_of_all_heads(tmp_path):
    config = PLAIN.replace(
        **EMBEDDED_SETTINGS, strategy="head", grid="learning_rate=1e-3|1e-2,l2=0|1e-2", epochs=3, batch_size=32, fraction=0.2,
        limit_test=99, precision="float32", optimizer="adam",
    )  # fmt: skip
    result = run(config, tmp_path / "grid")
    with open(tmp_path / "grid" / "grid.csv", newline="") as file:
        table = list(csv.DictReader(file))
    best = max(table, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    assert len(table) == 4 and result["phases"][0]["grid"]["heads"] == 4
    assert result["metrics"]["validation"]["accuracy"] == float(best["val_accuracy"])
    assert result["phases"][0]["grid"]["best_head"]["learning_rate"] == float(best["learning_rate"])
    settings = {name: float(best[name]) for name in ("learning_rate", "l2")}
    alone = run(config.replace(grid="", **settings), tmp_path / "alone")
    assert alone["metrics"]["test"]["accuracy"] == result["metrics"]["test"]["accuracy"]
    assert alone["metrics"]["test"]["loss"] == pytest.approx(result["metrics"]["test"]["loss"], rel=1e-4)
    assert evaluate_run(tmp_path / "grid", {}).metrics["accuracy"] == result["metrics"]["test"]["accuracy"]
