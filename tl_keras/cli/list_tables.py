"""The tables that `tl-keras list` prints: the values that flags accept."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tl_keras import backbones, data, strategies, weights
from tl_keras.utils.lr_schedules import SCHEDULES

NameHelpPairs = Iterator[tuple[str, str]]


def _datasets() -> NameHelpPairs:
    for dataset in data.DATASETS.values():
        yield dataset.name, dataset.description
    yield "folder:PATH", "class sub-folders of images, optionally under train/ validation/ test/"
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
    for augmentation in data.AUGMENTATIONS.values():
        help = augmentation.description
        yield augmentation.usage, f"{augmentation.preset}, {help}" if augmentation.preset else help
    yield "NAME:KEY=VALUE,KEY=VALUE", "other values than the defaults above, e.g. rotate:degrees=20"
    yield "NAME+NAME", "one after the other, e.g. crop:padding=2+flip; mixup and cutmix come last, e.g. crop_flip+mixup"


def experiment_files() -> list[Path]:
    """Return the modules of `experiments`. They are not imported, since each would define its flags."""
    import importlib.util

    spec = importlib.util.find_spec("experiments")
    folders = [Path(path) for path in spec.submodule_search_locations] if spec and spec.submodule_search_locations else []
    return sorted(path for folder in folders for path in folder.glob("[!_]*.py"))


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
