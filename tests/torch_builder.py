"""Torch files made by hand, well or ill, for the tests of their reader."""

import io
import pickle
import struct
import tarfile
import zipfile
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Name:
    """A global by its name, which need not exist."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """A global called with arguments when the pickle is run."""

    function: Name
    arguments: tuple


@dataclass(frozen=True)
class Persistent:
    """What the pickle refers to by an id."""

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
    """The values as pickles of protocol 2, one after the other."""
    file = io.BytesIO()
    for value in values:
        _Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def storage(num_elements: Any = 6, key: Any = "0", kind: str = "Float", part: Any = ()) -> Persistent:
    """A storage; `part` is `(None,)` or `((name, offset, size),)` in a stream."""
    return Persistent(("storage", Name("torch", f"{kind}Storage"), key, "cpu", num_elements, *part))


def tensor(shape: Any = (2, 3), strides: Any = (3, 1), offset: Any = 0, over: Any = None) -> Call:
    """A tensor, by default float32 of 2 x 3 over storage "0" of six elements."""
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), (over or storage(), offset, shape, strides, False, None))


SIX_FLOATS = struct.pack("<6f", *range(6))
STORAGE_ENTRY = ("archive/data/0", SIX_FLOATS)
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def _pickle(top: Any) -> bytes:
    return top if isinstance(top, bytes) else pickled(top)


def zip_file(top: Any, *entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip container of an object, or of its pickle, with further entries; by default those of `tensor()`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", _pickle(top))
        for name, content in entries or (STORAGE_ENTRY,):
            archive.writestr(name, content)
    return file.getvalue()


def stream_file(top: Any, keys: Any = ("0",), storages: bytes = struct.pack("<q", 6) + SIX_FLOATS, system: Any = SYSTEM) -> bytes:
    """A stream container of an object, or of its pickle; by default with the storage of `tensor()`."""
    return pickled(0x1950A86A20F9469CFC6C, 1001, system) + _pickle(top) + pickled(list(keys)) + storages


def tar_file(top: Any, storages: bytes, tensors: bytes) -> bytes:
    """A tar container of an object, or of its pickle."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in (("sys_info", pickled(SYSTEM)), ("pickle", _pickle(top)), ("storages", storages), ("tensors", tensors)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()
