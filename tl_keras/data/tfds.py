"""Data sets of TensorFlow Datasets (TFDS), read from their prepared directory. TFDS downloads and prepares a missing one."""

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.config import DataConfig
from tl_keras.data.examples import DatasetSource, ImageStore, make_examples
from tl_keras.data.registry import DATASETS
from tl_keras.data.splits import assign_splits
from tl_keras.errors import ConfigError, DamagedError, MissingError, did_you_mean, unknown
from tl_keras.utils import connectivity
from tl_keras.utils.hashing import fingerprint
from tl_keras.utils.progress import announce, is_shown, track
from tl_keras.utils.text import join_names

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

BATCH_SIZE = 1024
SPLITS = ("train", "validation", "test")
SUPERCLASS_LABELS = {"oxford_iiit_pet": "species"}  # set -> the label whose classes are superclasses of its other labels
MAX_LISTED = 10


@dataclass(frozen=True)
class _Task:
    """The features of a set that are read. Without a label of superclasses, `superclass_key` is the key of the label."""

    image_key: str
    label_key: str
    superclass_key: str
    class_names: tuple[str, ...]
    superclass_names: tuple[str, ...]


@dataclass(frozen=True)
class _Records:
    """The records of a split: encoded images, and labels and superclass labels, int64 (n,)."""

    images: list[bytes]
    labels: np.ndarray
    superclass_labels: np.ndarray


def load(config: DataConfig, url: str = "", *, for_scoring: bool = False) -> DatasetSource:
    """Read the encoded images and the chosen label of every split. Nothing is decoded, and a prepared set needs no network.

    Args:
        url: host of the download; default: the homepage of the set in TFDS.

    Raises:
        ConfigError: The set or its label does not exist, or the set is not one of labelled images.
        MissingError: The set is not prepared and cannot be downloaded.
        DamagedError: A file of the prepared set is corrupt or missing.
    """
    set_dir = _root(config) / config.dataset
    directory = _newest_version(set_dir)
    builder = _open(directory) if directory else _fetch(config, url, set_dir)
    task = _find_task(builder.info.features, config)
    names = [name for name in SPLITS if name in builder.info.splits]
    if "train" not in names:
        raise ConfigError(
            f"it has no split named train, only {join_names(builder.info.splits, MAX_LISTED)}.", setting="dataset", value=config.dataset
        )
    return _source(builder, task, {name: _read(builder, name, task) for name in names}, config)


def is_prepared(config: DataConfig) -> bool:
    """Return True if the set is prepared, so that opening it downloads nothing."""
    return _newest_version(_root(config) / config.dataset) is not None


