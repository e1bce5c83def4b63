"""The work of a benchmark, the same for every side, and clocks. Imports neither TensorFlow nor torch."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from benchmarks.arrays import Arrays
from tl_keras import strategies
from tl_keras.backbones.registry import BACKBONES
from tl_keras.config import TrainConfig
from tl_keras.strategies import Phase

CLASSES = 10
AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "mixed_bfloat16"
LEARNING_RATE, MOMENTUM = 1e-3, 0.9


@dataclass(frozen=True)
class Work:
    """One job.

    Attributes:
        backbone: a key of BACKBONES, with new weights: speed does not depend on them.
        image_size: input size of the model in pixels; the images are uint8 of 32 pixels.
        strategy: in the grammar of the setting `strategy`.
        precision: of ours, as in the setting `precision`; plain sides have float32.
        epochs: over all phases of the strategy.
        num_train, num_test: number of images.
        steps: number of batches per sample, if the benchmark counts steps.
        measured_epochs: number of epochs of each phase that a plain side really runs. The last of them also counts for the rest,
            which are the same work. 0: all. Ours always runs all.
    """

    backbone: str
    image_size: int = 224
    strategy: str = "full"
    precision: str = AUTO
    epochs: int = 1
    batch_size: int = 64
    num_train: int = 0
    num_test: int = 0
    steps: int = 1
    measured_epochs: int = 0

    def phases(self) -> tuple[Phase, ...]:
        """Return the trained stages and the epochs of each phase, the same for every side."""
        stages = [name for name, _ in BACKBONES[self.backbone].stages]
        return strategies.build_phases(stages, TrainConfig(strategy=self.strategy, epochs=self.epochs))

    def measured(self) -> int:
        """Return the number of epochs that a plain side runs, of all of them."""
        return sum(self._measured(phase.epochs) for phase in self.phases())

    def _measured(self, epochs: int) -> int:
        return min(self.measured_epochs or epochs, epochs)


@dataclass(frozen=True)
class Outcome:
    """The result of a job that was done once: its seconds, and the accuracy on the test images if it is measured."""

    seconds: float
    accuracy: float | None = None


# A job is prepared, which is not measured, and then gives a function that does it once.
Once = Callable[[], Outcome]
Job = Callable[[Work, Arrays], AbstractContextManager[Once]]


class Clock:
    """Measures the seconds of a whole job since its creation. Epochs that are not run count as long as the last one that is."""

    def __init__(self, work: Work):
        self._work, self._started, self._left_out = work, time.perf_counter(), 0.0

    def epochs(self, phase: Phase) -> Iterator[int]:
        """Yield the epochs of `phase` to run."""
        count = self._work._measured(phase.epochs)
        for epoch in range(count):
            began = time.perf_counter()
            yield epoch
            last = time.perf_counter() - began
        self._left_out += (phase.epochs - count) * last

    def outcome(self, accuracy: float) -> Outcome:
        """Return the seconds up to now, with those of the omitted epochs. The accuracy counts if none was omitted."""
        seconds = time.perf_counter() - self._started + self._left_out
        return Outcome(seconds, None if self._left_out else accuracy)


def timed(function: Callable[[], Any]) -> Once:
    """Return a function that measures one call of `function`, which waits for its own results."""

    def run() -> Outcome:
        started = time.perf_counter()
        function()
        return Outcome(time.perf_counter() - started)

    return run
