"""`experiment.json`: the rows of an experiment, their settings, published values and run directories. No TensorFlow."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tl_keras.errors import ConfigError, DamagedError
from tl_keras.utils.files import read_json, write_json

SCHEMA = 4  # Bump when a key of `experiment.json` changes its name or meaning.
EXPERIMENT_FILE = "experiment.json"
PAPER = "paper"  # the profile with the settings of the source report
METRICS = (
    "test accuracy",
    "test loss",
    "seconds",
    "seconds per epoch",
    "parameters",
    "accuracy difference",
    "parameter ratio",
    "speed ratio",
)
SAID, SHOWN, CHOSEN, CHANGED = "said", "shown", "chosen", "changed"
# Origin of a setting -> its meaning.
ORIGINS = MappingProxyType(
    {
        SAID: "by the text of the source report",
        SHOWN: "only by the code of the source report",
        CHOSEN: "here, because the source report leaves it open or there is none",
        CHANGED: "by the profile or the command, or because data or weights are missing",
    }
)
SettingsWithOrigins = Mapping[str, tuple[Any, str]]  # name -> (value, one of `ORIGINS`)


@dataclass(frozen=True)
class ExperimentRow:
    """One row of an experiment's table, without its runs.

    Attributes:
        label: name of the row.
        line: rows of the same `line` form one line of a plot.
        train_fraction: fraction of the training data, or None if the rows do not differ by it.
        published: metric of `METRICS` -> value in the source report. Accuracies are in per cent, losses in nats, times in seconds.
            Three metrics compare the row with the reference row of the experiment: `accuracy difference` is its test accuracy minus
            the reference row's, in points; `parameter ratio` is the number of parameters of the reference row, divided by its own;
            `speed ratio` does the same with the seconds per epoch.
        published_curve: epoch -> (training loss or None, training accuracy in per cent) in the source report.
        settings: the settings that matter, with their origins.
        fallbacks: replacements of missing data and weights, e.g. `random weights for imagenet`. A row with fallbacks is never compared
            with published values.
    """

    label: str
    line: str
    train_fraction: float | None
    published: Mapping[str, float]
    published_curve: Mapping[int, tuple[float | None, float]]
    settings: SettingsWithOrigins
    fallbacks: tuple[str, ...]


@dataclass(frozen=True)
class RowRecord(ExperimentRow):
    """A row with the names of its run directories, one per seed, which are beside the file."""

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
        reference: label of the row that others are compared with, or its line, which stands for the row with the same fraction;
            empty: none.
        rows: rows of the table, at least one.
    """

    name: str
    title: str
    question: str
    command: str
    profile: str
    embedded: bool
    changed_settings: tuple[str, ...]
    reference: str
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
        **{name: str(content[name]) for name in ("name", "title", "question", "command", "profile", "reference")},
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
        published_curve={int(epoch): (None if loss is None else _finite(loss), _finite(accuracy)) for epoch, (loss, accuracy) in curve},
        settings={str(name): (_scalar(value), _origin(origin)) for name, (value, origin) in row["settings"].items()},
        fallbacks=tuple(str(fallback) for fallback in row["fallbacks"]),
        runs=tuple(_plain_name(name) for name in row["runs"]),
    )


def _plain_name(name: str) -> str:
    if name in ("", "..") or Path(name).name != name:
        raise ValueError(f"{name!r} is not the name of a directory beside the file")
    return name


def _scalar(value: Any) -> Any:
    """Return a value of a setting: text, a truth value or a finite number."""
    return value if isinstance(value, str | bool) else type(value)(_finite(value))


def _origin(origin: str) -> str:
    if origin not in ORIGINS:
        raise ValueError(f"{origin!r} is not one of {', '.join(ORIGINS)}")
    return origin


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return float(value)
