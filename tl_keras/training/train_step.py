"""The compiled training step: gradients on every replica, optionally accumulated over batches, then one update."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tl_keras.training.losses import Loss
from tl_keras.training.runtime import Runtime
from tl_keras.training.tracing import AnyBatchSize

Forward = Callable[..., Any]  # (images or features, training=...) -> logits, float32 (b, classes); a Keras model is one
MIN_SIXTEEN_BIT = 2**19  # elements of a gradient: with fewer, a compiled update saves nothing
TrainStep = Callable[[Any, Any, tf.Tensor, bool], tuple[tf.Tensor, tf.Tensor]]


def make_train_step(
    model: Forward,
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    loss: Loss,
    runtime: Runtime,
    *,
    use_accumulation: bool,
) -> TrainStep:
    """Return a step that trains `variables` of `model` with `optimizer`, which is built on them.

    Args:
        use_accumulation: True if an update may take several batches.

    Returns:
        A function (images, targets, num_examples, is_last_batch) -> summed loss and number of correct predictions, over all
        replicas. `num_examples` is that of the whole update, so accumulated gradients equal the gradient of the mean loss. Weights
        are updated if `is_last_batch` (a Python bool). A prediction is correct if target and logits have the same argmax.
    """
    strategy = runtime.strategy
    # Sums over batches or replicas need float32.
    keep_16_bits = runtime.compiles_parts and runtime.replicas == 1 and not use_accumulation
    sources = [variable.value for variable in variables]
    with runtime.scope():
        accumulators = [_local_zeros(source) for source in sources] if use_accumulation else []

    # XLA compiles only the forward and backward pass: around strategy.run it fails on several replicas.
    @tf.function(jit_compile=runtime.xla or None, reduce_retracing=True, autograph=False)
    def compute_gradients(images: tf.Tensor, targets: tf.Tensor, num_examples: tf.Tensor) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            logits = model(images, training=True)
            total = ops.sum(loss(targets, logits))
            objective = optimizer.scale_loss(total / num_examples)
        correct = ops.equal(ops.argmax(logits, axis=-1), ops.argmax(targets, axis=-1))
        gradients = tape.gradient(objective, sources)
        if keep_16_bits:
            gradients = [_uncast(gradient, source) for gradient, source in zip(gradients, sources, strict=True)]
        return total, ops.sum(ops.cast(correct, "float32")), gradients

    def replica_step(images: tf.Tensor, targets: tf.Tensor, num_examples: tf.Tensor, is_last_batch: bool) -> Any:
        total, num_correct, gradients = compute_gradients(images, targets, num_examples)
        if accumulators:
            gradients = [accumulator.assign_add(gradient) for accumulator, gradient in zip(accumulators, gradients, strict=True)]
        if is_last_batch:
            optimizer.apply(gradients, variables)
            for accumulator in accumulators:
                accumulator.assign(tf.zeros_like(accumulator))
        return total, num_correct

    @tf.function(reduce_retracing=True, autograph=False)
    def step(images: Any, targets: Any, num_examples: tf.Tensor, is_last_batch: bool) -> Any:
        total, num_correct = strategy.run(replica_step, (images, targets, num_examples, is_last_batch))
        return strategy.reduce("SUM", total, axis=None), strategy.reduce("SUM", num_correct, axis=None)

    return AnyBatchSize(step)


def _uncast(gradient: Any, source: tf.Variable) -> Any:
    """Return the bfloat16 tensor that `gradient`, in a graph, is a cast of, if it is large: the optimizer casts it while it reads it."""
    if isinstance(gradient, tf.Tensor) and gradient.op.type == "Cast" and source.shape.num_elements() >= MIN_SIXTEEN_BIT:
        (narrow,) = gradient.op.inputs
        return narrow if narrow.dtype == tf.bfloat16 else gradient
    return gradient


def _local_zeros(like: Any) -> tf.Variable:
    """Return a variable with one value per replica: gradients are summed over replicas once per update, by the optimizer."""
    zeros = tf.zeros(like.shape, like.dtype)
    return tf.Variable(zeros, trainable=False, synchronization=tf.VariableSynchronization.ON_READ, aggregation=tf.VariableAggregation.SUM)


@dataclass(frozen=True)
class Batch:
    """A batch on the replicas and its position in the run. Counts are over all replicas, indices start at 0.

    Attributes:
        index: in its epoch.
        data: images and targets.
        num_examples: in the batch.
        update_size: number of examples in all batches of its update.
        update: index of its update in the run.
        is_last_batch: True if it is the last batch of its update.
    """

    index: int
    data: Any
    num_examples: int
    update_size: int
    update: int
    is_last_batch: bool


def enumerate_batches(batches: Iterable[Any], epoch: int, sizes: Sequence[int], group: int) -> Iterator[Batch]:
    """Yield the batches of an epoch, from 0, with their positions in the run.

    Args:
        batches: pairs of images and targets.
        sizes: numbers of examples in the batches.
        group: number of batches in an update; the last update may have fewer.
    """
    for index, data in enumerate(batches):
        update = index // group
        yield Batch(
            index=index,
            data=data,
            num_examples=sizes[index],
            update_size=sum(sizes[update * group : (update + 1) * group]),
            update=epoch * math.ceil(len(sizes) / group) + update,
            is_last_batch=(index + 1) % group == 0 or index + 1 == len(sizes),
        )
