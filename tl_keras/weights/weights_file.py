"""The record of a published weights file, and the check that a file on disk is the published one."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tl_keras.errors import DamagedError
from tl_keras.utils.progress import progress_bar

# Number of hex digits of a hash -> its algorithm. Eight digits are the beginning of a SHA-256.
ALGORITHMS = {0: "", 8: "sha256", 32: "md5", 64: "sha256"}
PREFIX_DIGITS = 8
CHUNK_BYTES = 2**20  # read at a time
WEB_PAGE = (b"<!doctype", b"<html", b"<?xml")

Accuracy = tuple[float, ...]


@dataclass(frozen=True)
class WeightsFile:
    """An entry of the registry: one published weights file.

    Attributes:
        variant: value of the setting `weights` that selects the file.
        name: file name in every cache.
        url: download address; empty for files that are not downloaded: the bundled one, and those of a Python package.
        hash: MD5 or SHA-256 in hex, or the first 8 digits of a SHA-256; empty if none is published.
        size: size in bytes; 0 if unknown.
        top: True if the file contains a classifier beside the backbone.
        licence: SPDX identifier of the licence of the weights.
        source: publisher: `keras`, `torchvision`, `augreg`, `package_index` for the file of a Python package, or `embedded`.
        normalization: key of NORMALIZATIONS that the weights were trained with; empty: that of the backbone.
        resize: shorter side in pixels to which test images were resized; 0 if it is not published.
        crop: side in pixels of the centre crop after that; 0: the backbone's image size.
        interpolation: interpolation of that resize.
        accuracy: published top-1 and top-5 accuracy on ImageNet in percent, with this preprocessing; empty if not published.
        package: Python package that contains the file in its folder `models`; empty: none.
    """

    variant: str
    name: str
    url: str = ""
    hash: str = ""
    size: int = 0
    top: bool = False
    licence: str = "Apache-2.0"
    source: str = "embedded"
    normalization: str = ""
    resize: int = 0
    crop: int = 0
    interpolation: str = "bilinear"
    accuracy: Accuracy = ()
    package: str = ""

    @property
    def embedded(self) -> bool:
        """True if the package bundles the file."""
        return self.source == "embedded"

    @property
    def algorithm(self) -> str:
        """Algorithm of the hash, as hashlib names it."""
        return ALGORITHMS[len(self.hash)]

    @property
    def hash_text(self) -> str:
        """Text of the hash for a message."""
        if not self.hash:
            return "no hash is published"
        return f"{self.algorithm} {'beginning with ' if len(self.hash) == PREFIX_DIGITS else ''}{self.hash}"

    @property
    def non_commercial(self) -> bool:
        """True if the licence forbids commercial use."""
        return "-NC-" in self.licence


class TensorInfo(NamedTuple):
    """Name, shape and dtype of one tensor in a file. The dtype has the name that the file format gives it."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def verify(path: Path, entry: WeightsFile) -> None:
    """Raise DamagedError, with the reason, if `path` is not the published file of `entry`."""
    if reason := mismatch(path, entry):
        source = entry.url or f"that of a new installation of {entry.package or 'this package'}."
        raise DamagedError(f"{path} is not the published {entry.name}: {reason}. Move it away and run again, or replace it by {source}")


def mismatch(path: Path, entry: WeightsFile) -> str:
    """Return why `path` is not the published file: a web page, another size, or another hash. Return "" if it matches."""
    status = path.stat()
    with path.open("rb") as file:
        beginning = file.read(64).lstrip().lower()
    if beginning.startswith(WEB_PAGE):
        return "it is a web page"
    if not status.st_size or (entry.size and status.st_size != entry.size):
        return f"it has {status.st_size:,} bytes{f', expected {entry.size:,}' if entry.size else ''}"
    received = file_hash(path, entry.algorithm) if entry.hash else ""
    return "" if received.startswith(entry.hash) else f"expected {entry.hash_text}, received {received}"


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return the hash of a file in hex. It is computed once for a file that does not change."""
    status = path.stat()
    return _file_hash(path, algorithm, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _file_hash(path: Path, algorithm: str, size: int, modified: int) -> str:
    """Return the hash of a file in hex. `size` and `modified` are cache keys: a changed file is hashed again."""
    digest, done = hashlib.new(algorithm), 0
    with path.open("rb") as file, progress_bar(f"verifying {path.name}", unit="B") as update:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            update(done, size)
    return digest.hexdigest()
