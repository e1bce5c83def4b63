"""The names that settings accept, with descriptions, and the reports of finished experiments. No TensorFlow."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from tl_keras import backbones, data, strategies, weights
from tl_keras.errors import unknown
from tl_keras.utils.lr_schedules import SCHEDULES

Kind = Literal["augmentations", "backbones", "datasets", "schedules", "strategies", "weights"]
NameHelpPairs = Iterable[tuple[str, str]]


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
    return ((name, spec.help) for name, spec in strategies.STRATEGIES.items())


def _schedules() -> NameHelpPairs:
    return ((name, spec.help) for name, spec in SCHEDULES.items())


def _augmentations() -> NameHelpPairs:
    for entry in data.AUGMENTATIONS.values():
        text = entry.preset or entry.usage
        yield entry.name, entry.description if text == entry.name else f"{text}, {entry.description}"
    yield "NAME:KEY=VALUE,KEY=VALUE", "other values than the defaults above, e.g. rotate:degrees=20"
    yield "NAME+NAME", "one after the other, e.g. crop:padding=2+flip; mixup and cutmix come last, e.g. crop_flip+mixup"


def _weights() -> NameHelpPairs:
    for name, files in weights.WEIGHTS.items():
        for file in files:
            yield f"{name} {file.variant}", f"{file.licence}; {file.url or 'bundled'}"


TABLES: Mapping[str, Callable[[], NameHelpPairs]] = MappingProxyType(
    {
        "datasets": _datasets,
        "backbones": _backbones,
        "strategies": _strategies,
        "schedules": _schedules,
        "augmentations": _augmentations,
        "weights": _weights,
    }
)


def list_available(kind: Kind) -> dict[str, str]:
    """Return the names that a setting accepts, with descriptions.

    Args:
        kind: `augmentations`, `backbones`, `datasets`, `schedules`, `strategies` or `weights`. Those of weights are the backbone and
            the variant.

    Raises:
        ConfigError: There is no such table.

    Example:
        >>> tl_keras.list_available("strategies")["head"]
        'train the head alone'
    """
    if kind not in TABLES:
        raise unknown("table", kind, TABLES)
    return dict(TABLES[kind]())


def write_report(runs_dir: str | Path) -> list[Path]:
    """Write the reports of the experiments below `runs_dir` again, from the results of their runs, and combine them.

    Args:
        runs_dir: directory of one experiment or of several.

    Returns:
        The files, the pages first.

    Raises:
        ConfigError: There is no experiment.
        DamagedError: A result cannot be read.

    Example:
        >>> tl_keras.write_report("nowhere")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ConfigError: no experiment
    """
    from tl_keras.report import write_reports

    return write_reports(Path(runs_dir).expanduser())
