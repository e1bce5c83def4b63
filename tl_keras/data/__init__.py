"""Images to train and test on: sources, splits, sampling, augmentation and the input pipeline.

    sources       tfds, folder, digits, glyphs: each gives a `Source` of `Examples` (examples), found by `load_source`
    splits        who trains, validates and tests; which share of a class is kept
    sampling      which examples an epoch has, in which order
    augment       the table of augmentations; draws (random numbers), operations (on images), policies (RandAugment, AugMix), mixing
    pipeline      batches of all that, resized
    sheet         a picture of what an augmentation does

TensorFlow is loaded by what computes (`pipeline`, `augment`'s functions, the TFDS source), never by the tables of names.
"""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from tl_keras.config import DataConfig
from tl_keras.data import folder
from tl_keras.data.augmentation import AUGMENTATIONS, Augmentation, get_augmentation
from tl_keras.data.decode import decode_image
from tl_keras.data.examples import Examples, Images, Source, make_examples
from tl_keras.data.sampling import epoch_size
from tl_keras.data.splits import Splits, make_splits, parse_keep
from tl_keras.errors import ConfigError, unknown

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "Augmentation",
    "Dataset",
    "Examples",
    "Images",
    "Source",
    "Splits",
    "decode_image",
    "epoch_size",
    "find_dataset",
    "get_augmentation",
    "load_source",
    "make_examples",
    "make_splits",
    "parse_keep",
]

TFDS_NAME = re.compile(r"[a-z][a-z0-9_]*(/[A-Za-z0-9_.-]+)?")


@dataclass(frozen=True)
class Dataset:
    """A row of `DATASETS`.

    Attributes:
        name: as in `--dataset`.
        description: images, classes, authors, licence.
        loader: the module of this package whose `load(config)` gives the Source.
        labels: those that `--label` may name; empty: known only when it is opened.
        crop_fraction: share of the shorter side that the centre crop keeps by default.
        url: where it is fetched from; asked for an answer before a download is tried.
    """

    name: str
    description: str
    loader: str
    labels: tuple[str, ...] = ("label",)
    crop_fraction: float = 1.0
    url: str = ""


_ROWS = (
    Dataset(
        "cifar10", "60,000 photographs of 32 px in 10 classes (Krizhevsky 2009)", "tfds", url="https://www.cs.toronto.edu/~kriz/cifar.html"
    ),
    Dataset(
        "cifar100",
        "60,000 photographs of 32 px in 100 classes, or 20 with `label=coarse_label` (Krizhevsky 2009)",
        "tfds",
        labels=("label", "coarse_label"),
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    Dataset(
        "oxford_iiit_pet",
        "7,349 photographs of 37 breeds, or of cats and dogs with `label=species` (Parkhi et al. 2012, CC BY-SA 4.0)",
        "tfds",
        labels=("label", "species"),
        crop_fraction=0.875,
        url="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    ),
    Dataset(
        "digits",
        "embedded: 1,797 handwritten digits of 8 px, or even and odd ones with `label=parity` (Alpaydin and Kaynak 1998, CC BY 4.0)",
        "digits",
        labels=("label", "parity"),
    ),
    Dataset("glyphs", "embedded: 12,400 letters and digits of 8 px, rendered from matplotlib's fonts", "glyphs"),
)
DATASETS: Mapping[str, Dataset] = MappingProxyType({row.name: row for row in _ROWS})


def find_dataset(config: DataConfig) -> Dataset:
    """The row of `config.dataset`, or one made for a folder or another TFDS set; fast, without TensorFlow.

    Raises:
        ConfigError: the name cannot be one, the folder is not there, or the set has no such label.
    """
    dataset = _row(config.dataset)
    if dataset.labels and config.label not in dataset.labels:
        raise ConfigError(f"{dataset.name} has {', '.join(dataset.labels)}.", setting="label", value=config.label)
    return dataset


def _row(name: str) -> Dataset:
    if name.startswith(folder.PREFIX):
        folder.find(name)
        return Dataset(name, "a folder of images", "folder")
    if not TFDS_NAME.fullmatch(name):
        raise unknown("data set", name, [*DATASETS, "folder:PATH", "the name of a TFDS set"])
    return DATASETS.get(name) or Dataset(name, "a TFDS set", "tfds", labels=())


def load_source(config: DataConfig) -> Source:
    """Find, check and open the data set of `config`; TFDS sets are fetched where they are missing and their host answers.

    Of `config`, only dataset, data_dir, label and on_corrupt matter here.

    Raises:
        ConfigError: an unknown name or label, or not labelled images.
        MissingError: not at hand, and cannot be fetched; the message says how to get it.
        DamagedError: there, but corrupt.
    """
    dataset = find_dataset(config)
    source = importlib.import_module(f"tl_keras.data.{dataset.loader}").load(config, dataset.url)
    return replace(source, crop_fraction=dataset.crop_fraction)
