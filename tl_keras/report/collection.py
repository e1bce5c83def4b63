"""What a report is made of: the rows of an experiment with their reported figures and the results of their runs, one a seed.

`experiment.json` in the directory of an experiment says which runs belong to it, so that the report can be made anew.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.errors import ConfigError, DamagedError
from tl_keras.report.seeds import summarize
from tl_keras.results import RESULT, load_result, read_history, read_json, read_result, write_json

if TYPE_CHECKING:
    from tl_keras import experiment as experiments

SCHEMA = 1
EXPERIMENT_FILE = "experiment.json"
REPORTED_METRIC = "test accuracy"  # the key in `reported` that our test accuracy is compared with
# What the data record of a result says of itself -> how everything that shows its figures says so.
MARKS = {
    "embedded": "EMBEDDED data and weights: not comparable with the reported figures",
    "limited": "LIMITED number of images: not comparable with the reported figures",
}


@dataclass(frozen=True)
class Run:
    """A finished run: the name of its directory, its `result.json` and the rows of its `history.csv`."""

    name: str
    result: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]

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
        reported: metric -> the report's figure, in per cent, e.g. `{"test accuracy": 82.99}`.
        reported_curve: epoch -> the report's (training loss, training accuracy in per cent).
        runs: one a seed, at least one.
    """

    label: str
    group: str
    x: float | None
    reported: Mapping[str, float]
    reported_curve: Mapping[int, tuple[float, float]]
    runs: tuple[Run, ...]

    @property
    def num_train(self) -> int:
        return self.runs[0].result["data"]["num_train"]

    @property
    def reported_accuracy(self) -> float | None:
        return self.reported.get(REPORTED_METRIC)

    def accuracy(self) -> Estimate:
        """Wilson's interval over the test images for one seed, Student's over the seeds for several."""
        tests = [run.result["metrics"]["test"] for run in self.runs]
        summary = summarize([test["accuracy"] for test in tests])
        low, high = tests[0]["interval"] if len(tests) == 1 else summary.interval
        return Estimate(100 * summary.mean, 100 * low, 100 * high)


@dataclass(frozen=True)
class ExperimentResults:
    """All that a report says.

    Attributes:
        name: of the experiment.
        title, question, command: what it is called, what it asks, and how it was started.
        embedded: whether it ran on the data and weights that the package carries.
        departures: settings that are not the report's, e.g. `epochs 6`.
    """

    name: str
    title: str
    question: str
    command: str
    embedded: bool
    rows: tuple[Row, ...]
    departures: tuple[str, ...] = ()

    @property
    def runs(self) -> list[Run]:
        return [run for row in self.rows for run in row.runs]

    @property
    def mark(self) -> str:
        """Why the figures cannot be compared with the reported ones; empty where they can."""
        kinds = {kind for run in self.runs for kind in MARKS if run.result["data"][kind]} | ({"embedded"} if self.embedded else set())
        return next((text for kind, text in MARKS.items() if kind in kinds), "")

    def difference(self, row: Row) -> float | None:
        """Our accuracy less the reported one, in points; None where they are not comparable or none is reported."""
        return None if self.mark or row.reported_accuracy is None else row.accuracy().mean - row.reported_accuracy


def collect(
    experiment: "experiments.Experiment",
    rows: Sequence["experiments.Row"],
    seeds: Sequence[int],
    directory: Path,
    *,
    embedded: bool,
    command: str,
    departures: Sequence[str] = (),
) -> ExperimentResults:
    """Find the run of every row and seed in `directory` by its label and configuration, and write `experiment.json`.

    Raises:
        ConfigError: a run is missing or not finished.
    """
    finished = _finished_runs(directory)
    index = {"schema": SCHEMA, "name": experiment.name, "title": experiment.title, "question": experiment.question}
    index |= {"command": command, "embedded": embedded, "departures": list(departures), "rows": []}
    for row in rows:
        facts = {name: getattr(row, name) for name in ("label", "group", "x")}
        facts |= {"reported": dict(row.reported), "reported_curve": dict(row.reported_curve)}
        index["rows"].append(facts | {"runs": [_find(finished, directory, row, seed) for seed in seeds]})
    write_json(directory / EXPERIMENT_FILE, index)
    return load_experiment(directory / EXPERIMENT_FILE)


def _finished_runs(directory: Path) -> dict[tuple[str, str], str]:
    """(label, identity) -> name of the directory, of every finished run in `directory`."""
    paths = sorted(path.parent for path in directory.glob(f"*/{RESULT}"))
    found = {path.name: result for path in paths if (result := read_result(path))}
    return {_key(result["name"], result["config"]): name for name, result in found.items()}


def _key(label: str, identity: Mapping[str, Any]) -> tuple[str, str]:
    return label, json.dumps(identity, sort_keys=True)


def _find(finished: Mapping[tuple[str, str], str], directory: Path, row: "experiments.Row", seed: int) -> str:
    key = _key(row.label, row.config.replace(seed=seed).identity())
    if key not in finished:
        raise ConfigError(f"{directory} holds no finished run of {row.label!r} with seed {seed}. Run the experiment again to finish it.")
    return finished[key]


def load_experiment(path: Path) -> ExperimentResults:
    """Read an `experiment.json` and the runs beside it that it names.

    Raises:
        DamagedError: the file is not such a file, or names runs elsewhere.
        ConfigError: a run is missing or not finished.
    """
    try:
        facts, rows = _read_index(read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path} is not the file of an experiment ({error!r}). Run the experiment again to write it anew.") from error
    runs = [tuple(_load_run(path.parent / name) for name in row.pop("runs")) for row in rows]
    return ExperimentResults(**facts, rows=tuple(Row(**row, runs=row_runs) for row, row_runs in zip(rows, runs, strict=True)))


def _load_run(path: Path) -> Run:
    return Run(path.name, load_result(path), read_history(path))


def _read_index(index: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The fields of ExperimentResults but the rows, and those of each Row with the names of its runs."""
    rows = [_read_row(row) for row in index["rows"]]
    if index["schema"] != SCHEMA or not rows or not all(row["runs"] for row in rows):
        raise ValueError(f"expected schema {SCHEMA} and at least one run in each row")
    facts = {name: str(index[name]) for name in ("name", "title", "question", "command")}
    departures = tuple(str(departure) for departure in index["departures"])
    return facts | {"embedded": bool(index["embedded"]), "departures": departures}, rows


def _read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    curve = row["reported_curve"].items()
    return {
        "label": str(row["label"]),
        "group": str(row["group"]),
        "x": None if row["x"] is None else _finite(row["x"]),
        "reported": {str(metric): _finite(value) for metric, value in row["reported"].items()},
        "reported_curve": {int(epoch): (_finite(loss), _finite(accuracy)) for epoch, (loss, accuracy) in curve},
        "runs": [_plain_name(name) for name in row["runs"]],
    }


def _plain_name(name: str) -> str:
    if name in ("", "..") or Path(name).name != name:
        raise ValueError(f"{name!r} is not the name of a directory beside it")
    return name


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return float(value)
