"""Ends a training in time: no epoch begins that would not fit into what is left of `time_limit`."""

import math
import time
from collections.abc import Mapping
from typing import Any

import keras

RECENT = 2  # epochs whose longest is the estimate of the next one


class TimeLimit(keras.callbacks.Callback):
    """Stops a training after an epoch if the next one would end later than `limit` seconds after its start.

    The clock starts with this object. Features that are computed and epochs that are validated count; the test does not.

    Args:
        limit: seconds; 0: no limit.
        used: seconds that an interrupted training had used before.

    Attributes:
        is_up: True if the limit has ended the training.
    """

    def __init__(self, limit: float, used: float = 0.0):
        super().__init__()
        self._limit = limit or math.inf
        self._epoch_seconds: list[float] = []
        self._started = self._epoch_started = time.perf_counter()
        self._used, self.is_up = used, False

    def seconds(self) -> float:
        """Return the seconds of the training so far, those before an interruption included."""
        return self._used + time.perf_counter() - self._started

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Start the clock of an epoch."""
        self._epoch_started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Ask the model to stop if another epoch would not fit."""
        if self.is_over_after_epoch():
            self.model.stop_training = True

    def is_over_after_epoch(self) -> bool:
        """Return True if another epoch would not fit. Its time is estimated by the longest of the last ones.

        The first epoch includes compilation, so it counts only until there are others.
        """
        self._epoch_seconds.append(time.perf_counter() - self._epoch_started)
        estimate = max((self._epoch_seconds[1:] or self._epoch_seconds)[-RECENT:])
        self.is_up = self.seconds() + estimate > self._limit
        return self.is_up