def _root(config: DataConfig) -> Path:
    return Path(config.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser().absolute()


def _newest_version(set_dir: Path) -> Path | None:
    """Return the directory of the newest prepared version that can be read without the code that made it, or None."""
    prepared = [path.parent for path in set_dir.glob("*/dataset_info.json") if (path.parent / "features.json").is_file()]
    versions = {tuple(map(int, path.name.split("."))): path for path in prepared if re.fullmatch(r"\d+\.\d+\.\d+", path.name)}
    return versions[max(versions)] if versions else None


def _open(directory: Path) -> "tfds.core.DatasetBuilder":
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(directory)
    except Exception as error:  # TFDS does not document what it raises for corrupt metadata
        raise DamagedError(
            f"{directory}: dataset_info.json or features.json is corrupt ({_first_line(error)}). {_reprepare_hint(directory)}"
        ) from error


def _fetch(config: DataConfig, url: str, set_dir: Path) -> "tfds.core.DatasetBuilder":
    """Return the builder of a set that TFDS knows by name, and prepare it if necessary."""
    builder = _known_builder(config)
    _find_task(builder.info.features, config)  # errors in the settings come before any download
    if builder.is_prepared():
        return builder
    url = url or builder.info.homepage
    failure = "" if url and connectivity.is_reachable(url) else "its host does not answer"
    try:
        if not failure:
            _prepare(builder)
    except Exception as error:  # the network, the host, a full disk, or a missing package that the set's code imports
        failure = f"preparing it failed: {_first_line(error)}"
    if failure:
        raise MissingError(
            f"The data set {config.dataset} is not prepared in {set_dir}, and {failure} ({url}). Prepare it on a computer with a network, "
            f"with `tfds build {config.dataset}`, and point `data_dir` at the directory that holds {config.dataset}/. "
            "Or use an embedded data set, with `dataset=digits`, or `on_missing=embedded` in an experiment."
        )
    return builder


def _prepare(builder: "tfds.core.DatasetBuilder") -> None:
    """Download and prepare a set. TFDS draws bars of its own, also where standard error is no terminal."""
    import tensorflow_datasets as tfds

    announce(f"downloading and preparing the data set {builder.name} in {builder.data_path}")
    if not is_shown():
        tfds.disable_progress_bar()
    builder.download_and_prepare()


def _known_builder(config: DataConfig) -> "tfds.core.DatasetBuilder":
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(config.dataset, data_dir=_root(config), try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError as error:
        known = {*DATASETS, *_similar(config.dataset, str(error)), "folder:PATH", "csv:PATH", "the name of another TFDS set"}
        raise unknown("data set", config.dataset, known) from None
    except (ValueError, OSError) as error:
        raise ConfigError(f"TFDS cannot open it: {_first_line(error)}.", setting="dataset", value=config.dataset) from error


def _similar(name: str, message: str) -> list[str]:
    """Return names like `name` among those that TFDS's message lists."""
    return difflib.get_close_matches(name, re.findall(r"^\s+- (\w+)$", message, re.MULTILINE))


def _find_task(features: "tfds.features.FeaturesDict", config: DataConfig) -> _Task:
    """Find the image, the chosen label and its superclasses among the features of a set."""
    import tensorflow_datasets as tfds

    found = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    images = [key for key, feature in found.items() if isinstance(feature, tfds.features.Image) and feature.shape[-1] in (1, 3, 4)]
    labels = {key: feature for key, feature in found.items() if isinstance(feature, tfds.features.ClassLabel)}
    if not images or not labels:
        raise ConfigError(
            f"expected images with a class label; its features are {join_names(found, MAX_LISTED) or 'none'}. "
            "Choose an image-classification set.",
            setting="dataset",
            value=config.dataset,
        )
    if config.label not in labels:
        known = join_names(sorted(labels), MAX_LISTED)
        raise ConfigError(f"{config.dataset} has {known}.{did_you_mean(config.label, labels)}", setting="label", value=config.label)
    superclass_key = SUPERCLASS_LABELS.get(config.dataset, "")
    superclass_names = tuple(labels[superclass_key].names) if superclass_key in labels else ()
    return _Task(
        image_key="image" if "image" in images else images[0],
        label_key=config.label,
        superclass_key=superclass_key if superclass_names else config.label,
        class_names=tuple(labels[config.label].names),
        superclass_names=superclass_names,
    )


def _read(builder: "tfds.core.DatasetBuilder", split: str, task: _Task) -> _Records:
    """Read the records of a split, shard after shard."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    columns: dict[str, list[Any]] = {key: [] for key in (task.image_key, task.label_key, task.superclass_key)}
    wanted = tfds.decode.PartialDecoding(dict.fromkeys(columns, True), decoders={task.image_key: tfds.decode.SkipDecoding()})
    in_order = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
    try:
        batches = builder.as_dataset(split=split, decoders=wanted, read_config=in_order).batch(BATCH_SIZE).as_numpy_iterator()
        num_batches = -(-builder.info.splits[split].num_examples // BATCH_SIZE)
        for batch in track(batches, f"reading {builder.name} {split}", num_batches, "batches"):
            for key, column in columns.items():
                column.extend(batch[key])
    except (tf.errors.OpError, OSError, ValueError, KeyError) as error:
        directory = builder.data_path
        raise DamagedError(f"{directory}: the split {split} cannot be read ({_first_line(error)}). {_reprepare_hint(directory)}") from error
    labels, superclass_labels = (np.asarray(columns[key], np.int64) for key in (task.label_key, task.superclass_key))
    if len(labels) and labels.max() >= len(task.class_names):
        raise DamagedError(f"{builder.data_path}: the split {split} has label {labels.max()}, beyond its {len(task.class_names)} classes.")
    return _Records(columns[task.image_key], labels, superclass_labels)


def _source(builder: "tfds.core.DatasetBuilder", task: _Task, records: dict[str, _Records], config: DataConfig) -> DatasetSource:
    encoded = [image for part in records.values() for image in part.images]
    height, width, _ = builder.info.features[task.image_key].shape
    images = ImageStore(encoded, size=(height, width) if height and width else None, name=f"{config.dataset} image")
    examples = make_examples(images, np.concatenate([part.labels for part in records.values()]))
    bounds = np.cumsum([0, *(len(part.labels) for part in records.values())])
    found = {name: examples.subset(np.arange(*bounds[index : index + 2])) for index, name in enumerate(records)}
    splits, notes = assign_splits(found, config.test_fraction)
    header = [builder.name, str(builder.version), config.label, *task.class_names, *(f"{name} {len(found[name])}" for name in found)]
    return DatasetSource(
        name=config.dataset,
        class_names=task.class_names,
        train=splits.train,
        validation=splits.validation,
        test=splits.test,
        fingerprint=fingerprint("\n".join(header), [*encoded, examples.labels]),
        notes=notes,
        superclasses=_superclasses(list(records.values()), task.superclass_names),
    )


def _superclasses(records: list[_Records], names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Return the name of each superclass, in lower case, and the labels that occur with it."""
    labels = np.concatenate([part.labels for part in records])
    superclass_labels = np.concatenate([part.superclass_labels for part in records])
    return {name.lower(): tuple(np.unique(labels[superclass_labels == index]).tolist()) for index, name in enumerate(names)}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def _reprepare_hint(directory: Path) -> str:
    return f"Remove {directory} and prepare the data set again."
