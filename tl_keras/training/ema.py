"""An exponential moving average of weights, which is validated and tested in their place (Polyak and Juditsky 1992)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from tl_keras.training.runtime import Runtime


class ExponentialMovingAverage:
    """The averages of `sources`; of none, every method does nothing.

    Args:
        sources: what is averaged: trained weights, and the running statistics of BatchNorm, which belong to them (as timm does).
        decay: the share of the average that an update keeps. Early updates keep less, (1 + t) / (10 + t) at update t from 0, as
            tf.train.ExponentialMovingAverage does, so that the initial weights are soon forgotten.
    """

    def __init__(self, sources: Sequence[keras.Variable], decay: float, runtime: Runtime):
        self._sources, self._decay, self._strategy = list(sources), decay, runtime.strategy
        with runtime.scope():
            self.variables = [
                keras.Variable(source.numpy(), trainable=False, dtype=source.dtype, name=f"average_{index}")
                for index, source in enumerate(self._sources)
            ]
        self._move = tf.function(self._move_all, autograph=False)

    def update(self, number: int) -> None:
        """Move the averages towards the weights after update `number` of the run, from 0."""
        if self.variables:
            self._move(tf.constant(min(self._decay, (1 + number) / (10 + number)), tf.float32))

    def _move_all(self, decay: tf.Tensor) -> None:
        for average, source in zip(self.variables, self._sources, strict=True):
            self._strategy.extended.update(average.value, _move_one, args=(source.value, decay))

    def copy_to_model(self) -> None:
        """Set the weights to their averages."""
        for average, source in zip(self.variables, self._sources, strict=True):
            source.assign(average.numpy())

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The weights are their averages in this block, and themselves again after it."""
        raw = [source.numpy() for source in self._sources]
        self.copy_to_model()
        try:
            yield
        finally:
            for source, value in zip(self._sources, raw, strict=True):
                source.assign(value)


def _move_one(average: Any, source: Any, decay: tf.Tensor) -> None:
    average.assign_sub((1.0 - decay) * (average - source))
