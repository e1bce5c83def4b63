"""`experiment.json`: the rows of an experiment, their published values, and the names of their run directories. No TensorFlow."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tl_keras.errors import ConfigError, DamagedError
from tl_keras.utils.files import read_json, write_json

SCHEMA = 3  # Bump when a key of `experiment.json` changes its name or meaning.
EXPERIMENT_FILE = "experiment.json"
PAPER = "paper"  # the profile with the settings of the source report
METRICS = ("test accuracy", "test loss", "validation loss", "seconds", "seconds per epoch")


@dataclass(frozen=True)
class RowRecord:
    """One row of an experiment's table.

    Attributes:
        label: name of the row.
        line: rows of the same `line` form one line of a plot.
        train_fraction: fraction of the training data, or None if the rows do not differ by it.
        published: metric of `METRICS` -> value in the source report. Accuracies are in per cent, losses in nats, times in seconds;
            `validation loss` is that of the last epoch.
        published_curve: epoch -> (training loss, training accuracy in per cent) in the source report.
        fallbacks: replacements of missing data and weights, e.g. `random weights for imagenet`.
        runs: names of the run directories beside the file, one per seed.
    """

    label: str
    line: str
    train_fraction: float | None
    published: Mapping[str, float]
    published_curve: Mapping[int, tuple[float, float]]
    fallbacks: tuple[str, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class ExperimentRecord:
    """Content of an `experiment.json`, apart from the schema.

    Attributes:
        name: name of the experiment.
        title, question: headline and question of its report.
        command: command line that started it.
        profile: size of the experiment; `PAPER` is that of the source report.
        embedded: True if it ran on the bundled data and weights.
        changed_settings: settings that differ from the source report's, e.g. `epochs 6`.
        rows: rows of the table, at least one.
    """

    name: str
    title: str
    question: str
    command: str
    profile: str
    embedded: bool
    changed_settings: tuple[str, ...]
    rows: tuple[RowRecord, ...]


def write_experiment_file(path: Path, record: ExperimentRecord) -> None:
    """Write `record` to `path`."""
    write_json(path, {"schema": SCHEMA, **asdict(record)})


def read_experiment_file(path: Path) -> ExperimentRecord:
    """Return the content of an `experiment.json`.

    Raises:
        ConfigError: The file has another schema.
        DamagedError: The file is absent or damaged, or names runs in other directories.
    """
    content = read_json(path)
    _require_schema(path, content)
    try:
        return _read_record(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path} is not the file of an experiment ({error!r}). Run the experiment again to rewrite it.") from error


def _require_schema(path: Path, content: Any) -> None:
    schema = content.get("schema") if isinstance(content, dict) else None
    if isinstance(schema, int) and schema != SCHEMA:
        raise ConfigError(
            f"{path} has schema {schema}; this version of tl_keras reads schema {SCHEMA}. "
            "Run the experiment again to rewrite it, or read it with the version that wrote it."
        )


def _read_record(content: Mapping[str, Any]) -> ExperimentRecord:
    rows = tuple(_read_row(row) for row in content["rows"])
    if content["schema"] != SCHEMA or not rows or not all(row.runs for row in rows):
        raise ValueError(f"expected schema {SCHEMA} and at least one run in each row")
    return ExperimentRecord(
        **{name: str(content[name]) for name in ("name", "title", "question", "command", "profile")},
        embedded=bool(content["embedded"]),
        changed_settings=tuple(str(setting) for setting in content["changed_settings"]),
        rows=rows,
    )


def _read_row(row: Mapping[str, Any]) -> RowRecord:
    curve = row["published_curve"].items()
    return RowRecord(
        label=str(row["label"]),
        line=str(row["line"]),
        train_fraction=None if row["train_fraction"] is None else _finite(row["train_fraction"]),
        published={METRICS[METRICS.index(metric)]: _finite(value) for metric, value in row["published"].items()},
        published_curve={int(epoch): (_finite(loss), _finite(accuracy)) for epoch, (loss, accuracy) in curve},
        fallbacks=tuple(str(fallback) for fallback in row["fallbacks"]),
        runs=tuple(_plain_name(name) for name in row["runs"]),
    )


def _plain_name(name: str) -> str:
    if name in ("", "..") or Path(name).name != name:
        raise ValueError(f"{name!r} is not the name of a directory beside the file")
    return name


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return float(value)
