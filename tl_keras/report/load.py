"""`experiment.json`: which runs in a directory belong to an experiment, so that its report can be made anew."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.errors import ConfigError, DamagedError
from tl_keras.report.experiment_results import METRICS, PAPER, ExperimentResults, Row, Run
from tl_keras.results.run_directory import RESULT, load_result, read_history, read_json, try_load_result, write_json

if TYPE_CHECKING:
    from tl_keras.runs import experiment as experiments

SCHEMA = 2
EXPERIMENT_FILE = "experiment.json"


def collect(
    experiment: "experiments.Experiment",
    rows: Sequence["experiments.Row"],
    seeds: Sequence[int],
    directory: Path,
    *,
    embedded: bool,
    command: str,
    departures: Sequence[str] = (),
    profile: str = PAPER,
) -> ExperimentResults:
    """Find the run of every row and seed in `directory` by its label and configuration, and write `experiment.json`.

    Raises:
        ConfigError: a run is missing or not finished.
    """
    finished = _finished_runs(directory)
    index = {"schema": SCHEMA, "name": experiment.name, "title": experiment.title, "question": experiment.question}
    index |= {"command": command, "embedded": embedded, "departures": list(departures), "profile": profile, "rows": []}
    for row in rows:
        facts = {name: getattr(row, name) for name in ("label", "group", "x")}
        facts |= {"reported": dict(row.reported), "reported_curve": dict(row.reported_curve), "stand_ins": list(row.stand_ins)}
        index["rows"].append(facts | {"runs": [_find(finished, directory, row, seed) for seed in seeds]})
    write_json(directory / EXPERIMENT_FILE, index)
    return load_experiment(directory / EXPERIMENT_FILE)


def _finished_runs(directory: Path) -> dict[tuple[str, str], str]:
    """(label, identity) -> name of the directory, of every finished run in `directory`."""
    paths = sorted(path.parent for path in directory.glob(f"*/{RESULT}"))
    found = {path.name: result for path in paths if (result := try_load_result(path))}
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
    return Run(path, load_result(path), read_history(path))


def _read_index(index: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The fields of ExperimentResults but the rows, and those of each Row with the names of its runs."""
    rows = [_read_row(row) for row in index["rows"]]
    if index["schema"] != SCHEMA or not rows or not all(row["runs"] for row in rows):
        raise ValueError(f"expected schema {SCHEMA} and at least one run in each row")
    facts = {name: str(index[name]) for name in ("name", "title", "question", "command", "profile")}
    departures = tuple(str(departure) for departure in index["departures"])
    return facts | {"embedded": bool(index["embedded"]), "departures": departures}, rows


def _read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    curve = row["reported_curve"].items()
    return {
        "label": str(row["label"]),
        "group": str(row["group"]),
        "x": None if row["x"] is None else _finite(row["x"]),
        "reported": {METRICS[METRICS.index(metric)]: _finite(value) for metric, value in row["reported"].items()},
        "reported_curve": {int(epoch): (_finite(loss), _finite(accuracy)) for epoch, (loss, accuracy) in curve},
        "stand_ins": tuple(str(stand_in) for stand_in in row["stand_ins"]),
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
