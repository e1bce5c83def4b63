"""Files written whole or not at all, and read back without surprises: JSON, CSV and NPZ.

Every file of a run, a cache or a report is written through `atomic_write`, so a killed process or a full disk never leaves
half a file under the final name.
"""

import contextlib
import csv
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import UserError

# Errors of reading an absent, truncated or corrupt JSON, CSV or NPZ file.
READ_ERRORS = (OSError, ValueError, LookupError, TypeError, RuntimeError, EOFError, struct.error, zipfile.BadZipFile, zlib.error, csv.Error)

META = "meta"  # the name under which an NPZ file holds its JSON record


def is_path(text: str) -> bool:
    """Return True if the value of a setting is a path and not a name: it has a separator, a suffix or a `~`.

    >>> [is_path(text) for text in ("imagenet", "./imagenet", "model.keras", "~")]
    [False, True, True, True]
    """
    return os.sep in text or "." in text or text.startswith("~")


def user_cache_directory() -> Path:
    """Return the directory of what can be computed again: `$XDG_CACHE_HOME/tl_keras` or `~/.cache/tl_keras`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "tl_keras"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. It replaces `path` if the block succeeds and is removed if it does not.

    Raises:
        UserError: The file cannot be written, e.g. because the disk is full.
    """
    temporary = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. Free space or choose another directory, then run the same command again."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None if it is absent, unreadable or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a CSV table with one header line and `\\n` line ends."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return file.getvalue()


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows`, at least one, to `path` as CSV. The keys of the first row are the columns."""
    columns = list(rows[0])
    write_text(path, csv_text(columns, ([row[column] for column in columns] for row in rows)))


def write_npz(path: Path, arrays: Mapping[str, np.ndarray], *, meta: Any = None, compress: bool = False) -> None:
    """Write named arrays to `path`. `meta`, if given, is stored beside them as JSON."""
    content: dict[str, Any] = {**arrays} if meta is None else {**arrays, META: np.array(json.dumps(meta))}
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        (np.savez_compressed if compress else np.savez)(file, **content)


def read_npz(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """Return the arrays of `path` and its `meta`, or None for the latter. Nothing is unpickled.

    Raises:
        One of READ_ERRORS: The file is absent, truncated, corrupt or not such a file.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    meta = arrays.pop(META, None)
    return arrays, None if meta is None else json.loads(str(meta))
