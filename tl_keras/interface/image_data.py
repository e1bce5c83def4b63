"""Labelled images with class names and splits: a folder, a table, or a data set of TFDS. No TensorFlow until images are batched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tl_keras import data
from tl_keras.config import DataConfig, RunConfig
from tl_keras.data.table_file import Table, write_table
from tl_keras.errors import ConfigError, unknown
from tl_keras.results.split_record import SplitRecord
from tl_keras.runs.resolve import SOURCE_SETTINGS, load_source
from tl_keras.runs.run_data import record_split, with_recorded_splits
from tl_keras.utils.files import user_cache_directory

if TYPE_CHECKING:
    import tensorflow as tf

OnCorrupt = Literal["error", "skip"]


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled images, their class names and splits. Immutable; pixels stay in their files.

    Make one with `from_directory`, `from_csv`, `from_dataframe` or `from_tfds`. Files are read once, checked and hashed when a
    property is first asked for. Everything that takes one also takes a text as in the setting `dataset` (`cifar10`,
    `folder:photos`, `csv:photos.csv`) or the path of a folder or CSV file.

    Attributes:
        config: the settings that the images are opened with.
        record: the splits, if they are fixed; None: those of the data set, and a run carves out what is missing.

    Example:
        >>> digits = tl_keras.ImageData.from_tfds("digits")
        >>> len(digits.class_names), sum(digits.counts["test"].values())
        (10, 500)
    """

    config: DataConfig
    record: SplitRecord | None = None

    @classmethod
    def from_directory(
        cls, directory: str | Path, *, on_corrupt: OnCorrupt = "error", links: Literal["inside", "anywhere"] = "inside", group_by: str = ""
    ) -> "ImageData":
        """Return the images of a folder: one sub-folder per class, optionally below train/, validation/ and test/.

        Args:
            directory: the folder.
            on_corrupt: `error`, or `skip` to leave out unreadable files with a note.
            links: `anywhere` allows links that lead out of the folder.
            group_by: regular expression for paths in the folder; files with the same first group stay in one split.

        Raises:
            ConfigError: There is no such folder, or not one of classes.
        """
        return cls(DataConfig(dataset=f"folder:{directory}", on_corrupt=on_corrupt, links=links, group_by=group_by))

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        *,
        image_column: str = "image",
        label_column: str = "label",
        group_column: str = "",
        split_column: str = "",
        group_by: str = "",
        on_corrupt: OnCorrupt = "error",
    ) -> "ImageData":
        """Return the images that a CSV file lists, one per line, with paths relative to its directory.

        Args:
            path: the CSV file, in UTF-8.
            image_column, label_column: columns with the path of the image and the name of its class.
            group_column: column whose equal values stay in one split, e.g. a patient; empty: none.
            split_column: column with train, validation or test; empty: test and validation images are carved out.
            group_by: regular expression for the paths; files with the same first group stay in one split.
            on_corrupt: `error`, or `skip` to leave out unreadable files with a note.
        """
        return cls(
            DataConfig(
                dataset=f"csv:{path}",
                image_column=image_column,
                label_column=label_column,
                group_column=group_column,
                split_column=split_column,
                group_by=group_by,
                on_corrupt=on_corrupt,
            )
        )

    @classmethod
    def from_dataframe(
        cls,
        frame: Mapping[str, Sequence[Any]],
        *,
        image_column: str = "image",
        label_column: str = "label",
        group_column: str | None = None,
        split_column: str | None = None,
        directory: str | Path = ".",
        class_names: Sequence[str] | None = None,
        on_corrupt: OnCorrupt = "error",
    ) -> "ImageData":
        """Return the images that a table lists: anything with `frame[column]`, e.g. a dict of lists or a DataFrame.

        The table is kept in the user's cache directory, and a run keeps a copy, so neither needs the frame again.

        Args:
            frame: column -> cells.
            image_column, label_column, group_column, split_column: as in `from_csv`.
            directory: directory that relative paths begin at.
            class_names: names of the classes in their order; None: all labels, sorted as text.
            on_corrupt: `error`, or `skip` to leave out unreadable files with a note.

        Raises:
            ConfigError: A column is absent, a cell is empty, or columns differ in length.
        """
        table = Table.from_columns(
            frame,
            image_column=image_column,
            label_column=label_column,
            group_column=group_column,
            split_column=split_column,
            directory=directory,
            class_names=class_names,
        )
        target = user_cache_directory() / "tables" / table.name.rpartition(":")[2]
        return cls(DataConfig(dataset=write_table(target, table), data_dir=str(target), on_corrupt=on_corrupt))

    @classmethod
    def from_tfds(cls, name: str, *, label: str = "label", data_dir: str | Path | None = None) -> "ImageData":
        """Return a data set of TFDS, or a bundled one, by its name. It is read when it is first used.

        Args:
            name: a name of `list_available("datasets")`, or of another TFDS set of labelled images.
            label: label to learn, e.g. `species` of oxford_iiit_pet.
            data_dir: directory of prepared data sets; None: TFDS's own default.
        """
        return cls(DataConfig(dataset=name, label=label, data_dir=str(data_dir or "")))

    @cached_property
    def source(self) -> data.DatasetSource:
        """The opened data set, with the fixed splits if there are any."""
        source = load_source(self.config)
        return source if self.record is None else with_recorded_splits(self.record, source)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of labels."""
        return self.source.class_names

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content: names, labels and images."""
        return self.source.fingerprint

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the data: skipped files, copies, pictures under two labels."""
        return self.source.notes

    @cached_property
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Number of images of each class in each split: split -> class -> images."""
        return {
            name: {self.class_names[label]: number for label, number in examples.class_counts.items()}
            for name, examples in self.source.splits.items()
        }

    def split(self, *, validation_fraction: float = 0.1, test_fraction: float = 0.2, seed: int = 0) -> "ImageData":
        """Return the same images with fixed splits, stratified, whole groups together.

        A test or validation split that the data set has itself is kept.

        Args:
            validation_fraction: fraction of the images that are not for testing; 0: no validation split.
            test_fraction: fraction of all images.
            seed: decides which images are for validation. It never moves the test split.
        """
        config = replace(self.config, validation_fraction=validation_fraction, test_fraction=test_fraction)
        source = load_source(config)
        record = record_split(source, data.make_splits(source, config, seed))
        return ImageData(replace(self.config, test_fraction=test_fraction), record)

    def to_tf_dataset(
        self, split: str, *, image_size: int, batch_size: int = 32, augmentation: str = "none", shuffle_seed: int | None = None
    ) -> "tf.data.Dataset":
        """Return batches for `model.fit`, as `keras.utils.image_dataset_from_directory` does.

        Args:
            split: `train`, `validation` or `test`.
            image_size: side in pixels that the shorter side is resized to; the centre is cropped.
            batch_size: images per batch; the last batch may be smaller.
            augmentation: as the setting; `mixup` and `cutmix` are refused, since labels are class numbers here.
            shuffle_seed: seed of order and augmentation, which differ between iterations; None: in order, not augmented.

        Returns:
            Batches (images float32 RGB (b, image_size, image_size, 3) in 0..255, labels int32 (b,)).

        Raises:
            ConfigError: The data set has no such split, or settings exclude each other.
        """
        splits = self.source.splits
        if split not in splits:
            raise unknown("split", split, splits)
        if augmentation != "none" and shuffle_seed is None:
            raise ConfigError("augmented images need a seed: give `shuffle_seed`.", setting="augmentation", value=augmentation)
        from tl_keras.interface import batches

        return batches.make_batches(splits[split], image_size, batch_size, augmentation, shuffle_seed, len(self.class_names))

    def __repr__(self) -> str:
        return f"ImageData({self.config.dataset!r}{', fixed splits' if self.record else ''})"

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "record": self.record}  # The opened data set is not pickled.


def as_image_data(images: "ImageData | str | Path") -> ImageData:
    """Return the images that a text like the setting `dataset`, or the path of a folder or CSV file, stands for."""
    if isinstance(images, ImageData):
        return images
    if isinstance(images, Path):
        return ImageData.from_csv(images) if images.suffix.lower() == ".csv" else ImageData.from_directory(images)
    if isinstance(images, str):
        return ImageData(DataConfig(dataset=images))
    raise TypeError(f"expected ImageData, a text like the setting `dataset`, or a Path; received {type(images).__name__}")


def data_settings(images: ImageData) -> dict[str, Any]:
    """Return the settings that say how `images` are opened, by name."""
    own = RunConfig(data=images.config).to_dict()
    return {name: own[name] for name in SOURCE_SETTINGS}
