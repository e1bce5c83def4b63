"""The compiled training step: gradients on every replica, accumulators over batches where that is asked for, then one update."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tl_keras.config import TrainConfig
from tl_keras.training.losses import Loss
from tl_keras.training.runtime import Runtime


def make_train_step(
    model: Callable[..., Any], optimizer: Any, variables: Sequence[keras.Variable], loss: Loss, runtime: Runtime, *, use_accumulation: bool
) -> Callable[..., Any]:
    """A step that trains `variables` of `model` with `optimizer`, an optimizer built on them.

    Args:
        model: (images, training=...) -> logits.
        use_accumulation: whether an update may take several batches.

    Returns:
        A function (images, targets, num_examples, is_last_batch) -> summed loss and number correct, over all replicas. `num_examples`
        counts those of the whole update, so that what batches add up to is the gradient of their mean loss; the weights move
        where `is_last_batch`, a Python bool, is true. An example is correct where target and logits have their largest value at one class.
    """
    strategy = runtime.strategy
    sources = [variable.value for variable in variables]
    with runtime.scope():
        accumulators = [_local_zeros(source) for source in sources] if use_accumulation else []

    # XLA compiles the forward and backward pass alone: around strategy.run it breaks on several replicas.
    @tf.function(jit_compile=runtime.xla or None, reduce_retracing=True, autograph=False)
    def compute_gradients(images: tf.Tensor, targets: tf.Tensor, num_examples: tf.Tensor) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            logits = model(images, training=True)
            total = ops.sum(loss(targets, logits))
            objective = optimizer.scale_loss(total / num_examples)
        correct = ops.equal(ops.argmax(logits, axis=-1), ops.argmax(targets, axis=-1))
        return total, ops.sum(ops.cast(correct, "float32")), tape.gradient(objective, sources)

    def replica_step(images: tf.Tensor, targets: tf.Tensor, num_examples: tf.Tensor, is_last_batch: bool) -> Any:
        total, correct, gradients = compute_gradients(images, targets, num_examples)
        if accumulators:
            gradients = [accumulator.assign_add(gradient) for accumulator, gradient in zip(accumulators, gradients, strict=True)]
        if is_last_batch:
            optimizer.apply(gradients, variables)
            for accumulator in accumulators:
                accumulator.assign(tf.zeros_like(accumulator))
        return total, correct

    @tf.function(reduce_retracing=True, autograph=False)
    def step(images: Any, targets: Any, num_examples: tf.Tensor, is_last_batch: bool) -> Any:
        total, correct = strategy.run(replica_step, (images, targets, num_examples, is_last_batch))
        return strategy.reduce("SUM", total, axis=None), strategy.reduce("SUM", correct, axis=None)

    return step


def _local_zeros(like: Any) -> tf.Variable:
    """A variable of which each replica has its own value: gradients meet once an update, in the optimizer."""
    zeros = tf.zeros(like.shape, like.dtype)
    return tf.Variable(zeros, trainable=False, synchronization=tf.VariableSynchronization.ON_READ, aggregation=tf.VariableAggregation.SUM)


@dataclass(frozen=True)
class Batch:
    """A batch on the replicas and its place in the run; counts are over all replicas, numbers are from 0."""

    index: int  # in its epoch
    data: Any  # images and targets
    num_examples: int
    update_size: int  # examples of all batches of its update
    update: int  # number of its update in the run
    is_last_batch: bool  # whether it is the last batch of its update


def enumerate_batches(batches: Iterable[Any], epoch: int, num_examples: int, config: TrainConfig) -> Iterator[Batch]:
    """The batches of `epoch`, from 0, of `num_examples`; its last update may have fewer batches, and its last batch fewer examples."""
    size, group = config.batch_size, config.accumulate_steps
    num_batches = math.ceil(num_examples / size)
    for index, data in enumerate(batches):
        number = index // group
        yield Batch(
            index=index,
            data=data,
            num_examples=min(size, num_examples - index * size),
            update_size=min(size * group, num_examples - number * size * group),
            update=epoch * math.ceil(num_batches / group) + number,
            is_last_batch=(index + 1) % group == 0 or index + 1 == num_batches,
        )
