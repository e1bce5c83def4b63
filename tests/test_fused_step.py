"""The step with fused kernels trains as one with stock layers: losses, weights and running statistics, and goes on in plain Keras."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from test_trainer import IMAGES, make_batches, make_trainer, remove_dropout

from tl_keras.strategies import Phase
from tl_keras.training import batch_norm, train_step

ALL = dict.fromkeys(("stem", "body", "head"), "all")
PHASES = {
    "batch statistics": Phase("full", 2, ALL),
    "running statistics in trained stages": Phase("full", 2, ALL, batch_norm="inference"),
    "evaluation mode": Phase("full", 2, ALL, eval_mode=True),
    "frozen stages": Phase("body", 2, {"body": "all", "head": "all"}),
    "batch statistics of frozen stages": Phase("head", 2, {"head": "all"}, frozen_mode="training"),
}
BOUNDS = {"float32": 2e-5, "mixed_bfloat16": 2e-2}  # relative to the loss, and to the largest value of a variable


def train(directory, monkeypatch, *, fused: bool, **settings):
    with monkeypatch.context() as patch:
        if not fused:
            stock = batch_norm._with_unbiased_variance if settings.get("unbiased_variance") else lambda norm: norm.call
            patch.setattr(batch_norm, "_training_call", lambda norm, unbiased: stock(norm))
        trainer = make_trainer(epochs=2, selection="last", **settings)
        remove_dropout(trainer)
        return trainer, trainer.fit(make_batches(), directory).history


@pytest.mark.parametrize(
    ("phase", "unbiased_variance", "precision"),
    [
        ("batch statistics", True, "float32"),
        ("batch statistics", False, "mixed_bfloat16"),
        ("running statistics in trained stages", False, "mixed_bfloat16"),
        ("frozen stages", False, "float32"),
        *(pytest.param(name, False, precision, marks=pytest.mark.slow) for name in PHASES for precision in BOUNDS),
    ],
    ids=str,
)
def test_a_run_equals_one_with_stock_layers(phase, unbiased_variance, precision, tmp_path, monkeypatch):
    settings = {"phases": (PHASES[phase],), "settings": {"precision": precision}, "unbiased_variance": unbiased_variance}
    (fused, history), (stock, expected) = (train(tmp_path / str(one), monkeypatch, fused=one, **settings) for one in (True, False))
    bound = BOUNDS[precision]
    assert [row["loss"] for row in history] == pytest.approx([row["loss"] for row in expected], rel=bound)
    for variable, other in zip(fused.model.weights, stock.model.weights, strict=True):
        np.testing.assert_allclose(variable, other, rtol=0, atol=bound * max(0.1, np.abs(other.numpy()).max()), err_msg=variable.path)


def sixteen_bit_updates(directory, monkeypatch, minimum: int, **settings) -> tuple[list[str], list[np.ndarray]]:
    """Return the dtypes of gradients that the compiled update gets, and the weights of a run where it gets those of `minimum` elements."""
    monkeypatch.setattr(train_step, "MIN_SIXTEEN_BIT", minimum)
    trainer = make_trainer(epochs=2, selection="last", **settings)
    compiled, dtypes = trainer.optimizer._compiled_update, []
    vars(trainer.optimizer)["_compiled_update"] = lambda *values: (dtypes.append(values[2].dtype.name), compiled(*values))
    trainer.fit(make_batches(), directory)
    return dtypes, [weight.numpy() for weight in trainer.model.weights]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_with_16_bit_gradients_equals_one_with_their_casts(optimizer, tmp_path, monkeypatch):
    settings = {"phases": (PHASES["batch statistics"],), "optimizer": optimizer, "settings": {"precision": "mixed_bfloat16"}}
    dtypes, weights = sixteen_bit_updates(tmp_path / "narrow", monkeypatch, 1, **settings)
    none, expected = sixteen_bit_updates(tmp_path / "wide", monkeypatch, 10**9, **settings)
    assert set(dtypes) == {"bfloat16"} and not none
    for value, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=0, atol=2e-2 * max(0.1, np.abs(other).max()))


@pytest.mark.parametrize(
    "settings",
    [
        {"settings": {"precision": "mixed_bfloat16", "distribution": "mirrored"}},
        {"settings": {"precision": "mixed_bfloat16"}, "accumulate_steps": 2},
        {"settings": {"precision": "mixed_bfloat16"}, "clip_norm": 1.0},
        {"settings": {"precision": "mixed_bfloat16", "xla": "on"}},
        {"settings": {"precision": "float32"}},
    ],
    ids=["replicas", "accumulation", "clipping", "XLA", "float32"],
)
def test_gradients_that_are_summed_or_scaled_are_float32(settings, tmp_path, monkeypatch):
    assert sixteen_bit_updates(tmp_path, monkeypatch, 1, phases=(PHASES["batch statistics"],), **settings)[0] == []


def test_a_saved_model_has_equal_logits_in_plain_keras_and_trains_on_equally(tmp_path):
    """Two more steps of the trainer, with statistics of the batch, equal two of `train_on_batch` on the reloaded stock layers."""
    trainer = make_trainer(phases=(PHASES["batch statistics"],), epochs=2, selection="last", momentum=0.0)
    remove_dropout(trainer)
    trainer.fit(make_batches(), tmp_path)
    trainer.model.save(tmp_path / "model.keras")
    plain = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(plain(IMAGES), trainer.model(IMAGES))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    plain.compile(keras.optimizers.SGD(0.05), loss)
    batches = list(make_batches().training(0))[:2]
    with trainer.phase_step(trainer.phases[0]) as step:
        batch_positions = list(trainer.batches(make_batches(), 0))[:2]
        losses = [float(trainer.take_step(step, batch)[0]) / batch.num_examples for batch in batch_positions]
    assert losses == pytest.approx([plain.train_on_batch(*batch) for batch in batches], rel=2e-5)
    for variable, other in zip(trainer.model.weights, plain.weights, strict=True):
        np.testing.assert_allclose(variable, other, rtol=0, atol=2e-5 * max(0.1, np.abs(other.numpy()).max()), err_msg=variable.path)


def test_the_profile_of_a_step_names_its_kinds():
    command = [sys.executable, "-m", "benchmarks.step_profile", "--backbone=tiny", "--batch_size=4", "--precision=float32", "--steps=1"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith("tiny, 16 px, batches of 4") and lines[0].endswith("ms a step")
    rows = {cells[1].strip(): float(cells[3]) for line in lines[4:] if (cells := line.split("|"))}
    assert {"convolution and matrix product", "normalisation", "update", "activation"} <= set(rows)
    assert sum(rows.values()) == pytest.approx(100, abs=1)
