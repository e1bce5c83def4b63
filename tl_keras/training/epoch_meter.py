"""Loss, accuracy and throughput of a running epoch, read from the device a few times per second."""

import math
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tensorflow as tf

from tl_keras.errors import TrainingError

T = TypeVar("T")

READ_EVERY_SECONDS = 0.2  # a read makes the host wait for the device


class EpochMeter:
    """Sums the losses and correct predictions of the steps of one epoch.

    Args:
        epoch: counted from 1, for messages.
        first_step: number of steps before the epoch, for messages.
        reads_every_step: read every step at once, so that `logs` includes the last one.
    """

    def __init__(self, epoch: int, first_step: int, *, reads_every_step: bool = False):
        self._epoch, self._first_step = epoch, first_step
        self._read_seconds = 0.0 if reads_every_step else READ_EVERY_SECONDS
        self._pending: list[tuple[int, tf.Tensor, tf.Tensor]] = []
        self._steps = self._examples = self._timed_examples = 0
        self._loss = self._num_correct = 0.0
        self._last_finite = math.nan
        self._first_read = self._last_read = self._input_wait = 0.0

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield `batches` and measure the time that the loop waits for them, without the first, which starts the pipeline."""
        iterator = iter(batches)
        while True:
            began = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._input_wait += time.perf_counter() - began if self._first_read else 0.0
            yield batch

    def add(self, num_examples: int, loss: tf.Tensor, num_correct: tf.Tensor) -> None:
        """Add the summed loss and the number of correct predictions of a step over `num_examples`, still on the device.

        Raises:
            TrainingError: The loss of a step is not finite.
        """
        self._pending.append((num_examples, loss, num_correct))
        if time.perf_counter() - self._last_read >= self._read_seconds:
            self._read()

    def logs(self) -> dict[str, float]:
        """Return mean loss and accuracy so far, images per second and the fraction of time spent waiting for input.

        Throughput and waiting omit the first step, which compiles.
        """
        seen = max(1, self._examples)
        logs = {"loss": self._loss / seen, "accuracy": self._num_correct / seen}
        if self._timed_examples:
            seconds = max(self._last_read - self._first_read, 1e-9)
            logs |= {"images/s": round(self._timed_examples / seconds, 1), "input_wait": round(min(1.0, self._input_wait / seconds), 3)}
        return logs

    def finish(self) -> dict[str, float]:
        """Return the logs of the whole epoch."""
        self._read()
        return self.logs()

    def _read(self) -> None:
        for num_examples, loss, num_correct in self._pending:
            self._record(num_examples, float(loss), float(num_correct))
        self._pending.clear()
        self._last_read = time.perf_counter()
        self._first_read = self._first_read or self._last_read

    def _record(self, num_examples: int, loss: float, num_correct: float) -> None:
        self._steps += 1
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} at step {self._first_step + self._steps} (epoch {self._epoch}); the last finite one was "
                f"{self._last_finite:.4g}. Try a lower `learning_rate`, `warmup_epochs=1`, or `precision=float32`."
            )
        self._timed_examples += num_examples if self._first_read else 0
        self._examples += num_examples
        self._loss += loss
        self._num_correct += num_correct
        self._last_finite = loss / num_examples
