"""The optimizers against a NumPy transcription of the formulas in PyTorch's documentation.

test_torch_training.py compares them with PyTorch itself.
"""

import keras
import numpy as np
import pytest

from tl_keras.config import OPTIMIZERS, TrainConfig
from tl_keras.training.optimizers import build_optimizer, has_weight_decay

START = np.array([1.0, -2.0, 0.5], np.float32)
GRADIENTS = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
LEARNING_RATES = [0.1, 0.1, 0.05, 0.05, 0.2, 0.2]  # Keras's own SGD differs when the learning rate changes


def transcribed_sgd(config: TrainConfig) -> np.ndarray:
    value, velocity = START.astype(np.float64), 0.0
    for gradient, learning_rate in zip(GRADIENTS, LEARNING_RATES, strict=True):
        value = value * (1 - learning_rate * config.weight_decay)
        gradient = gradient + config.l2 * value
        velocity = config.momentum * velocity + gradient
        value = value - learning_rate * (gradient + config.momentum * velocity if config.nesterov else velocity)
    return value


def transcribed_adam(config: TrainConfig) -> np.ndarray:
    value, mean, square = START.astype(np.float64), 0.0, 0.0
    for step, (gradient, learning_rate) in enumerate(zip(GRADIENTS, LEARNING_RATES, strict=True), start=1):
        value = value * (1 - learning_rate * config.weight_decay)
        gradient = gradient + config.l2 * value
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        value = value - learning_rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return value


CASES = {
    "sgd": [{"momentum": 0.0}, {}, {"nesterov": True}, {"l2": 0.1}, {"weight_decay": 0.1}, {"nesterov": True, "l2": 0.01}],
    "adam": [{}, {"l2": 0.1}],
    "adamw": [{"weight_decay": 0.1}, {"weight_decay": 0.1, "l2": 0.1}],
}


@pytest.mark.parametrize(("name", "settings"), [(name, settings) for name, cases in CASES.items() for settings in cases], ids=str)
def test_updates_equal_the_transcribed_formulas(name, settings):
    config = TrainConfig(optimizer=name, **settings)
    variable = keras.Variable(START)
    optimizer = build_optimizer(config)
    optimizer.build([variable])
    for gradient, learning_rate in zip(GRADIENTS, LEARNING_RATES, strict=True):
        optimizer.learning_rate = learning_rate
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    expected = (transcribed_sgd if name == "sgd" else transcribed_adam)(config)
    np.testing.assert_allclose(variable.numpy(), expected, rtol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_an_optimizer_with_reset_slots_updates_as_a_new_one(name):
    """The first step of a new optimizer, a step after another one, and a step after another one and a reset."""
    values = []
    for earlier, reset in ((False, False), (True, False), (True, True)):
        optimizer, variable = build_optimizer(TrainConfig(optimizer=name)), keras.Variable(START)
        optimizer.build([variable])
        if earlier:
            optimizer.apply([keras.ops.convert_to_tensor(GRADIENTS[1])], [variable])
        if reset:
            optimizer.reset_slots()
        variable.assign(START)
        optimizer.apply([keras.ops.convert_to_tensor(GRADIENTS[0])], [variable])
        values.append(variable.numpy())
    np.testing.assert_array_equal(values[2], values[0])
    assert not np.allclose(values[1], values[0], rtol=1e-5)


def test_every_optimizer_is_tested():
    assert set(CASES) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_late_variable_starts_like_a_fresh_one_with_its_own_multiplier(name):
    """A variable that joins later takes the first step of a fresh optimizer, half as far with a multiplier of 0.5."""
    early, late, fresh = (keras.Variable(START) for _ in range(3))
    optimizer, other = build_optimizer(TrainConfig(optimizer=name)), build_optimizer(TrainConfig(optimizer=name))
    optimizer.build([early, late])
    other.build([fresh])
    gradient = keras.ops.convert_to_tensor(GRADIENTS[0])
    for _ in range(5):
        optimizer.apply([gradient], [early])
    np.testing.assert_array_equal(late.numpy(), START)
    optimizer.lr_multipliers = [1.0, 0.5]
    optimizer.apply([gradient, gradient], [early, late])
    other.apply([gradient], [fresh])
    np.testing.assert_allclose(late.numpy() - START, 0.5 * (fresh.numpy() - START), rtol=1e-3)


DECAYED = {
    "conv/kernel": True, "conv/bias": False, "bn/gamma": False, "bn/beta": False, "query/bias": False,
    "class_token/kernel": False, "pos_embedding/kernel": False, "query/kernel": True,
}  # fmt: skip


def named_variables() -> dict[str, keras.Variable]:
    """Path -> variable, of layers as the backbones name them; `query` is an EinsumDense, whose bias is a matrix."""
    layers = [
        (keras.layers.Conv2D(4, 3, name="conv"), (1, 5, 5, 3)),
        (keras.layers.BatchNormalization(name="bn"), (1, 5, 5, 4)),
        (keras.layers.EinsumDense("btd,dhk->bthk", (None, 2, 3), bias_axes="hk", name="query"), (1, 4, 6)),
        (keras.layers.Dense(6, use_bias=False, name="class_token"), (1, 1, 1)),
        (keras.layers.EinsumDense("bi,itd->btd", (5, 6), name="pos_embedding"), (1, 1)),
    ]
    for layer, shape in layers:
        layer.build(shape)
    return {variable.path: variable for layer, _ in layers for variable in layer.trainable_variables}


def test_only_kernels_have_weight_decay():
    assert {path: has_weight_decay(variable) for path, variable in named_variables().items()} == DECAYED


@pytest.mark.parametrize("decay", ["weight_decay", "l2"])
@pytest.mark.parametrize("decay_biases", [True, False])
def test_biases_and_normalization_parameters_are_decayed_by_choice(decay, decay_biases):
    """With a gradient of zero only decay moves a weight: kernels shrink by learning_rate x decay, the others only if `decay_biases`."""
    variables = named_variables()
    before = {path: np.full(variable.shape, 0.5, "float32") for path, variable in variables.items()}
    for path, variable in variables.items():
        variable.assign(before[path])
    optimizer = build_optimizer(
        TrainConfig(optimizer="sgd", learning_rate=0.1, decay_biases=decay_biases, **{"weight_decay": 0.0, decay: 0.2})
    )
    optimizer.build(list(variables.values()))
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in variables.values()], list(variables.values()))
    for path, variable in variables.items():
        factor = 1 - 0.1 * 0.2 if decay_biases or DECAYED[path] else 1.0
        np.testing.assert_allclose(variable.numpy(), factor * before[path], rtol=1e-6, err_msg=path)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0, 100.0])
