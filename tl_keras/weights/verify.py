"""Whether a file is the one that the registry describes."""

import hashlib
from functools import lru_cache
from pathlib import Path

from tl_keras.errors import DamagedError
from tl_keras.weights.weights_file import WeightsFile

WEB_PAGE = (b"<!doctype", b"<html", b"<?xml")


def verify(path: Path, row: WeightsFile) -> None:
    """DamagedError, with the reason, where the file is not the published one: a web page, or another size or hash."""
    if reason := wrong(path, row):
        source = row.url or "that of a new installation"
        raise DamagedError(f"{path} is not the published {row.name}: {reason}. Move it away and run again, or replace it by {source}")


def wrong(path: Path, row: WeightsFile) -> str:
    """Why a file is not the one that the registry describes; empty where it is, as far as is known."""
    status = path.stat()
    with path.open("rb") as file:
        beginning = file.read(64).lstrip().lower()
    if beginning.startswith(WEB_PAGE):
        return "it is a web page"
    if not status.st_size or (row.size and status.st_size != row.size):
        return f"it has {status.st_size:,} bytes{f', expected {row.size:,}' if row.size else ''}"
    received = _digest(path, row.algorithm, status.st_size, status.st_mtime_ns) if row.hash else ""
    return "" if received.startswith(row.hash) else f"expected {row.hash_text}, received {received}"


@lru_cache(maxsize=64)
def _digest(path: Path, algorithm: str, size: int, modified: int) -> str:
    """Hex digest of a file; `size` and `modified` are there to tell a changed file from the one that was read before."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
