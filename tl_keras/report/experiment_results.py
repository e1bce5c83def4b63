"""Content of a report: the rows of an experiment, with their published values and the results of their runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from tl_keras.report.statistics import summarize
from tl_keras.results.experiment_file import METRICS, PAPER, SAID, SHOWN, ExperimentRow

ACCURACY, LOSS, SECONDS, EPOCH_SECONDS, PARAMETERS, ACCURACY_DIFFERENCE, PARAMETER_RATIO, SPEED_RATIO = METRICS
# Metrics whose difference from the published value has a meaning. Times depend on the hardware, and published numbers of parameters
# are rounded.
COMPARED_METRICS = (ACCURACY, LOSS, ACCURACY_DIFFERENCE)
# Key in the data record of a result -> caveat that every table and plot shows if the value is true, and its end.
CAVEATS = {"embedded": "EMBEDDED data and weights", "limited": "LIMITED number of images"}
NOT_COMPARABLE, TRIAL = "NOT comparable with the published values", "a trial, NOT a result"


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, its `result.json`, and the rows of its `history.csv`."""

    path: Path
    result: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def test(self) -> Mapping[str, Any]:
        """Metrics on the test split; `run_directory.TEST_KEYS` lists them."""
        return self.result["metrics"]["test"]

    @property
    def class_names(self) -> Sequence[str]:
        return self.result["data"]["class_names"]

    @property
    def seed(self) -> int:
        return self.result["config"]["seed"]

    @property
    def num_epochs(self) -> int:
        """Number of trained epochs; fewer than configured if a callback stopped the run."""
        return sum(phase["epochs"] for phase in self.result["phases"])

    @property
    def num_trainable(self) -> int:
        """Number of parameters trained in the phase that trains most."""
        return max(phase["trainable_parameters"] for phase in self.result["phases"])


@dataclass(frozen=True)
class Estimate:
    """A test accuracy and its 95 % interval, in per cent."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class TableRow(ExperimentRow):
    """A row with its runs: at least one, one per seed."""

    runs: tuple[Run, ...]

    @property
    def num_train(self) -> int:
        return self.runs[0].result["data"]["num_train"]

    @property
    def published_accuracy(self) -> float | None:
        return self.published.get(ACCURACY)

    def accuracy(self) -> Estimate:
        """Return the mean test accuracy. Its interval is Wilson's over the test images for one seed, Student's over several seeds."""
        summary = summarize([run.test["accuracy"] for run in self.runs])
        low, high = self.runs[0].test["interval"] if len(self.runs) == 1 else summary.interval
        return Estimate(100 * summary.mean, 100 * low, 100 * high)

    def std(self) -> float:
        """Return the standard deviation of the test accuracy over the seeds, in points; NaN for one seed."""
        return summarize([100 * run.test["accuracy"] for run in self.runs]).std

    def mean(self, metric_value: Callable[[Run], float | None]) -> float | None:
        """Return the mean of a value over the seeds, or None if a run does not have it."""
        values = [value for run in self.runs if (value := metric_value(run)) is not None]
        return fmean(values) if len(values) == len(self.runs) else None

    def value(self, metric: str) -> float | None:
        """Return the mean over the seeds of one of `METRIC_VALUES`, in its unit."""
        return self.mean(METRIC_VALUES[metric])


# The metrics of one run; the others compare two rows.
METRIC_VALUES: Mapping[str, Callable[[Run], float | None]] = {
    ACCURACY: lambda run: 100 * run.test["accuracy"],
    LOSS: lambda run: run.test["loss"],
    SECONDS: lambda run: run.result["seconds"]["train"],
    EPOCH_SECONDS: lambda run: run.result["seconds"]["train"] / max(1, run.num_epochs),
    PARAMETERS: lambda run: run.result["model"]["parameters"],
}
# Metric that compares a row with the reference row -> the compared metric, and a function of its values in the two rows.
RELATIVE_VALUES: Mapping[str, tuple[str, Callable[[float, float], float | None]]] = {
    ACCURACY_DIFFERENCE: (ACCURACY, lambda row, reference: row - reference),
    PARAMETER_RATIO: (PARAMETERS, lambda row, reference: reference / row if row else None),
    SPEED_RATIO: (EPOCH_SECONDS, lambda row, reference: reference / row if row else None),
}


@dataclass(frozen=True)
class ExperimentResults:
    """Results of an experiment, as `load_experiment` reads them.

    Attributes:
        name: name of the experiment.
        title, question: headline and question of its report.
        command: command line that started it.
        embedded: True if it ran on the bundled data and weights.
        changed_settings: settings that differ from the source report's, e.g. `epochs 6`.
        profile: size of the experiment; `PAPER` is that of the source report.
        reference: label or line of the reference row; `ExperimentRecord` explains it.
        pending: label of a row -> number of its runs that are not finished. Rows without a finished run are not in `rows`.
    """

    name: str
    title: str
    question: str
    command: str
    embedded: bool
    rows: tuple[TableRow, ...]
    changed_settings: tuple[str, ...] = ()
    profile: str = PAPER
    reference: str = ""
    pending: Mapping[str, int] = field(default_factory=dict)

    @property
    def runs(self) -> list[Run]:
        return [run for row in self.rows for run in row.runs]

    @property
    def caveat(self) -> str:
        """Reason why the results are not comparable with others; empty if they are."""
        keys = {key for run in self.runs for key in CAVEATS if run.result["data"][key]} | ({"embedded"} if self.embedded else set())
        consequence = NOT_COMPARABLE if self.has_source else TRIAL
        return next((f"{text}: {consequence}" for key, text in CAVEATS.items() if key in keys), "")

    @property
    def has_source(self) -> bool:
        """True if the experiment repeats a source report: a row has a published value or a setting of that report."""
        return any(
            row.published or row.published_curve or any(origin in (SAID, SHOWN) for _, origin in row.settings.values()) for row in self.rows
        )

    def is_comparable(self, row: TableRow, metric: str = ACCURACY) -> bool:
        """Return True if the value of `metric` in `row` is comparable with the published one."""
        rows = [row, self.reference_row(row)] if metric in RELATIVE_VALUES else [row]
        return not self.caveat and not any(row.fallbacks for row in rows if row)

    def reference_row(self, row: TableRow) -> TableRow | None:
        """Return the row that `row` is compared with; None if the experiment has no reference, or it was not run."""
        labelled = [other for other in self.rows if other.label == self.reference]
        of_line = [other for other in self.rows if other.line == self.reference and other.train_fraction == row.train_fraction]
        return next(iter([*labelled, *of_line]), None)

    def value(self, row: TableRow, metric: str) -> float | None:
        """Return one of `METRICS` in its unit, a mean over the seeds; None if a run or the reference row lacks it."""
        if metric not in RELATIVE_VALUES:
            return row.value(metric)
        (compared, function), reference = RELATIVE_VALUES[metric], self.reference_row(row)
        ours, theirs = row.value(compared), reference.value(compared) if reference else None
        return None if ours is None or theirs is None else function(ours, theirs)

    def difference(self, row: TableRow, metric: str = ACCURACY) -> float | None:
        """Return our value minus the published one, or None if they are not comparable or none was published."""
        ours, published = self.value(row, metric), row.published.get(metric)
        if ours is None or published is None or metric not in COMPARED_METRICS or not self.is_comparable(row, metric):
            return None
        return ours - published

    @property
    def best_row(self) -> TableRow:
        """The row with the highest mean test accuracy; rows with fallbacks count only if there are no others."""
        return max([row for row in self.rows if not row.fallbacks] or self.rows, key=lambda row: row.accuracy().mean)
