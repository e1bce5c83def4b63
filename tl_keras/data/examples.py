"""What a source of images gives: class names, and examples for each split. No TensorFlow."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from tl_keras.data.decode import decode_image
from tl_keras.errors import DamagedError

MEMORY_BUDGET = 2**30

Records = Sequence[bytes] | Sequence[Path] | np.ndarray


class Images:
    """Images that are decoded when they are asked for, and kept while they fit `MEMORY_BUDGET`. Safe to read from several threads.

    Args:
        records: encoded images, files, or pixels uint8 (n, height, width, 3).
        size: (height, width) where all images have the same.
        name: what error messages call a record.
    """

    def __init__(self, records: Records, *, size: tuple[int, int] | None = None, name: str = "image"):
        self.records, self.name = records, name
        self.size = records.shape[1:3] if isinstance(records, np.ndarray) else size
        self._decoded: list[np.ndarray | None] = [None] * len(records)
        self._left = MEMORY_BUDGET
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> np.ndarray:
        """Image `index`, uint8 (height, width, 3); DamagedError where it cannot be decoded."""
        record = self.records[index]
        if isinstance(record, np.ndarray):
            return record
        if (kept := self._decoded[index]) is not None:
            return kept
        name = str(record) if isinstance(record, Path) else f"{self.name} {index}"
        image = decode_image(record, name)
        if self.size and image.shape[:2] != self.size:
            raise DamagedError(f"{name}: expected {self.size} pixels (height, width), received {image.shape[:2]}.")
        self._keep(index, image)
        return image

    def _keep(self, index: int, image: np.ndarray) -> None:
        with self._lock:
            if self._decoded[index] is None and image.nbytes <= self._left:
                self._left -= image.nbytes
                self._decoded[index] = image


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled images: some of those of a source, which all subsets share.

    Attributes:
        images: all images of the source.
        indices: int64 (n,), where each example lies in `images`.
        labels: int64 (n,).
    """

    images: Images
    indices: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) where all images have the same."""
        return self.images.size

    def take(self, positions: np.ndarray) -> "Examples":
        """The examples at `positions` (m,), in that order."""
        return Examples(self.images, self.indices[positions], self.labels[positions])

    def image(self, position: int) -> np.ndarray:
        """One image, uint8 (height, width, 3)."""
        return self.images[int(self.indices[position])]

    def stack(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at `positions`, which have one size: uint8 (m, height, width, 3)."""
        return np.stack([self.image(position) for position in positions])

    @cached_property
    def class_counts(self) -> dict[int, int]:
        """label -> number of examples, of the labels that occur."""
        labels, counts = np.unique(self.labels, return_counts=True)
        return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def make_examples(images: Images, labels: Sequence[int] | np.ndarray) -> Examples:
    """All `images` with their `labels`."""
    return Examples(images, np.arange(len(images)), np.asarray(labels, np.int64))


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as it was found.

    Attributes:
        name: what the user called it.
        class_names: of the labels 0, 1, ...
        train, validation, test: the splits; validation is None where the source has none of its own.
        fingerprint: SHA-256 of class names, images and labels; another content, another fingerprint.
        crop_fraction: share of the shorter side that the centre crop keeps, unless the user says otherwise.
        embedded: whether the package carries it, so that its figures are comparable with nothing else.
        notes: what a reader of the results must know about the data.
        groups: name -> labels of the classes that have it in common, e.g. cat and dog among breeds.
    """

    name: str
    class_names: tuple[str, ...]
    train: Examples
    validation: Examples | None
    test: Examples
    fingerprint: str
    crop_fraction: float = 1.0
    embedded: bool = False
    notes: tuple[str, ...] = ()
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
