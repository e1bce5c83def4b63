"""An exponential moving average of weights, which is validated and tested instead of them (Polyak and Juditsky 1992)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import tensorflow as tf

from tl_keras.training.runtime import Runtime


class ExponentialMovingAverage:
    """Averages of `sources`. Without sources, every method does nothing.

    Args:
        sources: the trained weights, and the running statistics of BatchNorm, which belong to them (as in timm).
        decay: the fraction of the average that an update keeps. Update t, from 0, keeps at most (1 + t) / (10 + t), as in
            tf.train.ExponentialMovingAverage, so that the initial weights are soon forgotten.
    """

    def __init__(self, sources: Sequence[keras.Variable], decay: float, runtime: Runtime):
        self._sources, self._decay, self._strategy = list(sources), decay, runtime.strategy
        with runtime.scope():
            self.variables = [
                keras.Variable(source.numpy(), trainable=False, dtype=source.dtype, name=f"average_{index}")
                for index, source in enumerate(self._sources)
            ]
        self._compiled_update = tf.function(self._update_averages, autograph=False)

    def update(self, step: int) -> None:
        """Update the averages after update `step` of the run, from 0."""
        if self.variables:
            self._compiled_update(tf.constant(min(self._decay, (1 + step) / (10 + step)), tf.float32))

    def _update_averages(self, decay: tf.Tensor) -> None:
        for average, source in zip(self.variables, self._sources, strict=True):
            self._strategy.extended.update(average.value, _update_average, args=(source.value, decay))

    def copy_to_model(self) -> None:
        """Set the weights to their averages."""
        for average, source in zip(self.variables, self._sources, strict=True):
            source.assign(average.numpy())

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Set the weights to their averages in this block, and restore them after it."""
        raw = [source.numpy() for source in self._sources]
        self.copy_to_model()
        try:
            yield
        finally:
            for source, value in zip(self._sources, raw, strict=True):
                source.assign(value)


def _update_average(average: tf.Variable, source: tf.Variable, decay: tf.Tensor) -> None:
    average.assign_sub((1.0 - decay) * (average - source))
