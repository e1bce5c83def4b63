"""Traces a compiled function once for batches of every size."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


class AnyBatchSize:
    """A tf.function that is traced once for each choice of its Python bools, with tensors of any batch size.

    TensorFlow traces a function for the size of the first batch, and again when the last batch of an epoch has another. The second trace
    takes as long as the first, a second for ResNet18. Steps take as long without a fixed size. Distributed values keep their own sizes.

    Args:
        function: a tf.function of tensors (b, ...), scalars, distributed values and Python bools, with `reduce_retracing`.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self._traced: set[tuple[Any, ...]] = set()

    def __call__(self, *arguments: Any) -> Any:
        choice = tuple(argument for argument in arguments if isinstance(argument, bool))
        if choice not in self._traced:
            self.function.get_concrete_function(*map(_of_any_size, arguments))  # type: ignore[attr-defined]
            self._traced.add(choice)
        return self.function(*arguments)


def _of_any_size(argument: Any) -> Any:
    """Return the type of a tensor with any first dimension, or another argument as it is."""
    if not isinstance(argument, tf.Tensor) or not argument.shape.rank:
        return argument
    return tf.TensorSpec((None, *argument.shape[1:]), argument.dtype)
