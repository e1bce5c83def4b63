"""Any TFDS set of labelled images, read from its prepared directory; TFDS is asked to fetch and prepare it where it is missing."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tl_keras.config import DataConfig
from tl_keras.data.examples import Images, Source, make_examples
from tl_keras.data.splits import arrange
from tl_keras.errors import ConfigError, DamagedError, MissingError, unknown
from tl_keras.utils import connectivity
from tl_keras.utils.hashing import fingerprint

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

BATCH = 1024
SPLITS = ("train", "validation", "test")
GROUP_LABELS = {"oxford_iiit_pet": "species"}  # the label of a set whose classes are groups of those of its others

Records = tuple[list[bytes], np.ndarray, np.ndarray]  # encoded images, labels, and labels of the groups


def load(config: DataConfig, url: str = "") -> Source:
    """Read the encoded images and the chosen label of every split. Nothing is decoded yet, and a prepared set needs no network.

    Args:
        url: where the set is fetched from; empty: its homepage, as TFDS knows it.

    Raises:
        ConfigError: no such set, no such label, or not labelled images.
        MissingError: not prepared, and it cannot be fetched.
        DamagedError: a file of the prepared set is corrupt or not there.
    """
    place = _root(config) / config.dataset
    directory = _newest_version(place)
    builder = _open(directory, config) if directory else _fetch(config, url, place)
    image_key, class_names = _features(builder.info.features, config)
    group_key = GROUP_LABELS.get(config.dataset, "")
    group_names = builder.info.features[group_key].names if group_key in builder.info.features else []
    names = [name for name in SPLITS if name in builder.info.splits]
    if "train" not in names:
        raise ConfigError(f"it has no split named train, only {', '.join(builder.info.splits)}.", setting="dataset", value=config.dataset)
    keys = (image_key, config.label, group_key if group_names else config.label)
    records = {name: _read(builder, name, keys, len(class_names)) for name in names}
    return replace(_source(builder, image_key, class_names, records, config), groups=_groups(records, group_names))


def is_prepared(config: DataConfig) -> bool:
    """Whether the set lies ready in its directory, so that opening it fetches nothing."""
    return _newest_version(_root(config) / config.dataset) is not None


def _root(config: DataConfig) -> Path:
    return Path(config.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser().absolute()


def _newest_version(place: Path) -> Path | None:
    """The newest version that is prepared and can be read without the code that made it."""
    prepared = [path.parent for path in place.glob("*/dataset_info.json") if (path.parent / "features.json").is_file()]
    versions = {tuple(map(int, path.name.split("."))): path for path in prepared if re.fullmatch(r"\d+\.\d+\.\d+", path.name)}
    return versions[max(versions)] if versions else None


def _open(directory: Path, config: DataConfig) -> "tfds.core.DatasetBuilder":
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(directory)
    except Exception as error:  # what TFDS raises for a corrupt description is not documented
        raise DamagedError(
            f"{directory}: dataset_info.json or features.json is corrupt ({_first_line(error)}). {_again(directory)}"
        ) from error


def _fetch(config: DataConfig, url: str, place: Path) -> "tfds.core.DatasetBuilder":
    """The builder of a set that TFDS knows by name, prepared."""
    builder = _known_builder(config)
    _features(builder.info.features, config)  # before anything is fetched
    if builder.is_prepared():
        return builder
    url = url or builder.info.homepage
    failure = "" if url and connectivity.is_reachable(url) else "its host does not answer"
    try:
        if not failure:
            builder.download_and_prepare()
    except Exception as error:  # the network, the host, a full disk, a package that the set's code wants
        failure = f"preparing it failed: {_first_line(error)}"
    if failure:
        raise MissingError(
            f"The data set {config.dataset} is not prepared in {place}, and {failure} ({url}). Prepare it where there is a network, "
            f"with `tfds build {config.dataset}`, and point `data_dir` at the directory that holds {config.dataset}/; "
            "or use what the package carries, with `dataset=digits`, or `on_missing=embedded` in an experiment."
        )
    return builder


def _known_builder(config: DataConfig) -> "tfds.core.DatasetBuilder":
    import tensorflow_datasets as tfds

    from tl_keras.data.registry import DATASETS

    try:
        return tfds.builder(config.dataset, data_dir=_root(config), try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError as error:
        known = {*DATASETS, *_similar(config.dataset, str(error)), "folder:PATH", "the name of another TFDS set"}
        raise unknown("data set", config.dataset, known) from None
    except (ValueError, OSError) as error:
        raise ConfigError(f"TFDS cannot make it: {_first_line(error)}.", setting="dataset", value=config.dataset) from error


def _similar(name: str, message: str) -> list[str]:
    """Names like `name` among those that TFDS's message lists."""
    import difflib

    return difflib.get_close_matches(name, re.findall(r"^\s+- (\w+)$", message, re.MULTILINE))


