"""Shards: blocks of features of one key, computed together, in memory or in a file with a checksum. No TensorFlow."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

BLOCK_BYTES = 1 << 24
STORED_AS = {"bfloat16": "uint16"}  # The .npy format has no bfloat16.


@dataclass(frozen=True)
class FeatureSpec:
    """Shape and dtype name of the features of one image, e.g. ((512,), "bfloat16")."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype(getattr(ml_dtypes, self.dtype, self.dtype))

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.numpy_dtype.itemsize


@dataclass(frozen=True, eq=False)
class Shard:
    """Features (n, ...) with the ids int64 (n,), ascending; `path` of their file, or None in memory."""

    ids: np.ndarray
    features: np.ndarray
    path: Path | None = None


@dataclass(frozen=True)
class Features:
    """The features of one key, in any number of shards."""

    spec: FeatureSpec
    shards: Sequence[Shard]

    def take(self, ids: np.ndarray) -> np.ndarray:
        """Return a copy of the features `ids` (n,), in that order: (n, *shape).

        Raises:
            KeyError: A feature is not in any shard.
        """
        taken = np.empty((len(ids), *self.spec.shape), self.spec.numpy_dtype)
        found = np.zeros(len(ids), bool)
        for shard in self.shards:
            positions = np.searchsorted(shard.ids, ids).clip(max=len(shard.ids) - 1)
            in_shard = shard.ids[positions] == ids
            taken[in_shard] = shard.features[positions[in_shard]]
            found |= in_shard
        if not found.all():
            raise KeyError(f"features {np.asarray(ids)[~found][:5]} are not stored")
        return taken


def _header_hash(header: dict[str, Any]) -> Any:
    """Return a SHA-256 object that has hashed a header without its checksum."""
    content = {name: value for name, value in header.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode())


def write_features(path: Path, header: dict[str, Any], spec: FeatureSpec, blocks: Iterable[np.ndarray]) -> str:
    """Write an .npy file block by block and return its checksum.

    A memory map is not used, since a full disk would kill the process.
    """
    digest, stored = _header_hash(header), np.dtype(STORED_AS.get(spec.dtype, spec.dtype))
    shape = (len(header["ids"]), *spec.shape)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": stored.str, "fortran_order": False, "shape": shape})
        for block in blocks:
            content = np.ascontiguousarray(block, spec.numpy_dtype).view(stored).data
            file.write(content)
            digest.update(content)
    return digest.hexdigest()


def map_features(path: Path, spec: FeatureSpec) -> np.ndarray:
    """Return the features of a file, (n, *shape), memory-mapped."""
    return np.load(path, mmap_mode="r", allow_pickle=False).view(spec.numpy_dtype)


def open_verified(path: Path, header: Any, key: str, spec: FeatureSpec) -> Shard | None:
    """Return the shard in a file, or None if it does not match its header, `key` and `spec`."""
    expected = {"key": key, "dtype": spec.dtype, "shape": list(spec.shape)}
    try:
        if any(header[name] != value for name, value in expected.items()):
            return None
        ids, features = np.array(header["ids"], np.int64), map_features(path, spec)
        digest = _header_hash(header)
        for block in _blocks(features):
            digest.update(block)
        is_intact = features.shape == (len(ids), *spec.shape) and digest.hexdigest() == header["checksum"]
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        return None
    return Shard(ids, features, path) if is_intact else None


def _blocks(features: np.ndarray) -> Iterator[bytes]:
    size = max(1, BLOCK_BYTES // max(1, features[:1].nbytes))
    for start in range(0, len(features), size):
        yield features[start : start + size].tobytes()
