"""Rows of features that were computed once, by key and number: in memory within a budget, beyond it in memory-mapped files.

A segment is some rows of one key, computed together. In a file it is `KEY/NAME.npy`, the rows, and `KEY/NAME.json`, its header, both
written under a temporary name and renamed, the header last. Before a process uses a file it compares the checksum, which
covers both; what does not agree is removed and computed again. No TensorFlow.
"""

import gc
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from tl_keras.errors import UserError
from tl_keras.feature_cache.shards import Rows, RowType, Segment, checked, map_rows, write_rows
from tl_keras.feature_cache.split_point import DISK, Budget
from tl_keras.utils.files import atomic_write, read_json, write_json

Compute = Callable[[np.ndarray], Iterable[np.ndarray]]


class Store:
    """What is kept, over all runs of a process and, in files under `directory`, over all processes.

    Attributes:
        discarded: files found damaged or stale so far, and removed.
    """

    def __init__(self, directory: Path):
        self.directory, self.discarded = directory, 0
        self._segments: dict[str, list[Segment]] = {}  # in the order of use, the latest last
        self._read: set[Path] = set()
        self._in_use: set[str] = set()

    @property
    def memory_bytes(self) -> int:
        """What the rows in memory take."""
        return sum(segment.rows.nbytes for segments in self._segments.values() for segment in segments if segment.path is None)

    def release(self) -> None:
        """Let go of all rows: each may be dropped where another key needs its room."""
        self._in_use.clear()

    def hold(self, key: str, ids: np.ndarray, kind: RowType, place: str, limits: Budget, compute: Compute) -> tuple[Rows | None, int]:
        """The rows `ids` of `key`, and how many of them had to be computed; None where there is no room beside what is in use.

        Args:
            place: `memory` or `disk`, where new rows go.
            compute: numbers, ascending -> their rows, in that order, in pieces (m, *shape).
        """
        if limits.disk:
            self._open_files(key, kind)
        self._use(key)
        missing = self._missing(key, ids)
        if len(missing) and place != DISK and not self._make_room(len(missing) * kind.num_bytes, limits.memory):
            # What is held of this key for others takes the room.
            self._drop(key)
            missing = self._missing(key, ids)
            if not self._make_room(len(missing) * kind.num_bytes, limits.memory):
                return None, 0
        if len(missing):
            write = self._to_disk if place == DISK else self._to_memory
            segment = write(key, missing, kind, compute(missing), limits)
            if segment is None:
                return None, 0
            self._segments[key].append(segment)
        return Rows(kind, tuple(self._segments[key])), len(missing)

    def _use(self, key: str) -> None:
        self._segments[key] = self._segments.pop(key, [])
        self._in_use.add(key)

    def _missing(self, key: str, ids: np.ndarray) -> np.ndarray:
        held = [segment.ids for segment in self._segments[key]]
        return np.setdiff1d(ids, np.concatenate(held)) if held else np.unique(ids)

    def _make_room(self, num_bytes: int, limit: int) -> bool:
        """Drop rows in memory that are not in use, the longest unused first, until `num_bytes` more fit; whether they do."""
        for key in [key for key in self._segments if key not in self._in_use]:
            if self.memory_bytes + num_bytes <= limit:
                break
            self._drop(key)
        return self.memory_bytes + num_bytes <= limit

    def _drop(self, key: str) -> None:
        self._segments[key] = [segment for segment in self._segments[key] if segment.path]
        gc.collect()  # the pipelines that read from the rows are cycles of references

    def _to_memory(self, key: str, ids: np.ndarray, kind: RowType, pieces: Iterable[np.ndarray], limits: Budget) -> Segment:
        rows = np.empty((len(ids), *kind.shape), kind.numpy_dtype)
        start = 0
        for piece in pieces:
            rows[start : start + len(piece)] = piece
            start += len(piece)
        if start != len(ids):
            raise ValueError(f"{start} rows were computed in place of {len(ids)}")
        return Segment(ids, rows)

    def _to_disk(self, key: str, ids: np.ndarray, kind: RowType, pieces: Iterable[np.ndarray], limits: Budget) -> Segment | None:
        if not self._make_room_on_disk(len(ids) * kind.num_bytes, limits.disk):
            return None
        path = self.directory / key / f"{uuid.uuid4().hex}.npy"
        header = {"key": key, "dtype": kind.dtype, "shape": list(kind.shape), "ids": ids.tolist()}
        try:
            with atomic_write(path) as temporary:
                digest = write_rows(temporary, header, kind, pieces)
            write_json(path.with_suffix(".json"), header | {"checksum": digest})
        except UserError:  # the disk is full: a run can do without
            path.unlink(missing_ok=True)
            return None
        self._read.add(path)
        return Segment(ids, map_rows(path, kind), path)

    def _make_room_on_disk(self, num_bytes: int, limit: int) -> bool:
        """Remove files of keys that are not in use, the longest unused first, until `num_bytes` more fit; whether they do."""
        sizes = {path: sum(file.stat().st_size for file in _files(path)) for path in self._key_directories()}
        room = min(limit - sum(sizes.values()), _free_bytes(self.directory))
        for path in [path for path in sizes if path.name not in self._in_use]:
            if num_bytes <= room:
                break
            self._segments[path.name] = [segment for segment in self._segments.get(path.name, []) if segment.path is None]
            for file in _files(path):
                file.unlink(missing_ok=True)
            room += sizes[path]
        return num_bytes <= room

    def _key_directories(self) -> list[Path]:
        """The directories of keys, the longest unused first."""
        return sorted((path for path in self.directory.glob("?" * 64) if path.is_dir()), key=lambda path: path.stat().st_mtime)

    def _open_files(self, key: str, kind: RowType) -> None:
        """Take in the files of `key` that this process has not read yet."""
        directory = self.directory / key
        if not directory.is_dir():
            return
        os.utime(directory)
        for path in sorted(set(directory.glob("*.npy")) - self._read):
            header = read_json(path.with_suffix(".json"))
            if header is None and not path.with_suffix(".json").exists():
                continue  # another process is about to write it
            self._read.add(path)
            segment = checked(path, header, key, kind)
            if segment:
                self._segments.setdefault(key, []).append(segment)
                continue
            self.discarded += 1
            for file in (path, path.with_suffix(".json")):
                file.unlink(missing_ok=True)


@lru_cache
def store_at(directory: Path) -> Store:
    """The store of this process with files under `directory`."""
    return Store(directory)


def directory(name: str) -> Path:
    """The directory that `--cache_dir=name` names; by default `tl_keras/features` in the user's cache directory."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "tl_keras" / "features"
    return Path(name or default).expanduser().absolute()


def _files(directory: Path) -> list[Path]:
    """What the store has written there, whole or not."""
    return [path for path in directory.iterdir() if path.suffix in (".npy", ".json")]


def _free_bytes(directory: Path) -> int:
    """Half of what is free on the disk that `directory` lies on, or will."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free // 2
