"""Images without labels: files, directories and arrays as a user gives them. No TensorFlow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_keras.data.decode import decode_image
from tl_keras.data.folder_layout import SIDECARS, entries
from tl_keras.errors import ConfigError, MissingError
from tl_keras.utils.text import printable

Image = str | Path | np.ndarray
Images = Image | Sequence[Image]
EXPECTED = "Expected a path, an array uint8 RGB (h, w, 3) or (n, h, w, 3), or a list of these"


@dataclass(frozen=True)
class ImageInput:
    """An image: its name in results, and its file or its pixels uint8 (height, width, 3)."""

    name: str
    source: Path | np.ndarray

    def decode(self) -> np.ndarray:
        """Return the pixels, uint8 (height, width, 3). Raise DamagedError if the file is not an image."""
        return self.source if isinstance(self.source, np.ndarray) else decode_image(self.source)


def list_images(images: Images) -> list[ImageInput]:
    """Return the images that `images` name, in order. Nothing is decoded.

    Of a directory these are all files in it and its sub-directories, sorted, without hidden files, and without what file managers and
    annotation tools leave behind, see `folder_layout`.

    Args:
        images: a path, an array uint8 RGB (h, w, 3) or (n, h, w, 3), or a sequence of these.

    Raises:
        MissingError: A path does not exist.
        ConfigError: A directory has no files, or an array is not uint8 RGB.
        TypeError: `images` is something else.
    """
    given = [images] if isinstance(images, Image) else images
    if not isinstance(given, Sequence):
        raise TypeError(f"{EXPECTED}; received {type(images).__name__}.")
    found: list[ImageInput] = []
    for item in given:
        found += _from_array(item, len(found)) if isinstance(item, np.ndarray) else _from_path(item)
    return found


def _from_array(array: np.ndarray, position: int) -> list[ImageInput]:
    if array.dtype.kind == "f":
        raise ConfigError(
            f"An array of {array.dtype} is refused: pixels of 0..1 and of 0..255 cannot be told apart. {EXPECTED}; scale it to 0..255, "
            "round it and convert it to uint8."
        )
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3 or 0 in array.shape[-3:]:
        raise ConfigError(f"{EXPECTED}; received an array {array.dtype} {array.shape}.")
    pixels = array[None] if array.ndim == 3 else array
    return [ImageInput(f"image {position + index}", image) for index, image in enumerate(pixels)]


def _from_path(item: object) -> list[ImageInput]:
    if not isinstance(item, str | Path):
        raise TypeError(f"{EXPECTED}; received {type(item).__name__} in the list.")
    path = Path(item).expanduser()
    if not path.exists() and not path.is_symlink():
        raise MissingError(f"{printable(path)}: there is no such file or directory.")
    files = list(_files(path, set())) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{printable(path)}: the directory holds no images.")
    return [ImageInput(str(file), file) for file in files]


def _files(folder: Path, visited: set[Path]) -> Iterator[Path]:
    """Yield the files below `folder`. A directory is entered once, whatever links lead to it."""
    if (real := folder.resolve()) in visited:
        return
    visited.add(real)
    for path in entries(folder):
        if path.is_dir():
            yield from _files(path, visited)
        elif path.suffix.lower() not in SIDECARS:
            yield path
