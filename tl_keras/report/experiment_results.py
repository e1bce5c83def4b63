"""What a report is made of: the rows of an experiment with their reported figures and the results of their runs, one a seed."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_keras.report.statistics import summarize

PAPER = "paper"  # the profile whose settings are the report's
METRICS = ("test accuracy", "test loss", "validation loss", "seconds", "seconds per epoch")
ACCURACY, LOSS, VALIDATION_LOSS, SECONDS, EPOCH_SECONDS = METRICS
COMPARED = (ACCURACY, LOSS)  # of METRICS; times of other machines are not
# What the data record of a result says of itself -> how everything that shows its figures says so.
MARKS = {
    "embedded": "EMBEDDED data and weights: not comparable with the reported figures",
    "limited": "LIMITED number of images: not comparable with the reported figures",
}


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, its `result.json` and the rows of its `history.csv`."""

    path: Path
    result: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def test(self) -> Mapping[str, Any]:
        """The metrics of the test split; `results.TEST_KEYS` lists them."""
        return self.result["metrics"]["test"]

    @property
    def class_names(self) -> Sequence[str]:
        return self.result["data"]["class_names"]

    @property
    def seed(self) -> int:
        return self.result["config"]["seed"]

    @property
    def num_epochs(self) -> int:
        """Epochs that were trained; fewer than were asked for where a callback stopped the run."""
        return sum(phase["epochs"] for phase in self.result["phases"])

    @property
    def num_trainable(self) -> int:
        """Parameters trained in the phase that trains most."""
        return max(phase["trainable_parameters"] for phase in self.result["phases"])


@dataclass(frozen=True)
class Estimate:
    """A test accuracy in per cent with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        label: the row's name.
        group: rows of one group are one line of a plot.
        x: share of the training data, or None where rows do not differ by it.
        reported: metric of METRICS -> the report's figure: accuracy in per cent, losses in nats (`validation loss` in the last epoch),
            times in seconds.
        reported_curve: epoch -> the report's (training loss, training accuracy in per cent).
        stand_ins: what stood in for what was not at hand, e.g. `random weights for imagenet`; such a row is never compared.
        runs: one a seed, at least one.
    """

    label: str
    group: str
    x: float | None
    reported: Mapping[str, float]
    reported_curve: Mapping[int, tuple[float, float]]
    stand_ins: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def num_train(self) -> int:
        return self.runs[0].result["data"]["num_train"]

    @property
    def reported_accuracy(self) -> float | None:
        return self.reported.get(ACCURACY)

    def accuracy(self) -> Estimate:
        """Wilson's interval over the test images for one seed, Student's over the seeds for several."""
        summary = summarize([run.test["accuracy"] for run in self.runs])
        low, high = self.runs[0].test["interval"] if len(self.runs) == 1 else summary.interval
        return Estimate(100 * summary.mean, 100 * low, 100 * high)

    def deviation(self) -> float:
        """Standard deviation of the test accuracy over the seeds, in points; NaN for one seed."""
        return summarize([FIGURES[ACCURACY](run) for run in self.runs]).std

    def mean(self, figure: Callable[[Run], float | None]) -> float | None:
        """The mean over the seeds; None where a run has none."""
        values = [figure(run) for run in self.runs]
        return None if None in values else statistics.fmean(values)

    def figure(self, metric: str) -> float | None:
        """Our figure for one of METRICS, in its unit, as the mean over the seeds."""
        return self.mean(FIGURES[metric])


FIGURES: Mapping[str, Callable[[Run], float | None]] = {
    ACCURACY: lambda run: 100 * run.test["accuracy"],
    LOSS: lambda run: run.test["loss"],
    VALIDATION_LOSS: lambda run: run.history[-1].get("val_loss"),  # of the last epoch, whichever was tested
    SECONDS: lambda run: run.result["seconds"]["train"],
    EPOCH_SECONDS: lambda run: run.result["seconds"]["train"] / max(1, run.num_epochs),
}


@dataclass(frozen=True)
class ExperimentResults:
    """All that a report says.

    Attributes:
        name: of the experiment.
        title, question, command: what it is called, what it asks, and how it was started.
        embedded: whether it ran on the data and weights that the package carries.
        departures: settings that are not the report's, e.g. `epochs 6`.
        profile: the size of the experiment; that of the report is `paper`.
    """

    name: str
    title: str
    question: str
    command: str
    embedded: bool
    rows: tuple[Row, ...]
    departures: tuple[str, ...] = ()
    profile: str = PAPER

    @property
    def runs(self) -> list[Run]:
        return [run for row in self.rows for run in row.runs]

    @property
    def mark(self) -> str:
        """Why the figures cannot be compared with the reported ones; empty where they can."""
        kinds = {kind for run in self.runs for kind in MARKS if run.result["data"][kind]} | ({"embedded"} if self.embedded else set())
        return next((text for kind, text in MARKS.items() if kind in kinds), "")

    def is_comparable(self, row: Row) -> bool:
        """Whether the row's figures may be held against the reported ones."""
        return not self.mark and not row.stand_ins

    def difference(self, row: Row, metric: str = ACCURACY) -> float | None:
        """Our figure less the reported one; None where they are not comparable or none is reported."""
        reported = row.reported.get(metric) if metric in COMPARED and self.is_comparable(row) else None
        return None if reported is None else row.figure(metric) - reported

    @property
    def best_row(self) -> Row:
        """The row of the highest mean test accuracy, among those without stand-ins where there are any."""
        return max([row for row in self.rows if not row.stand_ins] or self.rows, key=lambda row: row.accuracy().mean)
