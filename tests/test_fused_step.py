"""The step with fused kernels trains as one with stock layers: losses, weights and running statistics, and goes on in plain Keras."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from test_trainer import IMAGES, make_batches, make_trainer, remove_dropout

from tl_keras.strategies import Phase
from tl_keras.training import batch_norm

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
