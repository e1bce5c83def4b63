"""The tables that `tl-keras list` prints: the values that flags accept, and the settings of all experiments."""

import ast
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import tl_keras
from tl_keras.errors import unknown
from tl_keras.runs.experiment import Experiment, RunSpec


def experiment_files() -> list[Path]:
    """Return the files of the modules of `experiments`, without importing them."""
    spec = importlib.util.find_spec("experiments")
    folders = [Path(path) for path in spec.submodule_search_locations] if spec and spec.submodule_search_locations else []
    return sorted(path for folder in folders for path in folder.glob("[!_]*.py"))


def experiments() -> list[Experiment]:
    """Import the modules of `experiments`, and return their experiments by name. Loads no TensorFlow."""
    return [importlib.import_module(f"experiments.{path.stem}").EXPERIMENT for path in experiment_files() if path.stem != "all"]


SETTINGS_HEADINGS = ("experiment", "row", "setting", "value", "origin")


def settings_table(chosen: Sequence[Experiment], rows: Sequence[Sequence[RunSpec]]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of a table of all settings of the rows of each experiment, the headings first."""
    yield SETTINGS_HEADINGS
    for experiment, specs in zip(chosen, rows, strict=True):
        for row, settings in zip(specs, experiment.settings_of(specs), strict=True):
            for name, (value, origin) in settings.items():
                yield (experiment.name, row.label, name, str(value), origin)


def count_rows(rows: Sequence[Sequence[RunSpec]]) -> str:
    """Return the number of rows, and of those with published values, e.g. `6 rows in 1 experiment, 6 with published values`."""
    specs = [row for of_experiment in rows for row in of_experiment]
    num_published = sum(bool(row.published or row.published_curve) for row in specs)
    return f"{len(specs)} rows in {len(rows)} experiment{'s' * (len(rows) != 1)}, {num_published} with published values"


TABLES = ("datasets", "backbones", "strategies", "schedules", "augmentations", "experiments")


def read_table(name: str) -> dict[str, str]:
    """Return the names of a table with their descriptions; ConfigError if there is no such table."""
    if name not in TABLES:
        raise unknown("table", name, TABLES)
    if name != "experiments":
        return tl_keras.list_available(cast(Any, name))
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0] for path in experiment_files()}
