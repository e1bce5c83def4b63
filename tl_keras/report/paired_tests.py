"""Paired comparison of rows on the same test images: a test for each seed, corrected for the number of comparisons."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tl_keras.report.experiment_results import ExperimentResults, TableRow
from tl_keras.report.statistics import combine_p_values, holm, mcnemar, sign_flip_test
from tl_keras.results.predictions import read_predictions
from tl_keras.results.split_record import TEST, read_split

SIGNIFICANCE_LEVEL = 0.05


@dataclass(frozen=True)
class SeedTest:
    """The test of one seed: McNemar's or, where images belong to groups such as patients, a sign-flip permutation over groups.

    Attributes:
        only_row_correct: number of test images that only the row predicts correctly.
        only_reference_correct: number of test images that only the reference predicts correctly.
        p: two-sided p-value.
    """

    seed: int
    only_row_correct: int
    only_reference_correct: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """Comparison of a row with the reference row.

    Attributes:
        seeds: one test per seed.
        difference: mean accuracy of the row minus that of the reference, in points.
        p: p-value over the seeds; see `combine_p_values`.
        p_corrected: `p` after Holm's correction over all comparisons of the experiment.
    """

    row: TableRow
    seeds: tuple[SeedTest, ...]
    difference: float
    p: float
    p_corrected: float

    @property
    def num_agreeing(self) -> int:
        """Number of seeds whose own p-value is significant (uncorrected) and whose difference has the sign of the mean difference."""
        return sum(
            test.p < SIGNIFICANCE_LEVEL and (test.only_row_correct - test.only_reference_correct) * self.difference > 0
            for test in self.seeds
        )


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of all rows with `reference`.

    Attributes:
        not_compared: label of every other row and the reason.
        has_groups: True if test images belong to groups.
    """

    reference: TableRow
    rows: tuple[Comparison, ...]
    not_compared: tuple[tuple[str, str], ...]
    has_groups: bool


def compare(results: ExperimentResults) -> Comparisons:
    """Compare every row with the best row, seed by seed, if both were tested on the same images.

    Raises:
        DamagedError: The predictions of a run are absent or damaged.
    """
    reference = results.best_row
    reference_outcomes = _outcomes_by_seed(reference)
    tested, not_compared = [], []
    for row in results.rows:
        outcomes = reference_outcomes if row is reference else _outcomes_by_seed(row)
        if reason := _why_incomparable(row, reference, outcomes, reference_outcomes):
            not_compared.append((row.label, reason))
        elif row is not reference:
            tested.append((row, tuple(compare_outcomes(seed, outcomes[seed], reference_outcomes[seed]) for seed in outcomes)))
    p_values = [combine_p_values([test.p for test in tests]) for _, tests in tested]
    comparisons = [
        Comparison(row, tests, row.accuracy().mean - reference.accuracy().mean, p, p_corrected)
        for (row, tests), p, p_corrected in zip(tested, p_values, holm(p_values), strict=True)
    ]
    has_groups = any(outcomes.groups is not None for outcomes in reference_outcomes.values())
    return Comparisons(reference, tuple(comparisons), tuple(not_compared), has_groups)


class Outcomes(NamedTuple):
    """Test outcomes of one run.

    Attributes:
        labels: the true labels, int (n,).
        correct: if the prediction of each image is correct, bool (n,).
        groups: number of the group of each image, int (n,); None if images belong to none.
    """

    labels: np.ndarray
    correct: np.ndarray
    groups: np.ndarray | None = None


def read_outcomes(run_dir: Path) -> Outcomes:
    """Return the test outcomes of the run in `run_dir`."""
    logits, labels = read_predictions(run_dir)
    record = read_split(run_dir)
    groups = None if record is None or record.groups is None else record.groups[record.splits == TEST]
    return Outcomes(labels, logits.argmax(axis=1) == labels, groups)


def _outcomes_by_seed(row: TableRow) -> dict[int, Outcomes]:
    return {run.seed: read_outcomes(run.path) for run in row.runs}


def _why_incomparable(
    row: TableRow, reference: TableRow, outcomes: Mapping[int, Outcomes], reference_outcomes: Mapping[int, Outcomes]
) -> str:
    """Return the reason why the row cannot be compared with the reference image by image, or an empty string."""
    if row.fallbacks != reference.fallbacks:
        return "other fallbacks"
    if outcomes.keys() != reference_outcomes.keys():
        return "other seeds"
    fingerprints = {run.result["data"]["fingerprint"] for run in (*row.runs, *reference.runs)}
    has_same_labels = all(np.array_equal(outcomes[seed].labels, reference_outcomes[seed].labels) for seed in outcomes)
    return "" if has_same_labels and len(fingerprints) == 1 else "other test images, or another order"


def compare_outcomes(seed: int, row: Outcomes, reference: Outcomes) -> SeedTest:
    """Return the test of two runs on the same images."""
    only_row_correct = int((row.correct & ~reference.correct).sum())
    only_reference_correct = int((reference.correct & ~row.correct).sum())
    if row.groups is None:
        p = mcnemar(only_row_correct, only_reference_correct)
    else:
        p = sign_flip_test(row.correct.astype(int) - reference.correct, row.groups)
    return SeedTest(seed, only_row_correct, only_reference_correct, p)
