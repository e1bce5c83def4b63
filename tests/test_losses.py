"""The training losses against closed forms, and against a transcription of their formula in NumPy float64.

test_torch_training.py compares training with PyTorch itself.
"""

import math

import keras
import numpy as np
import pytest
from keras import ops

from tl_keras.config import LOSSES, TrainConfig
from tl_keras.training.losses import balanced_weights, build_loss

COUNTS = {0: 6, 1: 3, 2: 1}
LOGITS = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 1.0], [30.0, -30.0, 0.0]], np.float32)
TARGETS = np.array([[1, 0, 0], [0, 0, 1], [0.3, 0.7, 0], [1, 0, 0]], np.float32)

SETTINGS = [
    {},
    {"label_smoothing": 0.1},
    {"class_weights": "balanced"},
    {"loss": "focal"},
    {"loss": "focal", "focal_gamma": 0.0},
    {"loss": "focal", "focal_gamma": 0.5, "class_weights": "balanced", "label_smoothing": 0.2},
]


def expected(config: TrainConfig) -> np.ndarray:
    logits = LOGITS.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = (1 - config.label_smoothing) * TARGETS.astype(np.float64) + config.label_smoothing / 3
    weights = np.array([10 / (3 * COUNTS[label]) for label in range(3)]) if config.class_weights == "balanced" else np.ones(3)
    gamma = config.focal_gamma if config.loss == "focal" else 0.0
    return -(weights * targets * (1 - np.exp(log_p)) ** gamma * log_p).sum(axis=1)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_losses_equal_the_transcribed_formula_in_float32(settings, dtype):
    config = TrainConfig(**settings)
    losses = build_loss(config, COUNTS, 3)(ops.convert_to_tensor(TARGETS), ops.convert_to_tensor(LOGITS.astype(dtype)))
    assert keras.backend.standardize_dtype(losses.dtype) == "float32" and losses.shape == (4,)
    np.testing.assert_allclose(losses, expected(config), rtol=1e-5 if dtype == "float32" else 2e-3, atol=1e-6)


def test_every_loss_is_tested():
    assert {settings.get("loss", "cross_entropy") for settings in SETTINGS} == set(LOSSES)


def test_losses_equal_their_closed_forms():
    """Uniform logits have the cross-entropy log(classes), with smoothing too; the focal loss is (1 - 1/classes)^gamma of it."""
    uniform, target = np.zeros((1, 4), np.float32), np.eye(4, dtype="float32")[:1]
    for settings, value in (
        ({}, math.log(4)),
        ({"label_smoothing": 0.3}, math.log(4)),
        ({"loss": "focal", "focal_gamma": 2.0}, (3 / 4) ** 2 * math.log(4)),
    ):
        assert float(build_loss(TrainConfig(**settings), {}, 4)(target, uniform)[0]) == pytest.approx(value, rel=1e-6)


def test_balanced_classes_have_equal_total_weights_and_examples_a_mean_weight_of_one():
    weights = balanced_weights(COUNTS, 3)
    totals = [weights[label] * count for label, count in COUNTS.items()]
    assert totals == pytest.approx([10 / 3] * 3) and sum(totals) == pytest.approx(sum(COUNTS.values()))
    np.testing.assert_array_equal(balanced_weights({0: 5, 3: 5}, 5), np.ones(5, np.float32))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_loss_of_a_certain_example_has_a_finite_gradient(gamma):
    tf = pytest.importorskip("tensorflow")
    logits = tf.constant([[200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]])
    loss = build_loss(TrainConfig(loss="focal", focal_gamma=gamma), COUNTS, 3)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(loss(tf.constant(TARGETS[:1].repeat(2, axis=0)), logits))
    gradient = tape.gradient(total, logits).numpy()
    assert np.all(np.isfinite(gradient)) and np.isfinite(float(total))
    np.testing.assert_allclose(gradient[1], [-1, 1, 0], atol=1e-3)  # equal to cross-entropy if certain and wrong
