"""Segments: some rows of one key, computed together, in memory or in a file with a checksum. No TensorFlow."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

BLOCK_BYTES = 1 << 24
STORED_AS = {"bfloat16": "uint16"}  # .npy files do not know it


@dataclass(frozen=True)
class RowType:
    """What a row is: its shape and the name of its dtype, e.g. ((512,), "bfloat16")."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype(getattr(ml_dtypes, self.dtype, self.dtype))

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.numpy_dtype.itemsize


@dataclass(frozen=True, eq=False)
class Segment:
    """Rows (n, ...) of the numbers `ids`, int64 (n,), ascending; `path` of the file that they lie in, if any."""

    ids: np.ndarray
    rows: np.ndarray
    path: Path | None = None


@dataclass(frozen=True)
class Rows:
    """The rows of a key that a user of the store holds."""

    kind: RowType
    segments: Sequence[Segment]

    def take(self, ids: np.ndarray) -> np.ndarray:
        """The rows `ids` (n,) in that order: (n, *shape), a copy.

        Raises:
            KeyError: a row is not held.
        """
        taken = np.empty((len(ids), *self.kind.shape), self.kind.numpy_dtype)
        found = np.zeros(len(ids), bool)
        for segment in self.segments:
            places = np.searchsorted(segment.ids, ids).clip(max=len(segment.ids) - 1)
            here = segment.ids[places] == ids
            taken[here] = segment.rows[places[here]]
            found |= here
        if not found.all():
            raise KeyError(f"rows {np.asarray(ids)[~found][:5]} are not held")
        return taken


def _digest(header: dict[str, Any]) -> Any:
    """A SHA-256 that has taken in all of a header but the checksum."""
    content = {name: value for name, value in header.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode())


def write_rows(path: Path, header: dict[str, Any], kind: RowType, pieces: Iterable[np.ndarray]) -> str:
    """Write an .npy file piece by piece; the checksum. Not through a memory map, where a full disk would end the process."""
    digest, stored = _digest(header), np.dtype(STORED_AS.get(kind.dtype, kind.dtype))
    shape = (len(header["ids"]), *kind.shape)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": stored.str, "fortran_order": False, "shape": shape})
        for piece in pieces:
            content = np.ascontiguousarray(piece, kind.numpy_dtype).view(stored).data
            file.write(content)
            digest.update(content)
    return digest.hexdigest()


def map_rows(path: Path, kind: RowType) -> np.ndarray:
    """The rows of a file, (n, *shape), memory-mapped."""
    return np.load(path, mmap_mode="r", allow_pickle=False).view(kind.numpy_dtype)


def checked(path: Path, header: Any, key: str, kind: RowType) -> Segment | None:
    """The segment of a file; None where it is not what its header says, or not of this key and kind."""
    expected = {"key": key, "dtype": kind.dtype, "shape": list(kind.shape)}
    try:
        if any(header[name] != value for name, value in expected.items()):
            return None
        ids, rows = np.array(header["ids"], np.int64), map_rows(path, kind)
        digest = _digest(header)
        for block in _blocks(rows):
            digest.update(block)
        whole = rows.shape == (len(ids), *kind.shape) and digest.hexdigest() == header["checksum"]
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        return None
    return Segment(ids, rows, path) if whole else None


def _blocks(rows: np.ndarray) -> Iterator[bytes]:
    size = max(1, BLOCK_BYTES // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), size):
        yield rows[start : start + size].tobytes()
