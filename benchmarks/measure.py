"""Runs the sides of a benchmark in turns, and summarises them: medians, spreads, ratios, memory."""

import ctypes
import gc
import importlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.arrays import Arrays
from benchmarks.registry import OURS, PRODUCTS, Benchmark
from benchmarks.startup import import_seconds
from benchmarks.work import Job, Outcome

SAMPLING_SECONDS = 0.01


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of some values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Side:
    """Measurements of one side of a benchmark.

    Attributes:
        seconds, accuracies: of each round; an accuracy is None where it is not measured.
        num_bytes: the most that the process grew while the job was prepared, warmed up or done; 0 where it is not known.
    """

    seconds: tuple[float, ...]
    num_bytes: int
    accuracies: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A benchmark that was run.

    Attributes:
        sides: name -> what was measured.
        skipped: name of a side -> why it was not run.
        precision: of ours, which decides the targets.
        peak_fraction: name of a side -> fraction of the matrix-product peak that its median round reaches.
        shares: kind of operation -> its share of the time of our step, the largest first; empty for what is no step.
    """

    benchmark: Benchmark
    sides: Mapping[str, Side]
    skipped: Mapping[str, str]
    precision: str = ""
    peak_fraction: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)

    def ratio(self, other: str) -> Spread:
        """Return the time of `other` divided by ours, over the rounds."""
        pairs = zip(self.sides[other].seconds, self.sides[OURS].seconds, strict=True)
        return Spread.of([theirs / ours for theirs, ours in pairs])

    def ratio_of_products(self, other: str) -> float:
        """Return the median ratio if convolutions and matrix products took all of our time: that of a perfect rest of the step."""
        return self.ratio(other).median / self.shares[PRODUCTS]

    def target(self, other: str) -> float | None:
        """Return how many times faster than `other` ours is to be in its precision, if that is said."""
        return self.benchmark.targets.get(self.precision, {}).get(other)

    def accuracy(self, side: str) -> Spread | None:
        """Return the accuracy on the test images in percent, over the rounds, or None if it was not measured."""
        known = [100 * accuracy for accuracy in self.sides[side].accuracies if accuracy is not None]
        return Spread.of(known) if known else None

    def value(self, side: str) -> Spread:
        """Return the seconds, or the images per second if the benchmark counts images, over the rounds."""
        seconds = self.sides[side].seconds
        return Spread.of([self.benchmark.num_images / value for value in seconds] if self.benchmark.num_images else seconds)


def measure(benchmark: Benchmark, arrays: Arrays) -> Measured:
    """Prepare and warm up every side that can run, then run them in turns, once per round."""
    arrays, skipped, jobs, growth = arrays.take(benchmark.work.num_train, benchmark.work.num_test), {}, {}, {}
    with ExitStack() as stack:
        for side, path in benchmark.jobs.items():
            try:
                with _memory() as growth[side]:
                    jobs[side] = stack.enter_context(find_job(path)(benchmark.work, arrays))
                    if benchmark.benchmark_type.warm_up:
                        jobs[side]()
            except ImportError as error:
                skipped[side] = f"{error.name} is not importable"
        outcomes: dict[str, list[Outcome]] = {side: [] for side in jobs}
        for _ in range(benchmark.rounds):
            for side, job in jobs.items():
                with _memory() as growth_now:
                    outcomes[side].append(job())
                growth[side] = max(growth[side], growth_now, key=lambda memory: memory.growth)
    return Measured(benchmark, {side: _side(benchmark, side, outcomes[side], growth[side].growth) for side in jobs}, skipped)


def _side(benchmark: Benchmark, side: str, outcomes: Sequence[Outcome], num_bytes: int) -> Side:
    imports = import_seconds(benchmark.jobs[side].partition(":")[0]) if benchmark.whole_command else 0.0
    return Side(tuple(outcome.seconds + imports for outcome in outcomes), num_bytes, tuple(outcome.accuracy for outcome in outcomes))


def find_job(path: str) -> Job:
    """Return the function `module:name` of this package. Raise ImportError if its library is not installed."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(f"benchmarks.{module}"), name)


@dataclass
class _Memory:
    growth: int = 0


@contextmanager
def _memory() -> Iterator[_Memory]:
    """Measure the largest growth of resident memory in the block. It is sampled: the maximum of a process covers all that ran before."""
    gc.collect()
    _give_back_free_memory()
    memory, started, done = _Memory(), _resident(), threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLING_SECONDS):
            memory.growth = max(memory.growth, _resident() - started)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        done.set()
        thread.join()


def _resident() -> int:
    """Return the resident bytes of this process without pages of files, or 0 if the system does not tell."""
    try:
        _, resident, files, *_ = Path("/proc/self/statm").read_text().split()
        return (int(resident) - int(files)) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _give_back_free_memory() -> None:
    """Return free memory of the C library to the system, so that the next side does not reuse it unmeasured."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
