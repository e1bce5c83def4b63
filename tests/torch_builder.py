"""Builds torch files by hand, valid and hostile, for the tests of their reader."""

import io
import pickle
import struct
import zipfile
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Name:
    """A global by its name. It need not exist."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """A call of a global, made when the pickle is loaded."""

    function: Name
    arguments: tuple


@dataclass(frozen=True)
class Persistent:
    """A persistent id."""

    identity: Any


class _Pickler(pickle._Pickler):
    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, Name):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(value, Persistent):
            self.save(value.identity)
            self.write(pickle.BINPERSID)
        else:
            super().save(value, save_persistent_id)


def pickled(*values: Any) -> bytes:
    """Return the values as consecutive pickles of protocol 2."""
    file = io.BytesIO()
    for value in values:
        _Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def storage(num_elements: Any = 6, key: Any = "0", prefix: str = "Float", part: Any = ()) -> Persistent:
    """Return a storage of class `<prefix>Storage`. In a stream, `part` is `(None,)` or `((name, offset, size),)`."""
    return Persistent(("storage", Name("torch", f"{prefix}Storage"), key, "cpu", num_elements, *part))


def tensor(shape: Any = (2, 3), strides: Any = (3, 1), offset: Any = 0, over: Any = None) -> Call:
    """Return a tensor, by default float32 (2, 3) over storage "0" of six elements."""
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), (over or storage(), offset, shape, strides, False, None))


SIX_FLOATS = struct.pack("<6f", *range(6))
STORAGE_ENTRY = ("archive/data/0", SIX_FLOATS)
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def _pickle(root: Any) -> bytes:
    return root if isinstance(root, bytes) else pickled(root)


def zip_file(root: Any, *entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip container of an object, or of its pickle, with further entries; by default those of `tensor()`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", _pickle(root))
        for name, content in entries or (STORAGE_ENTRY,):
            archive.writestr(name, content)
    return file.getvalue()


def stream_file(root: Any, keys: Any = ("0",), storages: bytes = struct.pack("<q", 6) + SIX_FLOATS, system: Any = SYSTEM) -> bytes:
    """Return a stream container of an object, or of its pickle; by default with the storage of `tensor()`."""
    return pickled(0x1950A86A20F9469CFC6C, 1001, system) + _pickle(root) + pickled(list(keys)) + storages
