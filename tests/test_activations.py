"""Compiled activations: equal to Keras's, in every kind of layer and on replicas, and gone after the trace."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain_config import PLAIN
from test_trainer import make_batches

from tl_keras.config import RuntimeConfig
from tl_keras.strategies import build_phases
from tl_keras.training import activations
from tl_keras.training import trainer as trainer_module
from tl_keras.training.activations import GELU, compiled_activations
from tl_keras.training.losses import build_loss
from tl_keras.training.runtime import make_runtime

X = np.concatenate([np.linspace(-12, 12, 94), [0.0, -0.0]]).reshape(8, 12)
ROUNDING = {"float32": 2e-6, "mixed_bfloat16": 2e-2, "mixed_float16": 2e-3}


class Doubled(keras.layers.Dense):
    """A layer that does more after its activation."""

    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


LAYERS = {
    "Dense": lambda dtype: keras.layers.Dense(12, "gelu", kernel_initializer="identity", dtype=dtype),
    "Doubled": lambda dtype: Doubled(12, "gelu", kernel_initializer="identity", dtype=dtype),
    "Activation": lambda dtype: keras.layers.Activation("gelu", dtype=dtype),
}


def value_and_gradient(layer: keras.layers.Layer, inputs: np.ndarray) -> list[np.ndarray]:
    """Return output and gradient of the input in a compiled function for batches of any size."""

    @tf.function(input_signature=[tf.TensorSpec((None, inputs.shape[1]), layer.compute_dtype)], autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True) if isinstance(layer, keras.layers.Dense) else layer(x)
        return outputs, tape.gradient(outputs, x)

    return [tf.cast(value, tf.float32).numpy() for size in (8, 3) for value in step(tf.cast(inputs[:size], layer.compute_dtype))]


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("kind", LAYERS)
def test_values_and_gradients_equal_those_of_keras(kind, dtype):
    layer = LAYERS[kind](dtype)
    layer.build(X.shape)
    expected = value_and_gradient(layer, X)
    with compiled_activations([layer]):
        values = value_and_gradient(layer, X)
    for value, reference in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, reference, atol=ROUNDING[dtype], rtol=ROUNDING[dtype])


RELUS = {
    "ReLU": lambda dtype: keras.layers.ReLU(dtype=dtype),
    "ReLU6": lambda dtype: keras.layers.ReLU(6, dtype=dtype),
    "Dense": lambda dtype: keras.layers.Dense(12, "relu", kernel_initializer="identity", dtype=dtype),
    "Activation": lambda dtype: keras.layers.Activation("relu", dtype=dtype),
    "leaky": lambda dtype: keras.layers.ReLU(negative_slope=0.1, dtype=dtype),
    "other top": lambda dtype: keras.layers.ReLU(2, dtype=dtype),
    "threshold": lambda dtype: keras.layers.ReLU(threshold=1, dtype=dtype),
}


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("kind", RELUS)
def test_a_relu_and_its_gradient_equal_those_of_keras(kind, dtype, monkeypatch):
    """The compiled gradient is used in bfloat16 only, and only for what it computes."""
    used = []
    compile_gradient = activations._with_compiled_gradient
    monkeypatch.setattr(activations, "_with_compiled_gradient", lambda *values: used.append(values) or compile_gradient(*values))
    layer = RELUS[kind](dtype)
    layer.build(X.shape)
    expected = value_and_gradient(layer, X)
    with compiled_activations([layer]):
        values = value_and_gradient(layer, X)
    for value, reference in zip(values, expected, strict=True):
        np.testing.assert_array_equal(value, reference)
    assert bool(used) is (dtype == "mixed_bfloat16" and kind in ("ReLU", "ReLU6", "Dense", "Activation"))


def test_the_compiled_function_is_used(monkeypatch):
    monkeypatch.setattr("tl_keras.training.activations._compiled_gelu", lambda: lambda x: x + 1)
    layer = LAYERS["Dense"]("float32")
    with compiled_activations([layer]):
        np.testing.assert_allclose(layer(np.float32(X)), X + 1, rtol=1e-6)


def test_a_layer_is_as_before_after_the_block_and_after_an_error():
    layer, other = LAYERS["Dense"]("float32"), keras.layers.Dense(3, keras.activations.silu)
    config = layer.get_config()
    with pytest.raises(tf.errors.InvalidArgumentError), compiled_activations([layer, other]):
        assert "call" in vars(layer) and "call" not in vars(other)
        assert layer.get_config() == config
        layer(np.float32(X))
        layer.call(tf.zeros([]))
    assert layer.activation is GELU and "call" not in vars(layer) and layer.get_config() == config


def losses(distribution: str, directory) -> list[float]:
    train = replace(PLAIN.train, batch_size=8, learning_rate=0.05, epochs=2, selection="last")
    runtime = make_runtime(RuntimeConfig(precision="float32", distribution=distribution), seed=3, batch_size=8, depthwise=False)
    with runtime.scope():
        hidden = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3, activation="gelu"), keras.layers.Flatten()]
        model = keras.Sequential([keras.Input((8, 8, 3)), *hidden, keras.layers.Dense(3)])
    trainer = trainer_module.Trainer(
        model, {"head": model.layers}, build_phases((), train), train, runtime, loss=build_loss(train, {0: 1, 1: 1, 2: 1}, 3)
    )
    return [row["loss"] for row in trainer.fit(make_batches(replicas=runtime.replicas), directory).history]


def test_training_equals_that_with_the_gelu_of_keras_and_on_replicas(tmp_path, monkeypatch):
    one, two = losses("none", tmp_path / "one"), losses("mirrored", tmp_path / "two")
    monkeypatch.setattr("tl_keras.training.activations.GELU", object())  # no layer has it, so none is exchanged
    stock = losses("none", tmp_path / "stock")
    assert one == pytest.approx(stock, rel=1e-5) and two == pytest.approx(stock, rel=1e-5)
