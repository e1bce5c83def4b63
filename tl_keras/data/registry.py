"""The table of data sets, and `load_source`, which opens one of them. TensorFlow is loaded by the TFDS loader only."""

import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tl_keras.config import DataConfig, unused_settings
from tl_keras.data import folder, table
from tl_keras.data.examples import DatasetSource
from tl_keras.errors import ConfigError, did_you_mean, unknown

TABLE_NAME = re.compile(r"table:[0-9a-f]{16}")
TFDS_NAME = re.compile(r"[a-z][a-z0-9_]*(/[A-Za-z0-9_.-]+)?")
CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class DatasetInfo:
    """An entry of `DATASETS`.

    Attributes:
        name: value of the setting `dataset`.
        description: images, classes, authors, licence.
        loader: module of this package whose `load(config, url)` returns the data set.
        labels: allowed values of the setting `label`. Empty: known only after the data set is opened.
        crops: True for photographs that are cropped by default, as the test images of the weights were. Other images are not: small
            ones, and those of users, whose objects may touch the border.
        url: host of the download. It is contacted before a download is tried.
    """

    name: str
    description: str
    loader: str
    labels: tuple[str, ...] = ("label",)
    crops: bool = False
    url: str = ""


_ENTRIES = (
    DatasetInfo("cifar10", "60,000 photographs of 32 px in 10 classes (Krizhevsky 2009)", "tfds", url=CIFAR_URL),
    DatasetInfo(
        "cifar100",
        "60,000 photographs of 32 px in 100 classes, or 20 with `label=coarse_label` (Krizhevsky 2009)",
        "tfds",
        labels=("label", "coarse_label"),
        url=CIFAR_URL,
    ),
    DatasetInfo(
        "oxford_iiit_pet",
        "7,349 photographs of 37 breeds, or of cats and dogs with `label=species` (Parkhi et al. 2012, CC BY-SA 4.0)",
        "tfds",
        labels=("label", "species"),
        crops=True,
        url="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    ),
    DatasetInfo(
        "digits",
        "embedded: 1,797 handwritten digits of 8 px, or even and odd ones with `label=parity` (Alpaydin and Kaynak 1998, CC BY 4.0)",
        "digits",
        labels=("label", "parity"),
    ),
    DatasetInfo("glyphs", "embedded: 12,400 letters and digits of 8 px, rendered from matplotlib's fonts", "glyphs"),
)
DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def find_dataset(config: DataConfig) -> DatasetInfo:
    """Return the entry of `config.dataset`. Folders, tables and TFDS sets outside `DATASETS` get a new entry. Loads no TensorFlow.

    Raises:
        ConfigError: The name is malformed, the folder or the file does not exist, or the data set has no such label or no such columns.
    """
    dataset = _find_entry(config.dataset)
    if dataset.labels and config.label not in dataset.labels:
        advice = " The column of the labels is `label_column`." if dataset.loader == "table" else ""
        raise ConfigError(
            f"{dataset.name} has {', '.join(dataset.labels)}.{did_you_mean(config.label, dataset.labels)}{advice}",
            setting="label",
            value=config.label,
        )
    for name, default in unused_settings(config.dataset).items():
        if (value := getattr(config, name)) != default:
            raise ConfigError(f"{dataset.name} {_reason(name, dataset.loader)}", setting=name, value=value)
    return dataset


def _reason(setting: str, loader: str) -> str:
    """Return the end of the message on a setting that a data set does not have."""
    if setting == "group_by":
        return "has no file names. Leave it out."
    if setting == "group_column" and loader == "folder":
        return "has no columns. Use `group_by`, a pattern for the paths of its images, or a table, `dataset=csv:PATH`."
    if loader == "table":
        return "has the columns that it was made with. Leave it out."
    return "has no columns. Leave it out, or use a table, `dataset=csv:PATH`."


def _find_entry(name: str) -> DatasetInfo:
    if name.startswith(folder.PREFIX):
        folder.find(name)
        return DatasetInfo(name, "a folder of images", "folder")
    if name.startswith(table.CSV_PREFIX):
        table.find(name)
        return DatasetInfo(name, "a table of images", "table")
    if TABLE_NAME.fullmatch(name):
        return DatasetInfo(name, "a table of images", "table")
    if name and name not in DATASETS and os.path.isfile(os.path.expanduser(name)):
        raise ConfigError(f"it is a file here. If it is a table, write `dataset=csv:{name}`.", setting="dataset", value=name)
    if name and name not in DATASETS and os.path.isdir(os.path.expanduser(name)):
        raise ConfigError(
            f"it is a folder here. Write `dataset=folder:{name}`; for a TFDS set of this name, work in another directory.",
            setting="dataset",
            value=name,
        )
    base, colon, version = name.partition(":")
    if colon and TFDS_NAME.fullmatch(base) and re.fullmatch(r"[\d.*]+", version):
        raise ConfigError(
            f"a version is not chosen by name; the newest that is prepared is read. Write `dataset={base}`.", setting="dataset", value=name
        )
    if name.lower() in DATASETS and name not in DATASETS:
        raise ConfigError(f"names are in lower case. Write `dataset={name.lower()}`.", setting="dataset", value=name)
    if not TFDS_NAME.fullmatch(name):
        raise unknown("data set", name, [*DATASETS, "folder:PATH", "csv:PATH", "the name of a TFDS set"])
    return DATASETS.get(name) or DatasetInfo(name, "a TFDS set", "tfds", labels=())


def load_source(config: DataConfig, *, for_scoring: bool = False) -> DatasetSource:
    """Open the data set of `config`. A missing TFDS set is downloaded if its host answers.

    Args:
        config: only `runs.resolve.SOURCE_SETTINGS` and `extra_classes` are used.
        for_scoring: True if nothing is trained on the data set: of a folder or a table without a test split, every image is for
            testing, and a single class is enough.

    Raises:
        ConfigError: The name or the label is unknown, or the data set is not one of labelled images.
        MissingError: The data set is absent and cannot be downloaded. The message says how to get it.
        DamagedError: The data set is corrupt.
    """
    dataset = find_dataset(config)
    source: DatasetSource = importlib.import_module(f"tl_keras.data.{dataset.loader}").load(config, dataset.url, for_scoring=for_scoring)
    return source.with_extra_classes(config.extra_classes)


def state_of(config: DataConfig) -> int:
    """Return a number that changes when files of a folder or a table do, by their names, sizes and times. Others have 0."""
    loader = find_dataset(config).loader
    return {"folder": folder.state_of, "table": table.state_of}[loader](config) if loader in ("folder", "table") else 0
