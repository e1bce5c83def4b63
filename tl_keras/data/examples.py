"""Labelled images of a data set: a store of decoded images, subsets of it, and the data set as a whole. No TensorFlow."""

import hashlib
import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tl_keras.data.decode import decode_image, read_bytes
from tl_keras.errors import DamagedError

MEMORY_BUDGET = 2**30  # bytes of decoded images that one store keeps

Records = Sequence[bytes] | Sequence[Path] | Sequence[np.ndarray] | np.ndarray


def content_digest(content: bytes | np.ndarray) -> bytes:
    """Return a hash of encoded bytes or of pixels, 8 bytes: enough to tell the images of a data set apart."""
    return hashlib.blake2b(np.ascontiguousarray(content) if isinstance(content, np.ndarray) else content, digest_size=8).digest()


class ImageStore:
    """All images of a data set. They are decoded on first access and kept in memory up to `MEMORY_BUDGET`. Thread-safe.

    Args:
        records: encoded images, image files, or pixels uint8 (height, width, 3), as a list or as one array.
        size: (height, width) if all images have one size, else None. Pixels bring their own size.
        name: name of a record in error messages.
        paths: for files, their printable paths in the data set; empty for records without names.
        digests: for files, hashes of their content of 8 bytes each; by default those of `content_digest`.
        groups: number of the group of each record, int64 (n,), whose images belong in one split; None: there are no groups.
        thumbnails: for files, uint8 (n, pixels), see `near_copies`; None: there are none.
    """

    def __init__(
        self,
        records: Records,
        *,
        size: tuple[int, int] | None = None,
        name: str = "image",
        paths: Sequence[str] = (),
        digests: Sequence[bytes] = (),
        groups: np.ndarray | None = None,
        thumbnails: np.ndarray | None = None,
    ):
        self.records, self.name, self.paths, self.groups, self._digests = records, name, paths, groups, digests
        self.thumbnails = thumbnails
        self.size = records.shape[1:3] if isinstance(records, np.ndarray) else size
        self._decoded: list[np.ndarray | None] = [None] * len(records)
        self._bytes_left = MEMORY_BUDGET
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def digests(self) -> np.ndarray:
        """Hash of the content of each record, uint64 (n,)."""
        digests = self._digests or [content_digest(read_bytes(record) if isinstance(record, Path) else record) for record in self.records]
        return np.frombuffer(b"".join(digests), "<u8")

    def __getitem__(self, index: int) -> np.ndarray:
        """Return image `index`, uint8 (height, width, 3).

        Raises:
            DamagedError: The image cannot be decoded, or has another size than the store.
        """
        record = self.records[index]
        if isinstance(record, np.ndarray):
            return record
        if (image := self._decoded[index]) is not None:
            return image
        name = str(record) if isinstance(record, Path) else f"{self.name} {index}"
        image = decode_image(record, name)
        if self.size and image.shape[:2] != self.size:
            raise DamagedError(f"{name}: expected {self.size} pixels (height, width), received {image.shape[:2]}.")
        self._keep(index, image)
        return image

    def _keep(self, index: int, image: np.ndarray) -> None:
        with self._lock:
            if self._decoded[index] is None and image.nbytes <= self._bytes_left:
                self._bytes_left -= image.nbytes
                self._decoded[index] = image


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled images: a subset of a data set. All subsets share one `ImageStore`.

    Attributes:
        images: all images of the data set.
        indices: int64 (n,), index of each example in `images`.
        labels: int64 (n,).
    """

    images: ImageStore
    indices: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) if all images of the data set have one size, else None."""
        return self.images.size

    @property
    def groups(self) -> np.ndarray | None:
        """Number of the group of each example, int64 (n,), or None."""
        return None if self.images.groups is None else self.images.groups[self.indices]

    def subset(self, positions: np.ndarray) -> "Examples":
        """Return the examples at `positions` (m,), in that order."""
        return Examples(self.images, self.indices[positions], self.labels[positions])

    def image(self, position: int) -> np.ndarray:
        """Return one image, uint8 (height, width, 3)."""
        return self.images[int(self.indices[position])]

    def load_batch(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the images at `positions`, uint8 (m, height, width, 3). They must have one size."""
        return np.stack([self.image(position) for position in positions])

    @cached_property
    def class_counts(self) -> dict[int, int]:
        """Number of examples of each label that occurs."""
        labels, counts = np.unique(self.labels, return_counts=True)
        return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def make_examples(images: ImageStore, labels: Sequence[int] | np.ndarray) -> Examples:
    """Return all `images` with their `labels` (n,)."""
    return Examples(images, np.arange(len(images)), np.asarray(labels, np.int64))


@dataclass(frozen=True, eq=False)
class DatasetSource:
    """A data set, opened and checked.

    Attributes:
        name: value of the setting `dataset`.
        class_names: names of the labels 0, 1, ...
        train, validation, test: official splits. `validation` is None if the data set has none.
        fingerprint: SHA-256 of the content; see `utils.hashing`.
        embedded: True if the data set is part of this package. Results on it are not comparable with published ones.
        notes: remarks on the data for readers of the results.
        superclasses: name -> labels of its classes, e.g. `cat` and `dog` among breeds.
        has_groups: True if images are grouped by a column or by a pattern of their paths, e.g. by patient, and not only as copies.
        unreadable: paths of the files that were left out, and why; `notes` name the first ones.
    """

    name: str
    class_names: tuple[str, ...]
    train: Examples
    validation: Examples | None
    test: Examples
    fingerprint: str
    embedded: bool = False
    notes: tuple[str, ...] = ()
    superclasses: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    has_groups: bool = False
    unreadable: tuple[tuple[str, str], ...] = ()

    @property
    def splits(self) -> dict[str, Examples]:
        """The splits that the data set has, by name: train, validation if there is one, and test."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: examples for name, examples in parts.items() if examples is not None}

    def with_extra_classes(self, count: int) -> "DatasetSource":
        """Return the data set with `count` more classes after its own, without images.

        Their names are `unused_` and the number of the class, counted from 1: `unused_11`, ... after ten classes. A name that the
        data set has already is skipped.
        """
        numbered = (f"unused_{number}" for number in itertools.count(len(self.class_names) + 1))
        free = (name for name in numbered if name not in self.class_names)
        return replace(self, class_names=(*self.class_names, *itertools.islice(free, count))) if count else self
