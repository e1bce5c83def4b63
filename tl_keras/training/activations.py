"""Activations that XLA compiles while a phase is trained on a CPU.

- **GELU.** TensorFlow composes the exact GELU and its gradient of about fifteen operations, each of which moves the activation through
  memory. XLA compiles each into one. On two cores they take 5 times less in bfloat16 and 2.4 times less in float32; in bfloat16 they were
  a quarter of a step of ViT-B/16. Values differ by rounding only: they are computed in float32.
- **ReLU and ReLU6 in bfloat16.** TensorFlow's kernel of the gradient takes twice as long as the compiled one: 2 to 5 % of a step of
  AlexNet, ResNet18 and VGG16. Values are equal. The activation itself is left alone, as it is often part of the convolution before it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import keras
import tensorflow as tf

from tl_keras.training.exchanged_calls import Call, exchanged_calls

GELU, RELU = keras.activations.gelu, keras.activations.relu


@contextmanager
def compiled_activations(stage_layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Let every layer of `stage_layers` use the compiled activation in this block, if its own is the exact GELU, ReLU or ReLU6."""
    layers = list(stage_layers)
    with_activation = [layer for layer in layers if getattr(layer, "activation", None) in (GELU, RELU)]
    relus = [layer for layer in layers if type(layer) is keras.layers.ReLU and _is_plain(layer)]
    with exchanged_calls(with_activation, _with_compiled_activation), exchanged_calls(relus, _compiled_relu_call):
        yield


def _is_plain(layer: keras.layers.ReLU) -> bool:
    return layer.max_value in (None, 6) and not layer.threshold and not layer.negative_slope


def _compiled_relu_call(layer: keras.layers.ReLU) -> Call:
    return relu6 if layer.max_value else relu


def _with_compiled_activation(layer: keras.layers.Layer) -> Call:
    """Return the `call` of `layer` with the compiled activation, wherever it uses that."""
    stock, own = layer.call, layer.activation
    compiled = _compiled_gelu() if own is GELU else relu

    def call(*arguments: Any, **options: Any) -> Any:
        layer.activation = compiled
        try:
            return stock(*arguments, **options)
        finally:
            layer.activation = own

    return call


@cache  # layers of one shape share what is compiled
def _compiled_gelu() -> Call:
    """Return GELU and its gradient as compiled functions."""

    def gelu(x: tf.Tensor) -> tf.Tensor:
        return tf.cast(GELU(tf.cast(x, tf.float32), approximate=False), x.dtype)

    @tf.function(jit_compile=True, autograph=False)
    def backward(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = gelu(x)
        return tape.gradient(outputs, x, output_gradients=upstream)

    forward = tf.function(gelu, jit_compile=True, autograph=False)

    @tf.custom_gradient
    def activate(x: tf.Tensor) -> Any:
        return forward(x), lambda upstream: backward(x, upstream)

    return activate


def _relu(forward: Callable[[tf.Tensor], tf.Tensor], top: float, x: tf.Tensor) -> tf.Tensor:
    return _with_compiled_gradient(forward, top)(x) if x.dtype == tf.bfloat16 else forward(x)


relu = partial(_relu, tf.nn.relu, float("inf"))
relu6 = partial(_relu, tf.nn.relu6, 6.0)


@cache
def _with_compiled_gradient(forward: Callable[[tf.Tensor], tf.Tensor], top: float) -> Call:
    """Return `forward` with a compiled gradient, which passes where the output is between 0 and `top`."""

    @tf.function(jit_compile=True, autograph=False)
    def backward(outputs: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        passes = (outputs > 0) & (outputs < top) if top < float("inf") else outputs > 0
        return tf.where(passes, upstream, tf.zeros_like(upstream))

    @tf.custom_gradient
    def activate(x: tf.Tensor) -> Any:
        outputs = forward(x)
        return outputs, lambda upstream: backward(outputs, upstream)

    return activate
