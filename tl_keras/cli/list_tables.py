"""The tables that `tl-keras list` prints: the values that flags accept, and the settings of all experiments."""

import ast
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import tl_keras
from tl_keras.errors import unknown
from tl_keras.runs.experiment import Experiment


def experiment_files() -> list[Path]:
    """Return the files of the modules of `experiments`, without importing them."""
    spec = importlib.util.find_spec("experiments")
    folders = [Path(path) for path in spec.submodule_search_locations] if spec and spec.submodule_search_locations else []
    return sorted(path for folder in folders for path in folder.glob("[!_]*.py"))


def experiments() -> list[Experiment]:
    """Import the modules of `experiments`, and return their experiments by name. Loads no TensorFlow."""
    return [importlib.import_module(f"experiments.{path.stem}").EXPERIMENT for path in experiment_files() if path.stem != "all"]


SETTINGS_HEADINGS = ("experiment", "row", "setting", "value", "origin")


def settings_table(chosen: Sequence[Experiment]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of a table of all settings of all rows in the profile `paper`, the headings first."""
    yield SETTINGS_HEADINGS
    for experiment in chosen:
        rows = experiment.configure({})
        for row, settings in zip(rows, experiment.settings_of(rows), strict=True):
            for name, (value, origin) in settings.items():
                yield (experiment.name, row.label, name, str(value), origin)


def count_rows(chosen: Sequence[Experiment]) -> str:
    """Return the number of rows, and of those with published values, e.g. `6 rows in 1 experiment, 6 with published values`."""
    rows = [row for experiment in chosen for row in experiment.configure({})]
    num_published = sum(bool(row.published or row.published_curve) for row in rows)
    return f"{len(rows)} rows in {len(chosen)} experiment{'s' * (len(chosen) != 1)}, {num_published} with published values"


TABLES = ("datasets", "backbones", "strategies", "schedules", "augmentations", "experiments")


def read_table(name: str) -> dict[str, str]:
    """Return the names of a table with their descriptions; ConfigError if there is no such table."""
    if name not in TABLES:
        raise unknown("table", name, TABLES)
    if name != "experiments":
        return tl_keras.list_available(cast(Any, name))
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0] for path in experiment_files()}
