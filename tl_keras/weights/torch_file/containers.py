"""The two containers of torch files: both hold one pickled object and the bytes of its storages.

zip: the default since torch 1.6. stream: the default before, and available on request since; torchvision's VGG16 uses it.
Source: torch's `serialization.py`.
"""

import io
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tl_keras.weights.torch_file.tensors import InvalidTorchFile, Storage, require_count
from tl_keras.weights.torch_file.unpickler import ByteReader, Unpickler, storage_key

MAGIC = 0x1950A86A20F9469CFC6C
STREAM_VERSION = 1001
# Limit for the central directory of a zip: some 40,000 entries.
MAX_DIRECTORY_BYTES = 4 * 2**20
UTF8_FLAG, ENCRYPTED_FLAG = 0x800, 1
# Signature, fields that the central directory repeats, lengths of the name and of the extra field.
LOCAL_HEADER = struct.Struct("<4s22x2H")
ZIP_ERRORS = (zipfile.BadZipFile, struct.error, ValueError, OverflowError, NotImplementedError, OSError)


@dataclass(frozen=True)
class Contents:
    """The contents of a torch file.

    Attributes:
        container: "zip" or "stream".
        root: the pickled object.
        storage_slices: storage key -> the slice of the file with its bytes.
        byte_order: "little" or "big".
    """

    container: str
    root: Any
    storage_slices: dict[str, slice]
    byte_order: str = "little"


def read_container(path: Path, data: memoryview) -> Contents:
    """Return the contents of the file at `path`, whose bytes are `data`.

    Raises:
        InvalidTorchFile: The file has another format, is damaged, or is hostile.
    """
    for signature, read in CONTAINERS.items():
        if data[: len(signature)] == signature:
            return read(path, data)
    beginning = bytes(data[:16])
    hint = "; it looks like a web page saved instead of a file" if beginning.lstrip()[:1] == b"<" else ""
    raise InvalidTorchFile(f"it begins with {beginning!r}, unlike the zip and stream files of torch{hint}")


class _BoundedFile(io.FileIO):
    """A file that refuses reads larger than the limit for a central directory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise InvalidTorchFile(f"its list of entries claims {size:,} bytes, and {MAX_DIRECTORY_BYTES:,} is the limit")
        return super().read(size)


def _read_zip(path: Path, data: memoryview) -> Contents:
    """Read entries `<prefix>/data.pkl`, `<prefix>/data/<key>` and, since torch 2.1, `<prefix>/byteorder`.

    Entries are located by their local headers. Their checksums are not compared, since torch may write zeros; the published
    hash of a file covers more.
    """
    entries = {info.filename: info for info in _entries(path, data)}
    prefix = _prefix(entries)
    unpickler = Unpickler()
    root = unpickler.load(ByteReader(data[_entry_slice(entries[f"{prefix}data.pkl"], data)]))
    storage_slices = {}
    for key, storage in unpickler.storages.items():
        info = entries.get(f"{prefix}data/{key}")
        if info is None or info.file_size != storage.num_bytes:
            actual = "is absent" if info is None else f"has {info.file_size:,}"
            raise InvalidTorchFile(f"storage {key} claims {storage.num_bytes:,} bytes, and its entry {actual}")
        storage_slices[key] = _entry_slice(info, data)
    return Contents("zip", root, storage_slices, _byte_order(entries.get(f"{prefix}byteorder"), data))


def _entries(path: Path, data: memoryview) -> list[zipfile.ZipInfo]:
    try:
        with _BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except ZIP_ERRORS as error:
        raise InvalidTorchFile(f"its list of entries is truncated or damaged ({str(error)[:120]})") from error
    names = [info.orig_filename for info in entries]
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise InvalidTorchFile(f"its zip has the entry {name[:80]!r} {count} times")
    for name in names:
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise InvalidTorchFile(f"its zip has an entry named {name[:80]!r}, which would escape a directory")
    if sum(info.file_size for info in entries) > len(data):
        raise InvalidTorchFile(f"its entries claim more than the {len(data):,} bytes of the file")
    return entries


def _prefix(entries: dict[str, zipfile.ZipInfo]) -> str:
    pickles = [name for name in entries if name.split("/")[-1] == "data.pkl"]
    if len(pickles) != 1:
        raise InvalidTorchFile(f"its zip has {len(pickles)} entries named data.pkl, and torch writes one")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in entries or any(name.startswith(f"{prefix}code/") for name in entries):
        raise InvalidTorchFile("it is a TorchScript program: load it in torch and save its state_dict()")
    return prefix


def _entry_slice(info: zipfile.ZipInfo, data: memoryview) -> slice:
    """Return the slice of the file with the bytes of an entry, found by its local header."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & ENCRYPTED_FLAG:
        raise InvalidTorchFile(
            f"its entry {info.filename[:80]!r} is compressed or encrypted, which torch's never are: save it again in torch"
        )
    reader = ByteReader(data, max(info.header_offset, 0))
    signature, name_length, extra_length = LOCAL_HEADER.unpack(reader.read(LOCAL_HEADER.size))
    name = reader.read(name_length)
    reader.skip(extra_length)
    encoding = "utf-8" if info.flag_bits & UTF8_FLAG else "cp437"
    if not signature.startswith(b"PK\3\4") or name.decode(encoding, "replace") != info.orig_filename:
        raise InvalidTorchFile(f"its entry {info.filename[:80]!r} is not where the list of entries says")
    return reader.skip(info.file_size)


def _byte_order(info: zipfile.ZipInfo | None, data: memoryview) -> str:
    if info is None:
        return "little"
    record = bytes(data[_entry_slice(info, data)][:16])
    if record not in (b"little", b"big"):
        raise InvalidTorchFile(f"its byte order is {record!r}, neither little nor big")
    return record.decode()


def _read_stream(_: Path, data: memoryview) -> Contents:
    """Read pickles of a magic number, a version, system facts, the object and a list of storage keys; then the storages."""
    unpickler, reader = Unpickler(), ByteReader(data)
    if unpickler.load(reader) != MAGIC:
        raise InvalidTorchFile("it is a pickle without torch's magic number")
    if unpickler.load(reader) != STREAM_VERSION:
        raise InvalidTorchFile(f"its stream format is not version {STREAM_VERSION}")
    _require_little_endian(unpickler.load(reader))
    root, keys = unpickler.load(reader), unpickler.load(reader)
    if type(keys) is not list or sorted(map(storage_key, keys)) != sorted(unpickler.storages):
        raise InvalidTorchFile("its list of storages is not that of its tensors")
    return Contents("stream", root, {key: _stream_storage(reader, unpickler.storages[key]) for key in map(storage_key, keys)})


def _require_little_endian(system: Any) -> None:
    if type(system) is not dict or system.get("little_endian") is not True:
        raise InvalidTorchFile("it was not written on a little-endian system, or does not say so: save it again in torch")


def _stream_storage(reader: ByteReader, storage: Storage) -> slice:
    """Skip a number of elements (8 bytes) and the elements of `storage`; return the slice of the file with the latter."""
    num_elements = require_count(reader.integer(), "the size of a storage")
    found = reader.skip(Storage(storage.key, storage.dtype, num_elements).num_bytes)
    if num_elements != storage.num_elements:
        raise InvalidTorchFile(f"storage {storage.key} claims {storage.num_elements:,} elements and has {num_elements:,}")
    return found


# First bytes of a file -> reader.
CONTAINERS: Mapping[bytes, Callable[[Path, memoryview], Contents]] = MappingProxyType({b"PK\3\4": _read_zip, b"\x80": _read_stream})
