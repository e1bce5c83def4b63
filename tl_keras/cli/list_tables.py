"""What `tl-keras list` prints: the names that the flags accept, from the tables that define them."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tl_keras import backbones, data, strategies, weights

Entries = Iterator[tuple[str, str]]


def _datasets() -> Entries:
    for row in data.DATASETS.values():
        yield row.name, row.description
    yield "folder:PATH", "class sub-folders of images, optionally under train/ validation/ test/"
    yield "NAME", "any other TFDS image-classification set"


def _backbones() -> Entries:
    for row in backbones.BACKBONES.values():
        variants = ", ".join(["none", *(file.variant for file in weights.WEIGHTS.get(row.name, ()))])
        yield row.name, f"{row.image_size} px; weights {variants}; stages {', '.join(name for name, _ in row.stages)}"


def _strategies() -> Entries:
    for name, form in strategies.STRATEGIES.items():
        yield name, form.help


def _augmentations() -> Entries:
    for row in data.AUGMENTATIONS.values():
        yield row.name, row.description
    yield "NAME+NAME", "one after the other, e.g. crop_flip+cutout; what mixes images comes last, e.g. crop_flip+mixup"


def experiment_files() -> list[Path]:
    """The modules of `experiments`, found and not imported: each would make its flags."""
    import importlib.util

    spec = importlib.util.find_spec("experiments")
    folders = [Path(place) for place in spec.submodule_search_locations] if spec and spec.submodule_search_locations else []
    return sorted(path for folder in folders for path in folder.glob("[!_]*.py"))


def _experiments() -> Entries:
    for path in experiment_files():
        yield path.stem, (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


TABLES = {
    "datasets": _datasets,
    "backbones": _backbones,
    "strategies": _strategies,
    "augmentations": _augmentations,
    "experiments": _experiments,
}
