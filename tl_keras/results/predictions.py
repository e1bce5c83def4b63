"""What a run predicted, read back from its directory: nothing is unpickled, and nothing allocated beyond a bound. No TensorFlow."""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_keras.errors import DamagedError
from tl_keras.results.run_directory import MISTAKES, PREDICTIONS

MAX_ARRAY_BYTES = 2**30
MAX_MISTAKES, MAX_THUMBNAIL = 16, 96  # images, pixels

UNREADABLE = (OSError, LookupError, ValueError, TypeError, RuntimeError, EOFError, struct.error, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Mistakes:
    """The most confidently wrong answers of a run on its test split, the surest first.

    Attributes:
        images: uint8 (k, height, width, 3), what the model saw, at most `MAX_THUMBNAIL` pixels high and wide.
        labels, predicted: int (k,), the true and the wrong class.
        confidences: float32 (k,), the probability that the model gave to the wrong class.
        positions: int (k,), places in the test split.
    """

    images: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidences: np.ndarray
    positions: np.ndarray


def read_predictions(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits float (n, classes) and labels int (n,) of the run in `path`.

    Raises:
        DamagedError: they are absent or not of that form.
    """
    logits, labels = _read_arrays(path / PREDICTIONS, {"logits": "f2", "labels": "i1"}, MAX_ARRAY_BYTES).values()
    if len(logits) != len(labels) or not len(labels) or not _are_classes(labels, logits.shape[1]) or not np.isfinite(logits).all():
        raise _damaged(path / PREDICTIONS, f"logits {logits.shape} and labels {labels.shape} do not go together")
    return logits, labels


def read_mistakes(path: Path, num_classes: int) -> Mistakes:
    """The most confidently wrong answers of the run in `path`, among `num_classes` classes.

    Raises:
        DamagedError: they are absent, or more or larger than a run writes.
    """
    kinds = {"images": "u4", "labels": "i1", "predicted": "i1", "confidences": "f1", "positions": "i1"}
    max_bytes = 3 * MAX_MISTAKES * MAX_THUMBNAIL**2 + 1024  # with the header
    mistakes = Mistakes(**_read_arrays(path / MISTAKES, kinds, max_bytes))
    num, *size, channels = mistakes.images.shape
    if num > MAX_MISTAKES or not 0 < min(size) <= max(size) <= MAX_THUMBNAIL or channels != 3 or mistakes.images.dtype != np.uint8:
        raise _damaged(path / MISTAKES, f"images {mistakes.images.dtype} {mistakes.images.shape}")
    if any(len(values) != num for values in vars(mistakes).values()) or not _are_classes(
        np.concatenate([mistakes.labels, mistakes.predicted]), num_classes
    ):
        raise _damaged(path / MISTAKES, f"labels do not go with {num} images of {num_classes} classes")
    return mistakes


def _are_classes(labels: np.ndarray, num_classes: int) -> bool:
    return bool(((0 <= labels) & (labels < num_classes)).all())


def _read_arrays(path: Path, kinds: Mapping[str, str], max_bytes: int) -> dict[str, np.ndarray]:
    """The arrays of `path` that `kinds` names, read-only.

    Args:
        kinds: name -> kind of dtype (`f`, `i` or `u`) and number of dimensions, e.g. `f2`.
        max_bytes: an array may have at most so many, with its header.

    Raises:
        DamagedError: the file is absent, truncated or corrupt, or its arrays are not these.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _read(archive, name, kind, max_bytes) for name, kind in kinds.items()}
    except UNREADABLE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> DamagedError:
    """The error for a file of a run directory that is not what a run writes."""
    return DamagedError(f"{path} cannot be read ({reason}). Delete {path.parent} and run its command again.")


def _read(archive: zipfile.ZipFile, name: str, kind: str, max_bytes: int) -> np.ndarray:
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > max_bytes:
        raise ValueError(f"{name}: {info.file_size:,} bytes, at most {max_bytes:,} are expected")
    data = archive.read(info)
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if version != (1, 0) or is_fortran or f"{dtype.kind}{len(shape)}" != kind:
        raise ValueError(f"{name}: {dtype} {shape}, expected kind {kind[0]} with {kind[1]} dimensions")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
