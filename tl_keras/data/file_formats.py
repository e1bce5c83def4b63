"""Names of file formats that are found in place of images, and what to do about each."""

import re
from collections.abc import Callable
from typing import NamedTuple

REPLACE = "Replace or remove it"
CONVERT = "Convert it to JPEG or PNG"
BEGINNING = 512  # bytes that are looked at


class FileFormat(NamedTuple):
    """A format: a description, what to do, and a test of the first `BEGINNING` bytes."""

    description: str
    advice: str
    matches: Callable[[bytes], object]


def _starts(*signatures: bytes) -> Callable[[bytes], object]:
    return lambda data: data.startswith(signatures)


def _text(pattern: bytes) -> Callable[[bytes], object]:
    """Return a test for a pattern at the start of a text, after a byte order mark and white space."""
    compiled = re.compile(rb"(?:\xef\xbb\xbf)?\s*" + pattern, re.IGNORECASE | re.DOTALL)
    return compiled.match


def _brand(*brands: bytes) -> Callable[[bytes], object]:
    """Return a test for the brand of an ISO media file."""
    return lambda data: data[4:8] == b"ftyp" and data[8:12] in brands


FORMATS = (
    FileFormat("an HTML page, which failed downloads often leave behind", REPLACE, _text(rb"<!doctype html|<html")),
    FileFormat("an SVG drawing", CONVERT, _text(rb"(?:<\?xml.*)?<svg")),
    FileFormat("JSON, which failed downloads often leave behind", REPLACE, _text(rb"[\[{]\s*[\"\]}]")),
    FileFormat("a pointer of Git LFS in place of the image", "Fetch the images with `git lfs pull`", _text(rb"version https://git-lfs")),
    FileFormat("a pointer of git-annex in place of the image", "Fetch the images with `git annex get`", _text(rb"\S{0,20}/annex/objects/")),
    FileFormat(
        "an HEIC photograph",
        "Install its decoder, `pip install pillow-heif`, or convert it to JPEG",
        _brand(b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"),
    ),
    FileFormat("an AVIF image", "Install a newer Pillow, `pip install -U 'pillow>=11.3'`, or convert it to JPEG", _brand(b"avif", b"avis")),
    FileFormat(
        "a PNG as Xcode rewrites it for iPhones",
        "Restore it with `pngcrush -revert-iphone-optimizations`",
        lambda data: data[12:16] == b"CgBI",
    ),
    FileFormat("a JPEG XL image", CONVERT, _starts(b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    FileFormat(
        "a camera's raw file", CONVERT, lambda data: _brand(b"crx ")(data) or _starts(b"FUJIFILMCCD-RAW", b"IIRO", b"IIU\0", b"FOVb")(data)
    ),
    FileFormat("a video", "Extract its frames, or remove it", lambda data: data[4:8] == b"ftyp" or data.startswith(b"\x1aE\xdf\xa3")),
    FileFormat("a PDF document", CONVERT, _starts(b"%PDF")),
    FileFormat("a DICOM file", CONVERT, lambda data: data[128:132] == b"DICM"),
    FileFormat("an OpenEXR image", CONVERT, _starts(b"v/1\x01")),
    FileFormat("a GIMP image", CONVERT, _starts(b"gimp xcf")),
    FileFormat("an array of NumPy", CONVERT, _starts(b"\x93NUMPY")),
    FileFormat("an HDF5 file", REPLACE, _starts(b"\x89HDF")),
    FileFormat("a zip archive", "Unpack it", _starts(b"PK\x03\x04")),
    FileFormat("a compressed archive", "Unpack it", _starts(b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ")),
)


def describe_format(data: bytes) -> str:
    """Return what `data` are and what to do about it, e.g. `an SVG drawing. Convert it to JPEG or PNG`."""
    beginning = data[:BEGINNING]
    if not data:
        return f"an empty file. {REPLACE}"
    found = next((entry for entry in FORMATS if entry.matches(beginning)), None)
    return f"{found.description}. {found.advice}" if found else f"{len(data):,} bytes that start with {data[:8]!r}. {REPLACE}"
