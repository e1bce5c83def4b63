"""The three containers of torch's files: each comes down to one pickled object, and where in the file the storages lie.

zip: since torch 1.6. stream: before, and on request since; torchvision's VGG16. tar: torch 0.1.
Source: torch's `serialization.py`.
"""

import io
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_keras.weights.torch_file.pickle_machine import Cursor, Unpickler, storage_key
from tl_keras.weights.torch_file.tensors import Refused, Storage, require_count, storage_dtype, strided, view

MAGIC = 0x1950A86A20F9469CFC6C
STREAM_VERSION = 1001
# Of a zip's list of entries: some 40,000 of them.
MAX_DIRECTORY_BYTES = 4 * 2**20
UTF8_FLAG, ENCRYPTED_FLAG = 0x800, 1
# Signature, what the list of entries says too, lengths of the name and of the extra field.
LOCAL_HEADER = struct.Struct("<4s22x2H")
TAR_BLOCK = 512
TAR_MEMBERS = ("sys_info", "storages", "tensors", "pickle")
UNREADABLE_ZIP = (zipfile.BadZipFile, struct.error, ValueError, OverflowError, NotImplementedError, OSError)


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        container: "zip", "stream" or "tar".
        top: the pickled object.
        places: storage key -> where its bytes lie in the file.
        byte_order: "little" or "big".
    """

    container: str
    top: Any
    places: dict[str, slice]
    byte_order: str = "little"


def read_container(path: Path, data: memoryview) -> Contents:
    """The contents of the file at `path`, whose bytes are `data`.

    Raises:
        Refused: it is none of the three, damaged, or hostile.
    """
    for start, signature, read in CONTAINERS:
        if data[start : start + len(signature)] == signature:
            return read(path, data)
    beginning = bytes(data[:16])
    page = "; it looks like a web page saved in the place of a file" if beginning.lstrip()[:1] == b"<" else ""
    raise Refused(f"it begins with {beginning!r}, unlike the zip, stream and tar files of torch{page}")


class _BoundedFile(io.FileIO):
    """A file of which no more than a zip's list of entries is read at once."""

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise Refused(f"its list of entries claims {size:,} bytes, and {MAX_DIRECTORY_BYTES:,} is the limit")
        return super().read(size)


def _read_zip(path: Path, data: memoryview) -> Contents:
    """Entries `<prefix>/data.pkl`, `<prefix>/data/<key>` and, since torch 2.1, `<prefix>/byteorder`.

    Entries are found through their local headers, and their checksums, which torch may leave zero, are not asked for: the
    published hash of a file covers more.
    """
    entries = {info.filename: info for info in _entries(path, data)}
    prefix = _prefix(entries)
    unpickler = Unpickler()
    top = unpickler.load(Cursor(data[_place(entries[f"{prefix}data.pkl"], data)]))
    places = {}
    for key, storage in unpickler.storages.items():
        info = entries.get(f"{prefix}data/{key}")
        if info is None or info.file_size != storage.num_bytes:
            held = "is not there" if info is None else f"has {info.file_size:,}"
            raise Refused(f"storage {key} claims {storage.num_bytes:,} bytes, and its entry {held}")
        places[key] = _place(info, data)
    return Contents("zip", top, places, _byte_order(entries.get(f"{prefix}byteorder"), data))


def _entries(path: Path, data: memoryview) -> list[zipfile.ZipInfo]:
    try:
        with _BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except UNREADABLE_ZIP as error:
        raise Refused(f"its list of entries is truncated or damaged ({str(error)[:120]})") from error
    names = [info.orig_filename for info in entries]
    name, number = Counter(names).most_common(1)[0] if names else ("", 0)
    if number > 1:
        raise Refused(f"its zip has the entry {name[:80]!r} {number} times")
    for name in names:
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise Refused(f"its zip has an entry named {name[:80]!r}, which would escape a directory")
    if sum(info.file_size for info in entries) > len(data):
        raise Refused(f"its entries claim more than the {len(data):,} bytes of the file")
    return entries


def _prefix(entries: dict[str, zipfile.ZipInfo]) -> str:
    pickles = [name for name in entries if name.split("/")[-1] == "data.pkl"]
    if len(pickles) != 1:
        raise Refused(f"its zip has {len(pickles)} entries named data.pkl, and torch's have one")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in entries or any(name.startswith(f"{prefix}code/") for name in entries):
        raise Refused("it is a TorchScript program: load it in torch and save its state_dict()")
    return prefix


