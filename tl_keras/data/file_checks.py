"""Checks of image files: each is read, hashed and decoded once, and again only if it may have changed.

Results are kept between commands in the user's cache directory, outside the folder, which may be read-only. A file is known by inode,
size, and times of modification and of change in nanoseconds, so one that is replaced by another of equal size and age is read again.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import PIL

from tl_keras.data.decode import decode_with_note, read_bytes
from tl_keras.data.examples import content_digest
from tl_keras.data.near_copies import THUMBNAIL_BYTES, thumbnail
from tl_keras.errors import DamagedError, UserError
from tl_keras.utils.files import READ_ERRORS, read_npz, user_cache_directory, write_npz
from tl_keras.utils.progress import progress_bar
from tl_keras.utils.text import printable

VERSION = [4, PIL.__version__]  # of the decoder: another one may see other pixels
CHUNK = 64  # files that a thread checks at a time
KEY_BYTES, DIGEST_BYTES, PIXEL_BYTES = 16, 32, 8


@dataclass(frozen=True, slots=True)
class FileCheck:
    """Result of reading a file: SHA-256 of its content, hash and thumbnail of its pixels, (height, width), remark; or an error message."""

    digest: bytes = b""
    pixels: bytes = b""
    thumbnail: bytes = b""
    size: tuple[int, int] = (0, 0)
    note: str = ""
    error: str = ""


def check_files(paths: Sequence[Path], root: Path, *, rehash: bool = False) -> list[FileCheck]:
    """Read and decode image files in parallel.

    Args:
        root: folder of the data set, which the kept results belong to.
        rehash: True to read every file again.
    """
    known = _Kept() if rehash else _load(root)
    results: list[tuple[bytes, FileCheck]] = []
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar("checking images") as update:
        for part in pool.map(partial(_check_all, known=known), chunks):
            results += part
            update(len(results), len(paths))
    valid = {key: check for key, check in results if not check.error}
    if valid.keys() != known.rows.keys():
        _save(root, valid)
    return [check for _, check in results]


@dataclass(frozen=True)
class _Kept:
    """Kept results: the row of each key, and arrays of digests, hashes of pixels, thumbnails, sizes, and numbers of `notes`."""

    rows: Mapping[bytes, int] = field(default_factory=lambda: MappingProxyType({}))
    digests: np.ndarray = field(default_factory=lambda: np.zeros((0, DIGEST_BYTES), np.uint8))
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((0, PIXEL_BYTES), np.uint8))
    thumbnails: np.ndarray = field(default_factory=lambda: np.zeros((0, THUMBNAIL_BYTES), np.uint8))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    note_of: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    notes: Sequence[str] = ("",)

    def get(self, key: bytes) -> FileCheck | None:
        if (row := self.rows.get(key)) is None:
            return None
        digest, pixels, thumbnail = (array[row].tobytes() for array in (self.digests, self.pixels, self.thumbnails))
        height, width = self.sizes[row].tolist()
        return FileCheck(digest, pixels, thumbnail, (height, width), self.notes[self.note_of[row]])


def _check_all(paths: Sequence[Path], known: _Kept) -> list[tuple[bytes, FileCheck]]:
    return [_check(path, known) for path in paths]


def _check(path: Path, known: _Kept) -> tuple[bytes, FileCheck]:
    """Return the key of a file and its check. The key is that from before reading, so a file that changes meanwhile is read again."""
    try:
        key = _key(path)
        if found := known.get(key):
            return key, found
        content = read_bytes(path)
        pixels, note = decode_with_note(content, printable(path))
        digest = hashlib.sha256(content).digest()
        return key, FileCheck(digest, content_digest(pixels), thumbnail(pixels), pixels.shape[:2], note)
    except DamagedError as error:
        return b"", FileCheck(error=str(error))


def _key(path: Path) -> bytes:
    """Return a hash that a changed file does not have any more; an empty one for a link that leads nowhere."""
    try:
        status = path.stat()
    except OSError:
        return b""
    stamps = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return hashlib.blake2b(f"{stamps}".encode() + os.fsencode(path), digest_size=KEY_BYTES).digest()


def _cache_file(root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:16]
    return user_cache_directory() / "checks" / f"{name}.npz"


def _load(root: Path) -> _Kept:
    """Return the kept results; none if the file is absent, damaged or of another version."""
    try:
        arrays, meta = read_npz(_cache_file(root))
        names = ("keys", "digests", "pixels", "thumbnails", "sizes", "note_of")
        keys, digests, pixels, thumbnails, sizes, note_of = columns = [arrays[name] for name in names]
        n, widths = len(keys), (KEY_BYTES, DIGEST_BYTES, PIXEL_BYTES, THUMBNAIL_BYTES, 2)
        is_valid = [array.shape for array in columns] == [*((n, width) for width in widths), (n,)] and keys.dtype == np.uint8
        if meta["version"] != VERSION or not is_valid or thumbnails.dtype != np.uint8 or not (note_of < len(meta["notes"])).all():
            return _Kept()
        joined = keys.tobytes()
        rows = {joined[KEY_BYTES * row : KEY_BYTES * (row + 1)]: row for row in range(n)}
        return _Kept(rows, digests, pixels, thumbnails, sizes, note_of, [str(note) for note in meta["notes"]])
    except READ_ERRORS:
        return _Kept()


def _save(root: Path, checks: Mapping[bytes, FileCheck]) -> None:
    """Keep the results; without a directory to write to, the files are checked again next time."""
    numbers = {note: number for number, note in enumerate(dict.fromkeys(check.note for check in checks.values()))}
    values = list(checks.values())
    arrays = {
        "keys": _rows(list(checks), KEY_BYTES),
        "digests": _rows([check.digest for check in values], DIGEST_BYTES),
        "pixels": _rows([check.pixels for check in values], PIXEL_BYTES),
        "thumbnails": _rows([check.thumbnail for check in values], THUMBNAIL_BYTES),
        "sizes": np.array([check.size for check in values], np.int32).reshape(-1, 2),
        "note_of": np.array([numbers[check.note] for check in values], np.int32),
    }
    try:
        write_npz(_cache_file(root), arrays, meta={"version": VERSION, "notes": list(numbers)})
    except (OSError, UserError):
        return


def _rows(values: Sequence[bytes], length: int) -> np.ndarray:
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, length)
