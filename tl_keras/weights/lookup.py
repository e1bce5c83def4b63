"""Find a weights file, verify it, or fetch it. A file that the user has is never deleted or overwritten."""

import hashlib
import os
import sys
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from tl_keras.backbones import get_backbone
from tl_keras.errors import DamagedError, MissingError, unknown
from tl_keras.network import reachable
from tl_keras.weights.registry import WEIGHTS, WeightsFile

EMBEDDED = Path(__file__).parents[1] / "data" / "embedded"
TIMEOUT_SECONDS = 10.0
MAX_BYTES = 4 * 2**30
CHUNK = 2**20


def locate(backbone_name: str, weights: str, weights_dir: str = "") -> Path | None:
    """The weights file that `--weights` names, verified; fetched where it is not at hand and its host answers.

    Args:
        weights: `none`, a variant of the registry (`imagenet`), or the path of a file.
        weights_dir: where files are looked for first and fetched to; empty: the Keras cache, `$KERAS_HOME` or `~/.keras`, `models/`.

    Returns:
        The file, or None for `none`.

    Raises:
        ConfigError: `weights` is none of these.
        MissingError: the file is neither at hand nor obtainable; the message says how to get it.
        DamagedError: the file's hash is not the published one.
    """
    backbone = get_backbone(backbone_name)
    if weights == "none":
        return None
    for row in WEIGHTS.get(backbone.name, ()):
        if row.variant == weights:
            return _embedded(row) if row.embedded else _find(row, _directories(weights_dir))
    if any(row.variant == weights for rows in WEIGHTS.values() for row in rows):
        raise _no_variant(backbone.name, weights)
    return _own_file(backbone.name, weights)


def _no_variant(backbone_name: str, variant: str) -> MissingError:
    having = ", ".join(name for name, rows in WEIGHTS.items() if any(row.variant == variant for row in rows))
    return MissingError(
        f"flag --weights={variant}: there are no {variant} weights of {backbone_name} that can be fetched. "
        f"Give the path of a file (.weights.h5, .keras or .npz) that holds them, or use a backbone that has them: {having}."
    )


def _own_file(backbone_name: str, weights: str) -> Path:
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if path.parent != Path(".") or path.suffix in (".h5", ".keras", ".npz"):
        raise MissingError(f"flag --weights={weights}: there is no such file. Looked for {path.absolute()}.")
    raise unknown(f"weights of {backbone_name}", weights, ["none", *(row.variant for row in WEIGHTS.get(backbone_name, ())), "PATH"])


def _embedded(row: WeightsFile) -> Path:
    path = EMBEDDED / row.name
    if not path.is_file():
        raise MissingError(f"{path}, which the package should carry, is not there. Reinstall the package, or make it anew: make embedded.")
    return path


def _directories(weights_dir: str) -> list[Path]:
    """Where weights lie, the first place being the one to fetch to."""
    cache = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    return [Path(weights_dir).expanduser(), cache] if weights_dir else [cache]


def _find(row: WeightsFile, directories: list[Path]) -> Path:
    for path in (directory / row.name for directory in directories):
        if path.is_file():
            _verify(path, row)
            return path
    if not reachable(row.url, TIMEOUT_SECONDS):
        raise MissingError(
            f"The weights file {row.name} is not in {' or '.join(map(str, directories))}, and {row.url} does not answer. "
            f"Fetch it elsewhere and put it there under that name ({row.hash_text}), or point --weights_dir at its directory."
        )
    return _download(row, directories[0])


@lru_cache(maxsize=32)
def _digest(path: Path, algorithm: str, size: int, modified: int) -> str:
    """Hex digest of a file; `size` and `modified` are there to tell a changed file from the one that was read before."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _verify(path: Path, row: WeightsFile) -> None:
    status = path.stat()
    received = _digest(path, row.algorithm, status.st_size, status.st_mtime_ns) if row.hash else ""
    if received != row.hash:
        raise DamagedError(
            f"{path} ({status.st_size:,} bytes) is not the published file: expected {row.algorithm} {row.hash}, received {received}. "
            f"Move it away and run again, or replace it by {row.url}"
        )


def _download(row: WeightsFile, directory: Path) -> Path:
    """Fetch to a temporary file beside the final one, verify, rename."""
    path, partial = directory / row.name, directory / f"{row.name}.{os.getpid()}.part"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(row.url, timeout=TIMEOUT_SECONDS) as response, partial.open("xb") as file:
            _copy(response, file, row.name, int(response.headers.get("Content-Length") or 0))
        _verify(partial, row)
        partial.replace(path)
    except OSError as error:
        raise MissingError(f"Fetching {row.url} to {path} failed: {error}. Try again, or put the file there ({row.hash_text}).") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _copy(response: BinaryIO, file: BinaryIO, name: str, total: int) -> None:
    done = 0
    while chunk := response.read(CHUNK):
        done += len(chunk)
        if done > MAX_BYTES:
            raise OSError(f"more than {MAX_BYTES:,} bytes came")
        file.write(chunk)
        print(f"\r{name}: {done / 2**20:.0f} of {total / 2**20:.0f} MiB", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if total and done != total:
        raise OSError(f"{done:,} of {total:,} bytes came")
