"""Fetch a file of the registry: resumed where it was cut off, verified, written beside and renamed, by one process at a time.

The partial file `NAME.part` is also the lock. It stays where the connection breaks for good, if a hash can tell its bytes from
another file's, and the next call goes on from there; bytes that prove wrong are removed.
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.weights.http_transfer import BROKEN, Patience, Report, transfer
from tl_keras.weights.verify import verify, wrong
from tl_keras.weights.weights_file import WeightsFile

PATIENCE = Patience()


def fetch(row: WeightsFile, directory: Path, patience: Patience = PATIENCE) -> Path:
    """Fetch the file of `row` into `directory`, unless another process does so meanwhile.

    Returns:
        The verified file.

    Raises:
        MissingError: the server does not give it; the message says how to get it otherwise.
        DamagedError: what the server gives is not the published file; nothing of it is kept.
        ConfigError: `directory` is a file.
        OSError: the directory cannot be written to, or the disk is full.
    """
    path = directory / row.name
    _make(directory)
    with _sole(path) as partial:
        if partial is None:
            verify(path, row)
            return path
        try:
            with _progress(row) as report:
                transfer(row, partial, patience, report)
            os.fsync(partial.fileno())
            _require_published(Path(partial.name), row)
        except DamagedError:
            os.unlink(partial.name)
            raise
        except BROKEN as error:
            kept = _keep_partial(partial, row)
            raise MissingError(f"Fetching {row.name} failed: {error}.{kept} {how_to_get(row, [directory])}") from error
        os.replace(partial.name, path)
    return path


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"{directory} cannot be a directory of weights: {error}. Give another `weights_dir` or TL_KERAS_WEIGHTS."
        ) from error


def how_to_get(row: WeightsFile, directories: list[Path]) -> str:
    """What to do where the file cannot be fetched, for a message."""
    size = f"{row.size:,} bytes, " if row.size else ""
    return (
        f"Run again where {row.url} can be reached; or fetch it elsewhere and put it into {' or '.join(map(str, directories))} "
        f"under the name {row.name} ({size}{row.hash_text}); or point `weights_dir` at its directory."
    )


def _require_published(partial: Path, row: WeightsFile) -> None:
    if reason := wrong(partial, row):
        raise DamagedError(f"What was fetched from {row.url} is not the published {row.name}: {reason}. Nothing of it is kept. Run again.")


@contextmanager
def _sole(path: Path) -> Iterator[BinaryIO | None]:
    """The partial file of `path`, open and locked; None where the whole file is there once the lock is had."""
    partial = path.with_name(f"{path.name}.part")
    while True:
        with partial.open("ab") as file:
            _lock(file)
            if not _is_at(file, partial):  # whoever held the lock before has renamed or removed it
                continue
            if path.is_file():
                partial.unlink()
                yield None
            else:
                yield file
            return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: BinaryIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another process, which is fetching {Path(file.name).stem}", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)


def _keep_partial(partial: BinaryIO, row: WeightsFile) -> str:
    """Remove the partial file where nothing could tell its bytes from another file's; otherwise say that it stays."""
    size = partial.tell()
    if row.hash and size:
        return f" {size:,} bytes are kept in {partial.name}, and the same command goes on from there."
    os.unlink(partial.name)
    return ""


@contextmanager
def _progress(row: WeightsFile) -> Iterator[Report]:
    """A function that takes bytes done and bytes in all (0 if unknown): a bar on a terminal, one line elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"fetching {row.name} from {row.url}", file=sys.stderr, flush=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(row.name, total=row.size or None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)
