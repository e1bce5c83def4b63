"""What a weights file holds, told from its headers: names, shapes and dtypes, without reading the data.

Files from outside may be hostile: nothing is unpickled but by the restricted reader of torch files, links out of an HDF5 file
are not followed, and sizes that headers claim are not allocated.
"""

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np

from tl_keras.errors import ConfigError, DamagedError

# What the readers of the standard library, NumPy and h5py raise on bytes that are not what they should be.
UNREADABLE = (
    *(OSError, LookupError, ValueError, TypeError, RuntimeError, EOFError, ArithmeticError, MemoryError),
    *(struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
MAX_ENTRIES = 100_000


class Entry(NamedTuple):
    """One tensor of a file: its name, its shape, and its dtype as the file calls it."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def list_tensors(path: Path) -> list[Entry]:
    """The tensors of a weights file, in the file's order.

    In the stores of Keras 3 they are named `layer/number`, by the layer's name and the place of the variable in the layer.

    Raises:
        ConfigError: the suffix is not one of a weights file.
        DamagedError: the file is truncated, corrupt, or not what its suffix says.
    """
    read = next((lister for suffix, lister in LISTERS.items() if path.name.endswith(suffix)), None)
    if read is None:
        raise ConfigError(f"{path}: weights files end in {', '.join(LISTERS)}; this one does not.")
    try:
        entries = []
        for entry in read(path):
            if len(entries) == MAX_ENTRIES:
                raise ValueError(f"it holds more than {MAX_ENTRIES:,} tensors")
            entries.append(entry)
        return entries
    except UNREADABLE as error:
        raise DamagedError(f"{path} cannot be read as a weights file ({error}). Fetch or save it again.") from error


def _torch(path: Path) -> Iterator[Entry]:
    from tl_keras.weights.torch_file import describe

    yield from (Entry(tensor.name, tuple(tensor.shape), tensor.dtype) for tensor in describe(path))


def _safetensors(path: Path) -> Iterator[Entry]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                tensor = file.get_slice(name)
                yield Entry(name, tuple(tensor.get_shape()), tensor.get_dtype())
    except SafetensorError as error:
        raise ValueError(error) from error


def _npz(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as file:
                yield Entry(info.filename.removesuffix(".npy"), *_npy_header(file))


def _npy_header(file: Any) -> tuple[tuple[int, ...], str]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, str(dtype)


def _keras(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file:
        yield from _hdf5(file)


def _hdf5(file: Path | BinaryIO) -> Iterator[Entry]:
    """All data sets that lie in the file itself; `visititems` follows no links."""
    found: list[Entry] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layer = item.parent.attrs.get("name")  # Keras 3 has it on the group that holds a layer's variables
            found.append(Entry(f"{layer}/{name.rpartition('/')[2]}" if layer else name, item.shape or (), str(item.dtype)))

    with h5py.File(file) as store:
        store.visititems(visit)
    yield from found


# By suffix, the longer before the shorter that it ends in.
LISTERS: Mapping[str, Callable[[Any], Iterator[Entry]]] = MappingProxyType(
    {".pth": _torch, ".pt": _torch, ".safetensors": _safetensors, ".npz": _npz, ".keras": _keras, ".weights.h5": _hdf5, ".h5": _hdf5}
)