def test_clipping_equals_the_transcribed_formula(clip_norm):
    """torch.nn.utils.clip_grad_norm_: all gradients are scaled by min(1, clip / (norm + 1e-6)), with the norm of all of them."""
    gradients = [3 * GRADIENTS[0], 4 * GRADIENTS[1:3]]
    norm = np.sqrt(sum(np.sum(gradient.astype("float64") ** 2) for gradient in gradients))
    factor = min(1.0, clip_norm / (norm + 1e-6)) if clip_norm else 1.0
    variables = [keras.Variable(np.zeros_like(gradient)) for gradient in gradients]
    optimizer = build_optimizer(TrainConfig(optimizer="sgd", learning_rate=0.1, momentum=0.0, clip_norm=clip_norm))
    optimizer.build(variables)
    optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in gradients], variables)
    for variable, gradient in zip(variables, gradients, strict=True):
        np.testing.assert_allclose(variable.numpy(), -0.1 * factor * gradient, rtol=2e-6)
    assert norm > 1.0


KERNELS = [(name, settings) for name, cases in CASES.items() for settings in cases]


@pytest.mark.parametrize(("name", "settings"), KERNELS, ids=str)
def test_the_kernel_equals_the_composed_update(name, settings):
    """Weights and slots agree over gradients of very different sizes, which `compute_update` moves as composed operations."""
    config = TrainConfig(optimizer=name, **{"weight_decay": 0.0, **settings})
    variables = [keras.Variable(START) for _ in range(2)]
    kernel, composed = (build_optimizer(config) for _ in range(2))
    for optimizer, variable in zip((kernel, composed), variables, strict=True):
        optimizer.build([variable])
    composed.apply_kernel = lambda index, variable, gradient, lr: variable.assign_sub(lr * composed.compute_update(index, gradient))
    for exponent in (-6, 0, -3, 1, -1, -2):
        for optimizer, variable in zip((kernel, composed), variables, strict=True):
            optimizer.apply([keras.ops.convert_to_tensor(10.0**exponent * GRADIENTS[exponent])], [variable])
    one, other = (variable.numpy() - START for variable in variables)
    np.testing.assert_allclose(one, other, rtol=1e-4)
    for slot, expected in zip(kernel.slots, composed.slots, strict=True):
        np.testing.assert_allclose(slot, expected, rtol=2e-5)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize(("name", "settings"), KERNELS, ids=str)
def test_a_16_bit_gradient_updates_as_its_values_in_float32(name, settings, clip_norm):
    """Weights and slots agree within the rounding of float32, over changes of the learning rate."""
    config = TrainConfig(optimizer=name, clip_norm=clip_norm, **{"weight_decay": 0.0, **settings})
    narrow, wide = (build_optimizer(config) for _ in range(2))
    variables = [keras.Variable(START) for _ in range(2)]
    for optimizer, variable in zip((narrow, wide), variables, strict=True):
        optimizer.build([variable])
    for values, learning_rate in zip(GRADIENTS, LEARNING_RATES, strict=True):
        gradient = keras.ops.cast(values, "bfloat16")
        for optimizer, variable, one in zip((narrow, wide), variables, (gradient, keras.ops.cast(gradient, "float32")), strict=True):
            optimizer.learning_rate = learning_rate
            optimizer.apply([one], [variable])
    np.testing.assert_allclose(variables[0], variables[1], rtol=5e-6)
    for slot, expected in zip(narrow.slots, wide.slots, strict=True):
        np.testing.assert_allclose(slot, expected, rtol=2e-5)
