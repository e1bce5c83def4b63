"""Exchanged calls of layers: used in the block, and gone after it, also where a layer had a `call` of its own or comes twice."""

import keras
import numpy as np
import pytest

from tl_keras.training.activations import compiled_activations
from tl_keras.training.batch_norm import fused_batch_norm
from tl_keras.training.exchanged_calls import exchanged_calls

X = np.ones((2, 3), np.float32)


def plus_one(layer):
    stock = layer.call
    return lambda inputs, *arguments, **options: stock(inputs, *arguments, **options) + 1


def with_own_call(layer):
    layer.call = plus_one(layer)
    return layer


def test_a_call_of_the_instance_is_restored():
    layer = with_own_call(keras.layers.Identity())
    own = layer.call
    with exchanged_calls([layer], plus_one):
        np.testing.assert_array_equal(layer(X), X + 2)
    assert vars(layer)["call"] is own
    np.testing.assert_array_equal(layer(X), X + 1)


def test_a_layer_that_comes_twice_is_restored():
    layer = keras.layers.Identity()
    with exchanged_calls([layer, layer], plus_one):
        np.testing.assert_array_equal(layer(X), X + 2)
    assert "call" not in vars(layer)


def test_a_failure_restores_the_layers_before_it():
    def make_call(layer):
        if layer is second:
            raise KeyError
        return plus_one(layer)

    first, second = keras.layers.Identity(), keras.layers.Identity()
    with pytest.raises(KeyError), exchanged_calls([first, second], make_call):
        pass
    assert "call" not in vars(first) and "call" not in vars(second)


@pytest.mark.parametrize(
    ("layer_type", "options", "exchange"),
    [
        (keras.layers.BatchNormalization, {}, fused_batch_norm),
        (keras.layers.Dense, {"units": 3, "activation": "gelu", "kernel_initializer": "identity"}, compiled_activations),
    ],
    ids=["batch norm", "gelu"],
)
def test_the_kernels_of_training_keep_and_restore_a_call_of_the_instance(layer_type, options, exchange):
    layer, other = (with_own_call(layer_type(**options)) for _ in range(2))
    own = layer.call
    with exchange([layer]):
        outputs = layer(X, training=True)
    assert vars(layer)["call"] is own
    np.testing.assert_allclose(outputs, other(X, training=True), rtol=1e-6)
