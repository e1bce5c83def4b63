"""Stores computed features by key and id: in memory within a budget, beyond it in memory-mapped files.

A shard holds features of one key that were computed together. On disk it is `KEY/NAME.npy`, the features, and `KEY/NAME.json`, its
header. Both are written under a temporary name and renamed, the header last. A process compares the checksum, which covers both,
before it uses a file; a file that does not match is deleted and its features are computed again. No TensorFlow.
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
from tl_keras.feature_cache.shards import Features, FeatureSpec, Shard, map_features, open_verified, write_features
from tl_keras.feature_cache.split_point import DISK, Budget
from tl_keras.utils.files import atomic_write, read_json, user_cache_directory, write_json

ComputeFn = Callable[[np.ndarray], Iterable[np.ndarray]]


class Store:
    """Features of all runs of a process and, in files under `directory`, of all processes.

    Attributes:
        num_corrupt: number of files found corrupt or stale so far, and deleted.
    """

    def __init__(self, directory: Path):
        self.directory, self.num_corrupt = directory, 0
        self._shards: dict[str, list[Shard]] = {}  # in order of use, the most recently used key last
        self._opened: set[Path] = set()
        self._pinned: set[str] = set()

    @property
    def memory_bytes(self) -> int:
        """Size of the features in memory."""
        return sum(shard.features.nbytes for shards in self._shards.values() for shard in shards if shard.path is None)

    def unpin_all(self) -> None:
        """Allow all features to be evicted when another key needs their memory."""
        self._pinned.clear()

    def get_or_compute(
        self, key: str, ids: np.ndarray, spec: FeatureSpec, storage: str, budget: Budget, compute: ComputeFn
    ) -> tuple[Features | None, int]:
        """Return the features `ids` of `key` and the number that had to be computed. The key is pinned.

        Args:
            storage: `memory` or `disk`, for new features.
            compute: ids, ascending -> their features, in that order, in blocks (m, *shape).

        Returns:
            (features, number computed), or (None, 0) if the features do not fit beside those that are pinned.
        """
        if budget.disk:
            self._open_files(key, spec)
        self._pin(key)
        missing = self._missing(key, ids)
        if len(missing) and storage != DISK and not self._evict(len(missing) * spec.num_bytes, budget.memory):
            # Other features of this key, computed for another split or run, may take the memory.
            self._drop(key)
            missing = self._missing(key, ids)
            if not self._evict(len(missing) * spec.num_bytes, budget.memory):
                return None, 0
        if len(missing):
            write = self._to_disk if storage == DISK else self._to_memory
            shard = write(key, missing, spec, compute(missing), budget)
            if shard is None:
                return None, 0
            self._shards[key].append(shard)
        return Features(spec, tuple(self._shards[key])), len(missing)

    def _pin(self, key: str) -> None:
        """Protect `key` from eviction, and make it the most recently used."""
        self._shards[key] = self._shards.pop(key, [])
        self._pinned.add(key)

    def _missing(self, key: str, ids: np.ndarray) -> np.ndarray:
        stored = [shard.ids for shard in self._shards[key]]
        return np.setdiff1d(ids, np.concatenate(stored)) if stored else np.unique(ids)

    def _evict(self, num_bytes: int, limit: int) -> bool:
        """Evict unpinned features, least recently used first, until `num_bytes` fit. Returns True if they do."""
        for key in [key for key in self._shards if key not in self._pinned]:
            if self.memory_bytes + num_bytes <= limit:
                break
            self._drop(key)
        return self.memory_bytes + num_bytes <= limit

    def _drop(self, key: str) -> None:
        self._shards[key] = [shard for shard in self._shards[key] if shard.path]
        gc.collect()  # Pipelines that read the features are reference cycles.

    def _to_memory(self, key: str, ids: np.ndarray, spec: FeatureSpec, blocks: Iterable[np.ndarray], budget: Budget) -> Shard:
        features = np.empty((len(ids), *spec.shape), spec.numpy_dtype)
        start = 0
        for block in blocks:
            features[start : start + len(block)] = block
            start += len(block)
        if start != len(ids):
            raise ValueError(f"{start} features were computed instead of {len(ids)}")
        return Shard(ids, features)

    def _to_disk(self, key: str, ids: np.ndarray, spec: FeatureSpec, blocks: Iterable[np.ndarray], budget: Budget) -> Shard | None:
        if not self._evict_from_disk(len(ids) * spec.num_bytes, budget.disk):
            return None
        path = self.directory / key / f"{uuid.uuid4().hex}.npy"
        header = {"key": key, "dtype": spec.dtype, "shape": list(spec.shape), "ids": ids.tolist()}
        try:
            with atomic_write(path) as temporary:
                checksum = write_features(temporary, header, spec, blocks)
            write_json(path.with_suffix(".json"), header | {"checksum": checksum})
        except UserError:  # The disk is full: the run continues without these features.
            path.unlink(missing_ok=True)
            return None
        self._opened.add(path)
        return Shard(ids, map_features(path, spec), path)

    def _evict_from_disk(self, num_bytes: int, limit: int) -> bool:
        """Delete files of unpinned keys, least recently used first, until `num_bytes` fit. Returns True if they do."""
        sizes = {path: sum(file.stat().st_size for file in _shard_files(path)) for path in self._key_directories()}
        available = min(limit - sum(sizes.values()), _free_bytes(self.directory))
        for path in [path for path in sizes if path.name not in self._pinned]:
            if num_bytes <= available:
                break
            self._shards[path.name] = [shard for shard in self._shards.get(path.name, []) if shard.path is None]
            for file in _shard_files(path):
                file.unlink(missing_ok=True)
            available += sizes[path]
        return num_bytes <= available

    def _key_directories(self) -> list[Path]:
        """Return the directories of all keys, least recently used first."""
        return sorted((path for path in self.directory.glob("?" * 64) if path.is_dir()), key=lambda path: path.stat().st_mtime)

    def _open_files(self, key: str, spec: FeatureSpec) -> None:
        """Open the files of `key` that this process has not opened yet."""
        directory = self.directory / key
        if not directory.is_dir():
            return
        os.utime(directory)
        for path in sorted(set(directory.glob("*.npy")) - self._opened):
            header = read_json(path.with_suffix(".json"))
            if header is None and not path.with_suffix(".json").exists():
                continue  # Another process is about to write the header.
            self._opened.add(path)
            shard = open_verified(path, header, key, spec)
            if shard:
                self._shards.setdefault(key, []).append(shard)
                continue
            self.num_corrupt += 1
            for file in (path, path.with_suffix(".json")):
                file.unlink(missing_ok=True)


@lru_cache
def shared_store(directory: Path) -> Store:
    """Return the one store of this process with files under `directory`."""
    return Store(directory)


def cache_directory(cache_dir: str) -> Path:
    """Return the directory of the setting `cache_dir`; by default `tl_keras/features` in the user's cache directory."""
    return Path(cache_dir).expanduser().absolute() if cache_dir else user_cache_directory() / "features"


def _shard_files(directory: Path) -> list[Path]:
    """Return the files of the store in the directory of a key, partial ones included."""
    return [path for path in directory.iterdir() if path.suffix in (".npy", ".json")]


def _free_bytes(directory: Path) -> int:
    """Return half of the free space on the disk of `directory`, which need not exist yet."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free // 2
