"""The optimizers against PyTorch's formulas, written out in NumPy from torch's documentation."""

import math

import keras
import numpy as np
import pytest

from tl_keras.config import OPTIMIZERS, SCHEDULES, TrainConfig
from tl_keras.optimizers import Schedule, build_optimizer

START = np.array([1.0, -2.0, 0.5], np.float32)
GRADIENTS = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
RATES = [0.1, 0.1, 0.05, 0.05, 0.2, 0.2]  # a changing rate is where Keras's own SGD differs


def torch_sgd(config: TrainConfig) -> np.ndarray:
    value, velocity = START.astype(np.float64), 0.0
    for gradient, rate in zip(GRADIENTS, RATES, strict=True):
        value = value * (1 - rate * config.weight_decay)
        gradient = gradient + config.l2 * value
        velocity = config.momentum * velocity + gradient
        value = value - rate * (gradient + config.momentum * velocity if config.nesterov else velocity)
    return value


def torch_adam(config: TrainConfig) -> np.ndarray:
    value, mean, square = START.astype(np.float64), 0.0, 0.0
    for step, (gradient, rate) in enumerate(zip(GRADIENTS, RATES, strict=True), start=1):
        value = value * (1 - rate * config.weight_decay)
        gradient = gradient + config.l2 * value
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        value = value - rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return value


CASES = {
    "sgd": [{"momentum": 0.0}, {}, {"nesterov": True}, {"l2": 0.1}, {"weight_decay": 0.1}, {"nesterov": True, "l2": 0.01}],
    "adam": [{}, {"l2": 0.1}],
    "adamw": [{"weight_decay": 0.1}, {"weight_decay": 0.1, "l2": 0.1}],
}


@pytest.mark.parametrize(("name", "settings"), [(name, settings) for name, cases in CASES.items() for settings in cases], ids=str)
def test_arithmetic_is_that_of_torch(name, settings):
    config = TrainConfig(optimizer=name, **settings)
    variable = keras.Variable(START)
    optimizer = build_optimizer(config)
    optimizer.build([variable])
    for gradient, rate in zip(GRADIENTS, RATES, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    expected = (torch_sgd if name == "sgd" else torch_adam)(config)
    np.testing.assert_allclose(variable.numpy(), expected, rtol=2e-6)


def test_every_optimizer_is_tested():
    assert set(CASES) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rate_scale_and_late_unfreeze(name):
    """A variable with scale 0.5 moves half as far, and one that joins later takes the first step of a fresh optimizer."""
    early, late, fresh = (keras.Variable(START) for _ in range(3))
    optimizer, other = build_optimizer(TrainConfig(optimizer=name)), build_optimizer(TrainConfig(optimizer=name))
    optimizer.build([early, late])
    other.build([fresh])
    gradient = keras.ops.convert_to_tensor(GRADIENTS[0])
    for _ in range(5):
        optimizer.apply([gradient], [early])
    np.testing.assert_array_equal(late.numpy(), START)
    optimizer.rate_scales = [1.0, 0.5]
    optimizer.apply([gradient, gradient], [early, late])
    other.apply([gradient], [fresh])
    np.testing.assert_allclose(late.numpy() - START, 0.5 * (fresh.numpy() - START), rtol=1e-3)


def factors(name: str, warmup_epochs: float = 0.0) -> list[float]:
    schedule = Schedule(name, steps_per_epoch=10, epochs=6, warmup_epochs=warmup_epochs)
    return [schedule.factor(step) for step in range(60)]


def test_schedules():
    assert set(factors("constant")) == {1.0}
    assert factors("cosine")[0] == 1.0 and factors("cosine")[30] == pytest.approx(0.5)
    assert factors("cosine")[59] == pytest.approx(0.5 * (1 + math.cos(math.pi * 59 / 60)))
    assert [factors("step")[step] for step in (0, 19, 20, 39, 40, 59)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_rises_to_the_peak(name):
    rising = factors(name, warmup_epochs=1)[:11]
    assert rising == sorted(rising) and 0 < rising[0] < 0.1 and rising[10] == 1.0


def test_plateau_waits_five_epochs_and_resumes():
    schedule = Schedule("plateau", steps_per_epoch=1, epochs=20)
    for loss in [1.0, 0.9, *[0.95] * 5]:
        schedule.observe(loss)
    assert schedule.factor(7) == 1.0
    resumed = Schedule("plateau", steps_per_epoch=1, epochs=20)
    resumed.state |= schedule.state
    resumed.observe(0.95)
    assert resumed.factor(8) == pytest.approx(0.1)
