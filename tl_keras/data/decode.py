"""The one decoder of all images, whether they come from a file or from a record of a data set."""

import importlib
import io
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from tl_keras.data.file_formats import describe_format
from tl_keras.errors import DamagedError
from tl_keras.utils.text import printable

MAX_PIXELS = 100_000_000
MAX_BYTES = 2**29
# Pillow converts these grey modes to 8 bits by clipping instead of scaling. It scales 16-bit colour correctly.
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # an image of mode `I` in these formats holds 16 bits
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_METADATA = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"tIME"})  # Pillow refuses an image whose texts or profile are large
XCODE_CHUNK = b"CgBI"  # first in a PNG as Xcode rewrites it for iPhones, which Pillow decodes to white without an error
RAW_SIGNATURE = b"CR"  # at byte 8 of a TIFF: Canon's raw file
DNG_VERSION, NEW_SUBFILE_TYPE, REDUCED = 50706, 254, 1  # tags of TIFF, and the flag of a preview: other cameras' raw files
JPEG_END = b"\xff\xd9"
ORIENTATION = 0x0112  # tag of EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
NO_END = "JPEG without its end marker, all pixels are there"
LOW_RANGE = "16 bits of which at most 12 are used, so it is nearly black"


class DecodedImage(NamedTuple):
    """Pixels uint8 (height, width, 3), and a remark on the file; empty if there is none."""

    pixels: np.ndarray
    note: str


def decode_image(source: bytes | Path, name: str = "") -> np.ndarray:
    """Return the pixels that `decode_with_note` decodes, uint8 (height, width, 3)."""
    return decode_with_note(source, name).pixels


def decode_with_note(source: bytes | Path, name: str = "") -> DecodedImage:
    """Decode an image to RGB.

    Of an animation the first frame is taken. EXIF orientation is applied, and transparent pixels are blended with white. Metadata
    that Pillow refuses are left out, so they cost no image.

    Args:
        source: encoded bytes, or the path of a file.
        name: name of the image in messages; default: the path.

    Raises:
        DamagedError: The image is not one, is truncated, exceeds `MAX_PIXELS` or `MAX_BYTES`, has 32-bit pixels, or is a preview in a
            camera's raw file.
    """
    name = name or (printable(source) if isinstance(source, Path) else "the image")
    data = source if isinstance(source, bytes) else read_bytes(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; `_to_rgb` checks the size before decoding
            return _decode(data, name)
    except DamagedError:
        raise
    except UnidentifiedImageError:
        raise DamagedError(f"{name}: expected an image, received {describe_format(data)}.") from None
    except Exception as error:  # on hostile files, decoders raise exceptions of any type
        raise DamagedError(f"{name}: the image cannot be decoded ({error}). Replace or remove it.") from error


def read_bytes(path: Path) -> bytes:
    """Return the content of an image file.

    Raises:
        DamagedError: The file is not a regular file, cannot be read, or exceeds `MAX_BYTES`.
    """
    try:
        if not path.is_file():
            raise DamagedError(f"{printable(path)}: not a regular file; expected an image. Replace or remove it.")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DamagedError(f"{printable(path)}: {size:,} bytes; an image may have at most {MAX_BYTES:,}. Make it smaller or remove it.")
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{printable(path)}: the file cannot be read ({error.strerror}). Replace or remove it.") from error


def _without_metadata(data: bytes) -> bytes:
    """Return a PNG without the chunks of PNG_METADATA; other data unchanged."""
    if not data.startswith(PNG_SIGNATURE):
        return data
    return PNG_SIGNATURE + b"".join(chunk for kind, chunk in _png_chunks(data) if kind not in PNG_METADATA)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and all bytes of each chunk of a PNG. The last may be cut off."""
    start = len(PNG_SIGNATURE)
    while start < len(data):
        length = struct.unpack(">I", data[start : start + 4])[0] if start + 4 <= len(data) else 0
        end = start + length + 12  # length, type and checksum have 4 bytes each
        yield data[start + 4 : start + 8], data[start:end]
        start = end


def _decode(data: bytes, name: str) -> DecodedImage:
    if data[12:16] == XCODE_CHUNK:
        raise UnidentifiedImageError
    try:
        return _decode_complete(data, name)
    except Exception:  # whatever Pillow raises for texts or a profile that it refuses
        if (bare := _without_metadata(data)) == data:
            raise
        return _decode_complete(bare, name)


def _decode_complete(data: bytes, name: str) -> DecodedImage:
    """Return the decoded image, also if it is a JPEG that lacks nothing but its end marker."""
    try:
        with _open(data) as image:
            _check_no_preview(image, data, name)
            return _to_rgb(image, name)
    except OSError:
        pixels = _complete_jpeg(data, name)
        if pixels is None:
            raise
        return DecodedImage(pixels, NO_END)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        if not _register_heif():
            raise
        return Image.open(io.BytesIO(data))


def _check_no_preview(image: Image.Image, data: bytes, name: str) -> None:
    """Raise DamagedError for a camera's raw file in the format TIFF: its first image is a small preview."""
    tags = getattr(image, "tag_v2", {})
    if image.format == "TIFF" and (data[8:10] == RAW_SIGNATURE or DNG_VERSION in tags or tags.get(NEW_SUBFILE_TYPE) == REDUCED):
        raise DamagedError(f"{name}: a camera's raw file, of which only a preview can be read. Convert it to JPEG or PNG.")


def _register_heif() -> bool:
    """Let Pillow read HEIC if the package pillow-heif is installed."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


def _complete_jpeg(data: bytes, name: str) -> np.ndarray | None:
    """Return the pixels of a sequential JPEG that lacks nothing but its end marker, else None.

    Decoders go on with what follows the data. If pixels were missing, those of different continuations would differ.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.format != "JPEG" or image.info.get("progressive"):
            return None
    results = []
    for filler in (b"", b"\x55" * 64, b"\xaa" * 64):
        with Image.open(io.BytesIO(data + filler + JPEG_END)) as image:
            results.append(_to_rgb(image, name).pixels)
    first, *others = results
    return first if all(np.array_equal(first, other) for other in others) else None


def _to_rgb(image: Image.Image, name: str) -> DecodedImage:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DamagedError(f"{name}: {width} x {height} pixels; an image may have at most {MAX_PIXELS:,}. Make it smaller.")
    orientation, note = _orientation(image), ""
    if image.mode in SIXTEEN_BIT_MODES or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        image, note = _eight_bits(image)
    elif isinstance(image, ImageFile.StubImageFile):  # Pillow knows the format, and cannot decode it
        raise UnidentifiedImageError
    elif image.mode in ("I", "F"):
        raise DamagedError(f"{name}: pixels of 32 bits have no known range; expected 8 or 16 bits. Convert the image.")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
    image = image.convert("RGB")
    return DecodedImage(np.asarray(image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image), note)


def _orientation(image: Image.Image) -> object:
    """Return the orientation in the EXIF data of `image`; 1 if there is none that can be read."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data raise exceptions of any type
        return 1


def _eight_bits(image: Image.Image) -> tuple[Image.Image, str]:
    """Return a grey image of 16 bits in 8 bits, and a note if it uses few of them. A transparent grey becomes white."""
    values = np.asarray(image, np.float64)
    grey = np.round(values / 257).clip(0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    note = LOW_RANGE if 255 < values.max(initial=0) < 2**12 else ""
    return Image.fromarray(np.where(values == transparent, np.uint8(255), grey) if isinstance(transparent, int) else grey), note