def _place(info: zipfile.ZipInfo, data: memoryview) -> slice:
    """Where the bytes of an entry lie, by its local header."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & ENCRYPTED_FLAG:
        raise Refused(f"its entry {info.filename[:80]!r} is compressed or encrypted, which torch's never are: save it again in torch")
    cursor = Cursor(data, max(info.header_offset, 0))
    signature, name_length, extra_length = LOCAL_HEADER.unpack(cursor.read(LOCAL_HEADER.size))
    name = cursor.read(name_length)
    cursor.skip(extra_length)
    encoding = "utf-8" if info.flag_bits & UTF8_FLAG else "cp437"
    if not signature.startswith(b"PK\3\4") or name.decode(encoding, "replace") != info.orig_filename:
        raise Refused(f"its entry {info.filename[:80]!r} is not where the list of entries says")
    return cursor.skip(info.file_size)


def _byte_order(info: zipfile.ZipInfo | None, data: memoryview) -> str:
    if info is None:
        return "little"
    record = bytes(data[_place(info, data)][:16])
    if record not in (b"little", b"big"):
        raise Refused(f"its byte order is {record!r}, neither little nor big")
    return record.decode()


def _read_stream(_: Path, data: memoryview) -> Contents:
    """Pickles of a magic number, a version, the system, the object and the list of storage keys; then the storages by that list."""
    unpickler, cursor = Unpickler(), Cursor(data)
    if unpickler.load(cursor) != MAGIC:
        raise Refused("it is a pickle without torch's magic number")
    if unpickler.load(cursor) != STREAM_VERSION:
        raise Refused(f"its stream format is not version {STREAM_VERSION}")
    _require_little_endian(unpickler.load(cursor))
    top, keys = unpickler.load(cursor), unpickler.load(cursor)
    if type(keys) is not list or sorted(map(storage_key, keys)) != sorted(unpickler.storages):
        raise Refused("its list of storages is not that of its tensors")
    places = {}
    for key in map(storage_key, keys):
        storage, places[key] = _storage(cursor, key, unpickler.storages[key].dtype)
        if storage != unpickler.storages[key]:
            raise Refused(f"storage {key} claims {unpickler.storages[key].num_elements:,} elements and has {storage.num_elements:,}")
    return Contents("stream", top, places)


def _require_little_endian(system: Any) -> None:
    if type(system) is not dict or system.get("little_endian") is not True:
        raise Refused("it was not written on a little-endian machine, or does not say so: save it again in torch")


def _storage(cursor: Cursor, key: str, dtype: str) -> tuple[Storage, slice]:
    """A number of elements, in 8 bytes, and these: what they are and where they lie."""
    storage = Storage(key, dtype, require_count(cursor.integer(), "the size of a storage"))
    return storage, cursor.skip(storage.num_bytes)


def _read_tar(_: Path, data: memoryview) -> Contents:
    """Members `sys_info`, `storages`, `tensors` and `pickle`, whose persistent ids are keys of the tensors."""
    members = dict(_members(data))
    if missing := set(TAR_MEMBERS) - set(members):
        raise Refused(f"its tar has no {' and no '.join(sorted(missing))}: it is not torch's, or truncated")
    unpickler = Unpickler()
    _require_little_endian(unpickler.load(members["sys_info"]))
    storages, places = _tar_storages(unpickler, members["storages"])
    _tar_tensors(unpickler, members["tensors"], storages)
    top = unpickler.load(members["pickle"])
    if unpickler.storages:
        raise Refused("its tar describes storages among the tensors")
    return Contents("tar", top, places)


def _members(data: memoryview) -> Iterator[tuple[str, Cursor]]:
    """The members of a tar: each a block of header and its bytes, filled up to whole blocks."""
    cursor, seen = Cursor(data), set()
    while any(header := cursor.read(TAR_BLOCK)):
        name, size = header[:100].rstrip(b"\0").decode("ascii", "replace"), header[124:136].strip(b" \0")
        if name not in TAR_MEMBERS or name in seen or header[156:157] not in b"0\0" or not size.isdigit() or set(size) & set(b"89"):
            raise Refused(f"its tar has a member named {name!r} that is damaged, comes twice, or is none of torch's")
        seen.add(name)
        place = cursor.skip(int(size, 8))
        yield name, Cursor(data[: place.stop], place.start)
        cursor.skip(-cursor.position % TAR_BLOCK)


def _tar_storages(unpickler: Unpickler, cursor: Cursor) -> tuple[dict[str, Storage], dict[str, slice]]:
    """A number of storages, for each a pickle (key, location, class) and the storage; then the list of their views."""
    storages, places = {}, {}
    for _ in range(require_count(unpickler.load(cursor), "the number of storages")):
        key, _, storage_class = _fields(unpickler.load(cursor), 3)
        new = _new(storage_key(key), storages)
        storages[new], places[new] = _storage(cursor, new, storage_dtype(storage_class))
    for item in _fields(unpickler.load(cursor)):
        target, root, offset, size = _fields(item, 4)
        storages[_new(storage_key(target), storages)] = view(_known(root, storages), offset, size)
    return storages, places


def _tar_tensors(unpickler: Unpickler, cursor: Cursor, storages: dict[str, Storage]) -> None:
    """A number of tensors, for each a pickle (key, storage, class), and in 8-byte numbers: dimensions, sizes, strides, offset."""
    for _ in range(require_count(unpickler.load(cursor), "the number of tensors")):
        key, storage, _ = _fields(unpickler.load(cursor), 3)
        # Only four bytes count; torch 0.1 left the other four as they were.
        num_dimensions = require_count(cursor.integer(4), "the number of dimensions")
        cursor.skip(4)
        sizes = struct.unpack(f"<{2 * num_dimensions}q", cursor.read(16 * num_dimensions))
        shape, strides = sizes[:num_dimensions], sizes[num_dimensions:]
        tensor = strided(_known(storage, storages), cursor.integer(), shape, strides)
        unpickler.tensors[_new(storage_key(key), unpickler.tensors)] = tensor


def _fields(value: Any, number: int | None = None) -> tuple | list:
    if not isinstance(value, tuple | list) or number not in (None, len(value)):
        raise Refused("its tar describes a storage or tensor in another way than torch")
    return value


def _new(key: str, known: dict[str, Any]) -> str:
    if key in known:
        raise Refused(f"its tar describes {key} twice")
    return key


def _known(key: Any, storages: dict[str, Storage]) -> Storage:
    if storage_key(key) not in storages:
        raise Refused(f"its tar refers to storage {storage_key(key)}, which it does not have")
    return storages[storage_key(key)]


# Where a signature stands, the signature, and the reader.
CONTAINERS: tuple[tuple[int, bytes, Callable[[Path, memoryview], Contents]], ...] = (
    (0, b"PK\3\4", _read_zip),
    (257, b"ustar", _read_tar),
    (0, b"\x80", _read_stream),
)
