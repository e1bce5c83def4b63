"""Paired comparison of rows on the same test images: McNemar's test, over seeds, corrected for the number of comparisons."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tl_keras.report.experiment_results import ExperimentResults, Row
from tl_keras.results.predictions import read_predictions

EXACT_BELOW = 25  # discordant pairs; from there on the chi-square distribution is close
LEVEL = 0.05


@dataclass(frozen=True)
class SeedTest:
    """One seed: images that the row alone, and that the reference alone, got right; McNemar's two-sided p."""

    seed: int
    num_row: int
    num_reference: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """A row against the reference row.

    Attributes:
        seeds: a test for each seed.
        difference: mean accuracy of the row less that of the reference, in points.
        p: over the seeds; see `combine`.
        corrected: `p` after Holm's correction over all comparisons of the experiment.
    """

    row: Row
    seeds: tuple[SeedTest, ...]
    difference: float
    p: float
    corrected: float

    @property
    def num_agreeing(self) -> int:
        """Seeds that alone show a difference, at 5 % uncorrected, with the sign of the mean one."""
        return sum(test.p < LEVEL and (test.num_row - test.num_reference) * self.difference > 0 for test in self.seeds)


@dataclass(frozen=True)
class Comparisons:
    """All rows against `reference`; `left_out` are labels of rows and why they cannot be compared."""

    reference: Row
    rows: tuple[Comparison, ...]
    left_out: tuple[tuple[str, str], ...]


def mcnemar(num_first: int, num_second: int) -> float:
    """Two-sided p of McNemar's test (1947) for examples that only the first, and only the second, classifier got right.

    The exact binomial for fewer than `EXACT_BELOW` of them, else the chi-square with continuity correction (Edwards 1948).
    """
    num = num_first + num_second
    if num < EXACT_BELOW:
        tail = sum(math.comb(num, count) for count in range(min(num_first, num_second) + 1))
        return min(1.0, 2 * tail / 2**num)
    statistic = max(0, abs(num_first - num_second) - 1) ** 2 / num
    return math.erfc(math.sqrt(statistic / 2))


def combine(ps: Sequence[float]) -> float:
    """One p over seeds, which share their test images and so are not independent.

    n / k times the k-th smallest of n is a valid p whatever the dependence (Rüger 1978). Here k is half of them, rounded up:
    about twice the median. One seed keeps its own.
    """
    rank = -(-len(ps) // 2)
    return min(1.0, len(ps) / rank * sorted(ps)[rank - 1])


def holm(ps: Sequence[float]) -> list[float]:
    """The ps corrected for their number, in the order given (Holm 1979)."""
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = highest
    return corrected


def compare(results: ExperimentResults) -> Comparisons:
    """Every row against the best one, seed by seed, where both saw the same test images.

    Raises:
        DamagedError: predictions of a run are absent or damaged.
    """
    reference = results.best_row
    theirs = _answers(reference)
    tested, left_out = [], []
    for row in results.rows:
        own = theirs if row is reference else _answers(row)
        if reason := _obstacle(row, reference, own, theirs):
            left_out.append((row.label, reason))
        elif row is not reference:
            tested.append((row, tuple(_test(seed, own[seed], theirs[seed]) for seed in own)))
    ps = [combine([test.p for test in tests]) for _, tests in tested]
    compared = [
        Comparison(row, tests, row.accuracy().mean - reference.accuracy().mean, p, corrected)
        for (row, tests), p, corrected in zip(tested, ps, holm(ps), strict=True)
    ]
    return Comparisons(reference, tuple(compared), tuple(left_out))


class _Answers(NamedTuple):
    labels: np.ndarray
    hits: np.ndarray


def _answers(row: Row) -> dict[int, _Answers]:
    """Of each seed, the true labels int (n,) and whether the row got them right, bool (n,)."""
    predictions = {run.seed: read_predictions(run.path) for run in row.runs}
    return {seed: _Answers(labels, logits.argmax(axis=1) == labels) for seed, (logits, labels) in predictions.items()}


def _obstacle(row: Row, reference: Row, own: Mapping[int, _Answers], theirs: Mapping[int, _Answers]) -> str:
    """Why the row cannot be compared with the reference image by image; empty where it can."""
    if row.stand_ins != reference.stand_ins:
        return "stand-ins"
    if own.keys() != theirs.keys():
        return "other seeds"
    fingerprints = {run.result["data"]["fingerprint"] for run in (*row.runs, *reference.runs)}
    same = all(np.array_equal(own[seed].labels, theirs[seed].labels) for seed in own)
    return "" if same and len(fingerprints) == 1 else "other test images, or in another order"


def _test(seed: int, own: _Answers, theirs: _Answers) -> SeedTest:
    num_row, num_reference = int((own.hits & ~theirs.hits).sum()), int((theirs.hits & ~own.hits).sum())
    return SeedTest(seed, num_row, num_reference, mcnemar(num_row, num_reference))
