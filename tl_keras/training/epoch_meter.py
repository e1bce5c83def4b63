"""Loss, accuracy and throughput of an epoch while it runs, read from the device as seldom as will do."""

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tl_keras.errors import TrainingError

READ_EVERY_SECONDS = 0.2  # so that the processor need not wait for the device at each step


class EpochMeter:
    """Sums what the steps of one epoch report.

    Args:
        epoch: counted from 1, for messages.
        first_step: number of the epoch's first step over the whole run, for messages.
    """

    def __init__(self, epoch: int, first_step: int):
        self._epoch, self._first_step = epoch, first_step
        self._pending: list[tuple[int, Any, Any]] = []
        self._steps = self._examples = self._timed_examples = 0
        self._loss = self._correct = 0.0
        self._last_finite = math.nan
        self._first_read = self._last_read = self._input_wait = 0.0

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """`batches`, with the time that the loop waits for each counted; the first, which starts the pipeline, is left out."""
        iterator = iter(batches)
        while True:
            began = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._input_wait += time.perf_counter() - began if self._first_read else 0.0
            yield batch

    def add(self, num_examples: int, loss: Any, correct: Any) -> None:
        """Take the summed loss and the number correct of a step over `num_examples`, still on the device.

        Raises:
            TrainingError: the loss of a step was not finite.
        """
        self._pending.append((num_examples, loss, correct))
        if time.perf_counter() - self._last_read > READ_EVERY_SECONDS:
            self._read()

    def logs(self) -> dict[str, float]:
        """Mean loss and accuracy so far, and, without the first step, which compiles: images per second, and the share of the time that
        went by waiting for input."""
        seen = max(1, self._examples)
        logs = {"loss": self._loss / seen, "accuracy": self._correct / seen}
        if self._timed_examples:
            seconds = max(self._last_read - self._first_read, 1e-9)
            logs |= {"images/s": round(self._timed_examples / seconds, 1), "input_wait": round(min(1.0, self._input_wait / seconds), 3)}
        return logs

    def finish(self) -> dict[str, float]:
        """The logs of the whole epoch."""
        self._read()
        return self.logs()

    def _read(self) -> None:
        for num_examples, loss, correct in self._pending:
            self._record(num_examples, float(loss), float(correct))
        self._pending.clear()
        self._last_read = time.perf_counter()
        self._first_read = self._first_read or self._last_read

    def _record(self, num_examples: int, loss: float, correct: float) -> None:
        self._steps += 1
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} at step {self._first_step + self._steps} (epoch {self._epoch}); the last finite one was "
                f"{self._last_finite:.4g}. Try a lower `learning_rate`, `warmup_epochs=1`, or `precision=float32`."
            )
        self._timed_examples += num_examples if self._first_read else 0
        self._examples += num_examples
        self._loss += loss
        self._correct += correct
        self._last_finite = loss / num_examples
