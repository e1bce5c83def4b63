"""Paired comparison of runs on the same test images. No TensorFlow."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from tl_keras.errors import ConfigError, unknown
from tl_keras.interface.run import Run
from tl_keras.report.paired_tests import Outcomes, compare_outcomes, read_outcomes
from tl_keras.report.statistics import combine_p_values, holm, summarize
from tl_keras.results.predicted import import_pandas
from tl_keras.utils.text import align_columns

MCNEMAR, SIGN_FLIP = "McNemar", "sign-flip permutation over groups"


class _Tested(NamedTuple):
    """The test split of one run: the outcomes and the fingerprint of the data."""

    outcomes: Outcomes
    fingerprint: str


@dataclass(frozen=True)
class Comparison:
    """Accuracies of several labels, each with runs of the same seeds, compared with one of them.

    Attributes:
        table: label -> `mean` accuracy in per cent, `sd` over seeds (NaN for one seed), `difference` from the reference in points, and
            the p-values `p` and `p_holm` (Holm 1979, over all labels); NaN for the reference itself.
        reference: the label that the others are compared with.
        seeds: seeds of the runs.
        test: the test of each seed, McNemar's (1947) or, where images belong to groups, a sign-flip permutation over groups. Seeds are
            combined by the rule of Rüger (1978), since they share their images.
        num_examples: number of test images.

    Example:
        >>> run = tl_keras.load_run(finished_run)
        >>> comparison = tl_keras.compare({"one": [run], "two": [run]}, reference="one")
        >>> comparison.test, comparison.table["two"]["difference"]
        ('McNemar', 0.0)
    """

    table: Mapping[str, Mapping[str, float]]
    reference: str
    seeds: tuple[int, ...]
    test: str
    num_examples: int

    def __str__(self) -> str:
        rows = [("", "mean (%)", "sd", "difference", "p", "p (Holm)"), *(self._cells(label) for label in self.table)]
        seeds = ", ".join(map(str, self.seeds))
        return "\n".join([*align_columns(rows), f"reference {self.reference}; {self.test}; n = {self.num_examples}; seeds {seeds}"])

    def _cells(self, label: str) -> tuple[str, ...]:
        values = self.table[label]
        formats = {"mean": ".2f", "sd": ".2f", "difference": "+.2f", "p": ".3g", "p_holm": ".3g"}
        return label, *("-" if np.isnan(values[name]) else format(values[name], form) for name, form in formats.items())

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes as JSON would have them, with None for NaN."""
        table = {
            label: {name: None if np.isnan(value) else value for name, value in values.items()} for label, values in self.table.items()
        }
        return {**vars(self), "table": table, "seeds": list(self.seeds)}

    def to_dataframe(self) -> Any:
        """Return the table as a pandas DataFrame, one row per label.

        Raises:
            ConfigError: pandas is not installed.
        """
        return import_pandas().DataFrame.from_dict(self.table, orient="index")


def compare(runs: Mapping[str, Sequence[Run]], *, reference: str) -> Comparison:
    """Compare runs on the same test images, image by image and seed by seed.

    Args:
        runs: label -> its finished runs, one per seed, with the same seeds for every label.
        reference: the label that the others are compared with. Choose it before looking at the results: the label that is best on the
            test split is best by luck too.

    Raises:
        ConfigError: `reference` is no label, a run is not finished, or runs were tested on other images or have other seeds.

    Example:
        >>> run = tl_keras.load_run(finished_run)
        >>> tl_keras.compare({"one": [run], "the same": [run]}, reference="one").table["the same"]["p"]
        1.0
    """
    if reference not in runs:
        raise unknown("reference", reference, runs)
    outcomes = {label: _outcomes(label, own) for label, own in runs.items()}
    for label, own in outcomes.items():
        _require_comparable(label, own, reference, outcomes[reference])
    others = [label for label in runs if label != reference]
    p_values = [_p_value(outcomes[label], outcomes[reference]) for label in others]
    tests = dict(zip(others, zip(p_values, holm(p_values), strict=True), strict=True))
    first = next(iter(outcomes[reference].values()))
    return Comparison(
        table={label: _line(outcomes[label], outcomes[reference], *tests.get(label, (np.nan, np.nan))) for label in runs},
        reference=reference,
        seeds=tuple(outcomes[reference]),
        test=MCNEMAR if first.outcomes.groups is None else SIGN_FLIP,
        num_examples=len(first.outcomes.labels),
    )


def _outcomes(label: str, runs: Sequence[Run]) -> dict[int, _Tested]:
    """Return seed -> outcome of the runs of a label."""
    found = {run.config.seed: _tested(run) for run in runs}
    if not runs or len(found) < len(runs):
        raise ConfigError(f"{label}: expected runs of different seeds, received {[run.config.seed for run in runs]}.")
    return dict(sorted(found.items()))


def _tested(run: Run) -> _Tested:
    fingerprint = run.result["data"]["fingerprint"]
    return _Tested(read_outcomes(run.path), fingerprint)


def _require_comparable(label: str, own: Mapping[int, _Tested], reference: str, others: Mapping[int, _Tested]) -> None:
    if own.keys() != others.keys():
        raise ConfigError(f"{label} has the seeds {list(own)}, {reference} has {list(others)}. Compare runs of the same seeds.")
    for seed, outcome in own.items():
        other = others[seed]
        if outcome.fingerprint != other.fingerprint or not np.array_equal(outcome.outcomes.labels, other.outcomes.labels):
            raise ConfigError(f"{label} and {reference} were tested on other images, or in another order, with seed {seed}.")


def _p_value(own: Mapping[int, _Tested], others: Mapping[int, _Tested]) -> float:
    """Return the p-value over all seeds."""
    return combine_p_values([compare_outcomes(seed, tested.outcomes, others[seed].outcomes).p for seed, tested in own.items()])


def _line(own: Mapping[int, _Tested], others: Mapping[int, _Tested], p: float, p_holm: float) -> dict[str, float]:
    accuracies = [100 * float(tested.outcomes.correct.mean()) for tested in own.values()]
    difference = fmean(accuracies) - fmean(100 * float(tested.outcomes.correct.mean()) for tested in others.values())
    summary = summarize(accuracies)
    return {"mean": summary.mean, "sd": summary.std, "difference": difference, "p": p, "p_holm": p_holm}
