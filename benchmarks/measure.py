"""Runs the sides of a row by turns, and sums up what was measured: medians, spreads, ratios, memory."""

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
from benchmarks.rows import OURS, Row
from benchmarks.startup import import_seconds
from benchmarks.work import Job, Outcome

SAMPLING_SECONDS = 0.01


@dataclass(frozen=True)
class Spread:
    """Median, least and largest of some figures."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        return cls(median(figures), min(figures), max(figures))


@dataclass(frozen=True)
class Side:
    """Measurements of one side of a row.

    Attributes:
        seconds, accuracies: of each round; an accuracy is None where it is not measured.
        num_bytes: the most that the process grew while the job was prepared, warmed up or done; 0 where it is not known.
    """

    seconds: tuple[float, ...]
    num_bytes: int
    accuracies: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A row that was measured.

    Attributes:
        sides: name -> what was measured.
        skipped: name of a side -> why it was not run.
        peak_share: name of a side -> share of the matrix-product peak that its median round reaches.
    """

    row: Row
    sides: Mapping[str, Side]
    skipped: Mapping[str, str]
    peak_share: Mapping[str, float] = field(default_factory=dict)

    def ratio(self, other: str) -> Spread:
        """Return the time of `other` divided by ours, over the rounds."""
        pairs = zip(self.sides[other].seconds, self.sides[OURS].seconds, strict=True)
        return Spread.of([theirs / ours for theirs, ours in pairs])

    def accuracy(self, side: str) -> Spread | None:
        """On the test images, in per cent, over the rounds; None where it was not measured."""
        known = [100 * accuracy for accuracy in self.sides[side].accuracies if accuracy is not None]
        return Spread.of(known) if known else None

    def figure(self, side: str) -> Spread:
        """Seconds, or images per second where the row counts those."""
        seconds = self.sides[side].seconds
        return Spread.of([self.row.num_images / value for value in seconds] if self.row.num_images else seconds)


def measure(row: Row, arrays: Arrays) -> Measured:
    """Prepare and warm up every side that can run, then let each do the row's work once a round, in turns."""
    arrays, skipped, jobs, growth = arrays.take(row.work.num_train, row.work.num_test), {}, {}, {}
    with ExitStack() as stack:
        for side, path in row.jobs.items():
            try:
                with _memory() as growth[side]:
                    jobs[side] = stack.enter_context(find_job(path)(row.work, arrays))
                    if row.kind.warm_up:
                        jobs[side]()
            except ImportError as error:
                skipped[side] = f"{error.name} is not importable"
        outcomes: dict[str, list[Outcome]] = {side: [] for side in jobs}
        for _ in range(row.rounds):
            for side, job in jobs.items():
                with _memory() as growth_now:
                    outcomes[side].append(job())
                growth[side] = max(growth[side], growth_now, key=lambda memory: memory.growth)
    return Measured(row, {side: _side(row, side, outcomes[side], growth[side].growth) for side in jobs}, skipped)


def _side(row: Row, side: str, outcomes: Sequence[Outcome], num_bytes: int) -> Side:
    imports = import_seconds(row.jobs[side].partition(":")[0]) if row.whole_command else 0.0
    return Side(tuple(outcome.seconds + imports for outcome in outcomes), num_bytes, tuple(outcome.accuracy for outcome in outcomes))


def find_job(path: str) -> Job:
    """The function `module:name` of this package; ImportError where its library is not there."""
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
    """Bytes of this process in memory, without those that are files' and can be read again; 0 where the system does not say so."""
    try:
        _, resident, files, *_ = Path("/proc/self/statm").read_text().split()
        return (int(resident) - int(files)) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _give_back_free_memory() -> None:
    """Let the C library return what is free, or the next side would grow into what the last one left."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
