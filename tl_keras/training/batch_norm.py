"""BatchNorm in one kernel while a phase is trained, with the running variance of Keras or of PyTorch.

Keras composes BatchNorm of about ten operations, each of which moves the whole activation through memory. `FusedBatchNormV3` computes
the same in one, and its gradient in another. On two cores, a step of ResNet18 takes 1.2 times less in float32 and 1.7 times less in
bfloat16.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tl_keras.training.exchanged_calls import Call, exchanged_calls

FUSED_DTYPES = ("float32", "bfloat16", "float16")  # of inputs; statistics and parameters are float32


@contextmanager
def fused_batch_norm(stage_layers: Iterable[layers.Layer], *, unbiased_variance: bool = False) -> Iterator[None]:
    """Let every BatchNorm of `stage_layers` train with the fused kernel in this block. In inference they keep Keras's arithmetic.

    Layers with a mask, batch renormalization, synchronized statistics, a `call` of their own, or channels that are not on the last axis
    keep Keras's arithmetic in training too.

    Args:
        unbiased_variance: True to move running variances by that of a batch of n values times n / (n - 1), as PyTorch does. Keras takes
            that of the batch itself. The difference matters to what trains on running statistics: it is 0.8 % at 8 images with 4 x 4
            values.
    """
    norms = [layer for layer in stage_layers if isinstance(layer, layers.BatchNormalization)]
    with exchanged_calls(norms, lambda norm: _training_call(norm, unbiased_variance)):
        yield


def _training_call(norm: layers.BatchNormalization, unbiased_variance: bool) -> Call:
    """Return the `call` of `norm` for training."""
    stock, is_stock = norm.call, _is_stock(norm)
    composed = _with_unbiased_variance(norm) if unbiased_variance else stock

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training:
            return stock(inputs, training=training, mask=mask)
        if is_stock and mask is None and _is_fusible(norm, inputs):
            return _fused_call(norm, inputs, unbiased_variance)
        return composed(inputs, training=training, mask=mask)

    return call


def _is_stock(norm: layers.BatchNormalization) -> bool:
    """Return True if neither its class nor `norm` itself has a `call` of its own."""
    return type(norm).call is layers.BatchNormalization.call and "call" not in vars(norm)


def _is_fusible(norm: layers.BatchNormalization, inputs: Any) -> bool:
    on_last_axis = norm.axis in (-1, len(inputs.shape) - 1)
    is_supported = on_last_axis and not (norm.renorm or norm.synchronized)
    return is_supported and keras.backend.standardize_dtype(inputs.dtype) in FUSED_DTYPES


def _fused_call(norm: layers.BatchNormalization, inputs: Any, unbiased_variance: bool) -> Any:
    """Normalize `inputs` (..., channels) by their statistics, or by the running ones if `norm` is not trainable."""
    images = inputs if len(inputs.shape) == 4 else tf.reshape(inputs, [-1, 1, 1, inputs.shape[-1]])
    size = tf.shape(norm.moving_mean)
    uses_batch = norm.trainable
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=images,
        scale=tf.convert_to_tensor(norm.gamma) if norm.scale else tf.ones(size),
        offset=tf.convert_to_tensor(norm.beta) if norm.center else tf.zeros(size),
        mean=tf.zeros([0]) if uses_batch else tf.convert_to_tensor(norm.moving_mean),
        variance=tf.zeros([0]) if uses_batch else tf.convert_to_tensor(norm.moving_variance),
        epsilon=norm.epsilon,
        is_training=uses_batch,
    )
    if uses_batch:
        num_values = tf.cast(tf.size(images) // images.shape[-1], tf.float32)
        # The kernel returns the unbiased variance, and 0 for a single value.
        scale = 1.0 if unbiased_variance else (num_values - 1) / num_values
        _move(norm.moving_mean, mean, norm.momentum)
        _move(norm.moving_variance, variance * scale, norm.momentum)
    return outputs if images is inputs else tf.reshape(outputs, tf.shape(inputs))


def _move(statistic: keras.Variable, batch_value: tf.Tensor, momentum: float) -> None:
    statistic.assign(statistic * momentum + batch_value * (1.0 - momentum))


def _with_unbiased_variance(norm: layers.BatchNormalization) -> Call:
    """Return the stock `call` of `norm`, followed by a correction of its running variance in training mode."""
    stock = norm.call

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        kept = norm.momentum * norm.moving_variance
        outputs = stock(inputs, training=training, mask=mask)
        if training and norm.trainable:
            num_values = ops.cast(ops.size(inputs) // inputs.shape[norm.axis], "float32")
            update = norm.moving_variance - kept  # (1 - momentum) times the variance of the batch
            norm.moving_variance.assign_add(update / ops.maximum(num_values - 1, 1))
        return outputs

    return call
