"""The tables that `tl-keras list` prints: the values that flags accept, and the settings of all experiments."""

import ast
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from tl_keras import backbones, data, strategies, weights
from tl_keras.runs.experiment import Experiment
from tl_keras.utils.lr_schedules import SCHEDULES

NameHelpPairs = Iterator[tuple[str, str]]


def _datasets() -> NameHelpPairs:
    for dataset in data.DATASETS.values():
        yield dataset.name, dataset.description
    yield "folder:PATH", "class sub-folders of images, optionally under train/ validation/ test/"
    yield "csv:PATH", "table with columns of images and labels, optionally groups and splits"
    yield "NAME", "any other TFDS image-classification set"


def _backbones() -> NameHelpPairs:
    for backbone in backbones.BACKBONES.values():
        variants = ", ".join(["none", *(file.variant for file in weights.WEIGHTS.get(backbone.name, ()))])
        stages = ", ".join(name for name, _ in backbone.stages)
        yield backbone.name, f"{backbone.image_size} px; weights {variants}; stages {stages}"


def _strategies() -> NameHelpPairs:
    for name, spec in strategies.STRATEGIES.items():
        yield name, spec.help


def _schedules() -> NameHelpPairs:
    for name, spec in SCHEDULES.items():
        yield name, spec.help


def _augmentations() -> NameHelpPairs:
    for entry in data.AUGMENTATIONS.values():
        text = entry.preset or entry.usage
        yield entry.name, entry.description if text == entry.name else f"{text}, {entry.description}"
    yield "NAME:KEY=VALUE,KEY=VALUE", "other values than the defaults above, e.g. rotate:degrees=20"
    yield "NAME+NAME", "one after the other, e.g. crop:padding=2+flip; mixup and cutmix come last, e.g. crop_flip+mixup"


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


def _experiments() -> NameHelpPairs:
    for path in experiment_files():
        yield path.stem, (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


TABLES = {
    "datasets": _datasets,
    "backbones": _backbones,
    "strategies": _strategies,
    "schedules": _schedules,
    "augmentations": _augmentations,
    "experiments": _experiments,
}