def _features(features: "tfds.features.FeaturesDict", config: DataConfig) -> tuple[str, tuple[str, ...]]:
    """The key of the image and the class names of the chosen label."""
    import tensorflow_datasets as tfds

    found = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    images = [key for key, feature in found.items() if isinstance(feature, tfds.features.Image) and feature.shape[-1] in (1, 3, 4)]
    labels = {key: feature for key, feature in found.items() if isinstance(feature, tfds.features.ClassLabel)}
    if not images or not labels:
        raise ConfigError(
            f"expected images with a class label; its features are {', '.join(found) or 'none'}. Choose an image-classification set.",
            setting="dataset",
            value=config.dataset,
        )
    if config.label not in labels:
        raise ConfigError(f"{config.dataset} has {', '.join(sorted(labels))}.", setting="label", value=config.label)
    return "image" if "image" in images else images[0], tuple(labels[config.label].names)


def _read(builder: "tfds.core.DatasetBuilder", split: str, keys: tuple[str, str, str], num_classes: int) -> Records:
    """Encoded images, labels and labels of the groups, both int64 (n,), of a split, shard after shard."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    wanted = tfds.decode.PartialDecoding(dict.fromkeys(keys, True), decoders={keys[0]: tfds.decode.SkipDecoding()})
    reading = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
    columns = [], [], []
    try:
        for batch in builder.as_dataset(split=split, decoders=wanted, read_config=reading).batch(BATCH).as_numpy_iterator():
            for column, key in zip(columns, keys, strict=True):
                column.extend(batch[key])
    except (tf.errors.OpError, OSError, ValueError, KeyError) as error:
        place = builder.data_path
        raise DamagedError(f"{place}: the split {split} cannot be read ({_first_line(error)}). {_again(place)}") from error
    images, labels, groups = columns[0], *(np.asarray(column, np.int64) for column in columns[1:])
    if len(labels) and labels.max() >= num_classes:
        raise DamagedError(f"{builder.data_path}: the split {split} has label {labels.max()}, beyond its {num_classes} classes.")
    return images, labels, groups


def _groups(records: dict[str, Records], group_names: list[str]) -> dict[str, tuple[int, ...]]:
    """Name in lower case -> the labels that occur with it."""
    labels, groups = (np.concatenate([record[column] for record in records.values()]) for column in (1, 2))
    return {name.lower(): tuple(np.unique(labels[groups == number]).tolist()) for number, name in enumerate(group_names)}


def _source(
    builder: "tfds.core.DatasetBuilder", image_key: str, class_names: tuple[str, ...], records: dict[str, Records], config: DataConfig
) -> Source:
    height, width, _ = builder.info.features[image_key].shape
    everything = [image for images, *_ in records.values() for image in images]
    size = (height, width) if height and width else None
    images = Images(everything, size=size, name=f"{config.dataset} image")
    examples = make_examples(images, np.concatenate([labels for _, labels, _ in records.values()]))
    bounds = np.cumsum([0, *(len(labels) for _, labels, _ in records.values())])
    found = {name: examples.take(np.arange(*bounds[index : index + 2])) for index, name in enumerate(records)}
    header = [builder.name, str(builder.version), config.label, *class_names, *(f"{name} {len(found[name])}" for name in found)]
    return Source(
        name=config.dataset,
        class_names=class_names,
        fingerprint=fingerprint("\n".join(header), [*everything, examples.labels]),
        **arrange(found),
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def _again(directory: object) -> str:
    return f"Remove {directory} and prepare the data set again."
