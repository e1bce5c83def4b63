"""Checks of image files: each is read, hashed and decoded once, and again only if it may have changed.

Results are kept between commands in the user's cache directory, outside the folder, which may be read-only. A file is known by inode,
size, and times of modification and of change in nanoseconds, so one that is replaced by another of equal size and age is read again.
"""

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import PIL

from tl_keras.data.decode import decode_with_note, read_bytes
from tl_keras.data.examples import content_digest
from tl_keras.errors import DamagedError, UserError
from tl_keras.utils.files import read_json, user_cache_directory, write_json
from tl_keras.utils.text import printable

VERSION = [2, PIL.__version__]  # of the decoder: another one may see other pixels


@dataclass(frozen=True)
class FileCheck:
    """Result of reading a file: SHA-256 of its content, hash of its pixels, (height, width) and a remark, or an error message."""

    digest: bytes = b""
    pixels: bytes = b""
    size: tuple[int, int] = (0, 0)
    note: str = ""
    error: str = ""


def check_files(paths: Sequence[Path], root: Path, *, rehash: bool = False) -> list[FileCheck]:
    """Read and decode image files in parallel, with a progress line on a terminal.

    Args:
        root: folder of the data set, which the kept results belong to.
        rehash: True to read every file again.
    """
    known = {} if rehash else _load(root)
    results: list[tuple[str, FileCheck]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(_check, paths, repeat(known)):
            results.append(result)
            if sys.stderr.isatty() and (len(results) % 100 == 0 or len(results) == len(paths)):
                print(f"\rChecking images: {len(results)} of {len(paths)}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    valid = {key: check for key, check in results if not check.error}
    if valid.keys() != known.keys():
        _save(root, valid)
    return [check for _, check in results]


def _check(path: Path, known: Mapping[str, FileCheck]) -> tuple[str, FileCheck]:
    """Return the key of a file and its check. The key is that from before reading, so a file that changes meanwhile is read again."""
    try:
        key = _key(path)
        if found := known.get(key):
            return key, found
        content = read_bytes(path)
        pixels, note = decode_with_note(content, printable(path))
        return key, FileCheck(hashlib.sha256(content).digest(), content_digest(pixels), pixels.shape[:2], note)
    except DamagedError as error:
        return "", FileCheck(error=str(error))


def _key(path: Path) -> str:
    """Return a text that a changed file does not have any more; an empty one for a link that leads nowhere."""
    try:
        status = path.stat()
    except OSError:
        return ""
    stamps = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join([*map(str, stamps), printable(path)])


def _cache_file(root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:16]
    return user_cache_directory() / "checks" / f"{name}.json"


def _load(root: Path) -> dict[str, FileCheck]:
    """Return the kept results by key; none if the file is absent, damaged or of another version."""
    content = read_json(_cache_file(root))
    try:
        return {key: _from_json(value) for key, value in content["checks"].items()} if content["version"] == VERSION else {}
    except (TypeError, KeyError, ValueError, AttributeError):
        return {}


def _from_json(value: Any) -> FileCheck:
    digest, pixels, height, width, note = value
    return FileCheck(bytes.fromhex(digest), bytes.fromhex(pixels), (int(height), int(width)), str(note))


def _save(root: Path, checks: Mapping[str, FileCheck]) -> None:
    """Keep the results; without a directory to write to, the files are checked again next time."""
    rows = {key: [check.digest.hex(), check.pixels.hex(), *check.size, check.note] for key, check in checks.items()}
    try:
        write_json(_cache_file(root), {"version": VERSION, "checks": rows})
    except (OSError, UserError):
        return
