"""The one decoder of all images, whether they come from a file or from a record of a data set."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tl_keras.errors import DamagedError

MAX_PIXELS = 100_000_000
MAX_BYTES = 2**29
# Pillow converts these grey modes to 8 bits by clipping instead of scaling. It scales 16-bit colour correctly.
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # an image of mode `I` in these formats holds 16 bits


def decode_image(source: bytes | Path, name: str = "") -> np.ndarray:
    """Decode an image to RGB.

    Of an animation the first frame is taken. EXIF orientation is applied, and transparent pixels are blended with white.

    Args:
        source: encoded bytes, or the path of a file.
        name: name of the image in messages; default: the path.

    Returns:
        uint8 (height, width, 3).

    Raises:
        DamagedError: The image is not one, is truncated, exceeds `MAX_PIXELS` or `MAX_BYTES`, or has 32-bit pixels.
    """
    name = name or (str(source) if isinstance(source, Path) else "the image")
    data = source if isinstance(source, bytes) else read_bytes(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; `_to_rgb` checks the size before decoding
            with Image.open(io.BytesIO(data)) as image:
                return _to_rgb(image, name)
    except DamagedError:
        raise
    except UnidentifiedImageError:
        raise DamagedError(_not_an_image(name, data)) from None
    except Exception as error:  # on hostile files, decoders raise exceptions of any type
        raise DamagedError(f"{name}: the image cannot be decoded ({error}). Replace or remove it.") from error


def read_bytes(path: Path) -> bytes:
    """Return the content of an image file.

    Raises:
        DamagedError: The file is not a regular file, cannot be read, or exceeds `MAX_BYTES`.
    """
    try:
        if not path.is_file():
            raise DamagedError(f"{path}: not a regular file; expected an image. Replace or remove it.")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DamagedError(f"{path}: {size:,} bytes; an image may have at most {MAX_BYTES:,}. Make it smaller or remove it.")
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path}: the file cannot be read ({error.strerror}). Replace or remove it.") from error


def _not_an_image(name: str, data: bytes) -> str:
    received = f"{len(data):,} bytes that start with {data[:8]!r}" if data else "an empty file"
    if data[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        received = "an HTML page, which failed downloads often leave behind"
    return f"{name}: expected an image, received {received}. Replace or remove it."


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DamagedError(f"{name}: {width} x {height} pixels; an image may have at most {MAX_PIXELS:,}. Make it smaller.")
    upright = ImageOps.exif_transpose(image)  # its `format` may be None, so `image` is asked below
    if image.mode in SIXTEEN_BIT_MODES or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        upright = Image.fromarray(np.round(np.asarray(upright, np.float64) / 257).clip(0, 255).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DamagedError(f"{name}: pixels of 32 bits have no known range; expected 8 or 16 bits. Convert the image.")
    if upright.has_transparency_data:
        coloured = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
    return np.asarray(upright.convert("RGB"))
