"""The decoder: every kind of image file as RGB, and every kind of damage refused with the name of the file."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from tl_keras.data import decode
from tl_keras.data.decode import decode_image
from tl_keras.errors import DamagedError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
RGB = Image.fromarray(PIXELS)
GREY = Image.fromarray(PIXELS[..., 0])


def encode(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def half_transparent() -> Image.Image:
    image = RGB.convert("RGBA")
    image.putalpha(0)
    return image


def transparent_palette() -> bytes:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    return encode(image, transparency=1)


def sixteen_bits(factor: int) -> Image.Image:
    return Image.fromarray(PIXELS[..., 0].astype(np.uint16) * factor)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """Return a PNG with a chunk after its header."""
    return png[:33] + chunk(kind, data) + png[33:]


def sixteen_bit_png(pixels: np.ndarray, colour: int, transparent: tuple[int, ...] = ()) -> bytes:
    """Return a PNG with 16 bits per channel, which Pillow cannot write: every value of `pixels` times 257."""
    rows = b"".join(b"\0" + row.tobytes() for row in (pixels.astype(">u2") * 257).astype(">u2"))
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return with_chunk(png, b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else png


def exif_bytes(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Return EXIF data with entries (tag, type, count, value), which may be damaged in ways that Pillow does not write."""
    body, data = b"", b""
    for tag, kind, count, value in entries:
        offset = struct.pack("<I", 14 + 12 * len(entries) + len(data))
        data += value if len(value) > 4 else b""
        body += struct.pack("<HHI", tag, kind, count) + (offset if len(value) > 4 else value.ljust(4, b"\0"))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + data


TURNED = (0x112, 3, 1, struct.pack("<H", 6))
BAD_RATIONAL = (0x11A, 10, 1, struct.pack("<ii", -1, 0))  # Pillow cannot write it again (python-pillow/Pillow#8965, #8605)
LARGE = zlib.compress(bytes(3_000_000))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def raw_profile() -> bytes:
    """Return a text chunk with EXIF data in hexadecimal digits, as ImageMagick writes it (w3c/png#310)."""
    content = exif_bytes(TURNED)
    return b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(content):8}\n{content.hex()}\n".encode())


def raw_file(**tags: int | bytes) -> bytes:
    """Return a TIFF with private tags, such as those of a camera's raw file, whose first image is a preview (libvips/libvips#1416)."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory.tagtype[50706] = 1
    for name, value in tags.items():
        directory[int(name.removeprefix("tag"))] = value
    return encode(RGB, "TIFF", tiffinfo=directory)


def xcode_png() -> bytes:
    """Return a PNG of Xcode: a chunk before the header, and pixels without zlib's header. Pillow decodes it to white."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    png, pixels = encode(RGB.convert("RGBA")), np.dstack([PIXELS[..., ::-1], np.full((6, 9), 255, np.uint8)])
    rows = compressor.compress(b"".join(b"\0" + row.tobytes() for row in pixels)) + compressor.flush()
    return png[:8] + chunk(b"CgBI", b"\x50\0\x20\x06") + png[8:33] + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


WHITE = np.full((6, 9, 3), 255, np.uint8)
GREYS = np.repeat(PIXELS[..., :1], 3, axis=-1)
IS_HOLE = (PIXELS == PIXELS[2, 3]).all(axis=-1, keepdims=True)
HOLED = np.where(IS_HOLE, 255, PIXELS)
HOLED_GREYS = np.where(GREYS == GREYS[2, 3], 255, GREYS)
READABLE = {
    "rgb": (encode(RGB), PIXELS),
    "grey": (encode(GREY), GREYS),
    "bilevel": (encode(Image.fromarray(PIXELS[..., 0] > 127)), np.where(GREYS > 127, 255, 0)),
    "palette": (encode(RGB.quantize(256), "GIF"), PIXELS),
    "transparent": (encode(half_transparent()), WHITE),
    "transparent palette": (transparent_palette(), np.full((3, 4, 3), 255)),
    "cmyk": (encode(Image.fromarray(255 - PIXELS).convert("CMYK"), "TIFF"), 255 - PIXELS),
    "16 bits": (encode(sixteen_bits(257)), GREYS),
    "16 bits, big-endian": (encode(sixteen_bits(257), "TIFF"), GREYS),
    "16 bits, colour": (sixteen_bit_png(PIXELS, 2), PIXELS),
    "16 bits, a transparent grey": (sixteen_bit_png(PIXELS[..., 0], 0, (int(PIXELS[2, 3, 0]) * 257,)), HOLED_GREYS),
    "16 bits, a transparent colour": (sixteen_bit_png(PIXELS, 2, tuple(int(value) * 257 for value in PIXELS[2, 3])), HOLED),
    "profile of 3 MB": (with_chunk(encode(RGB), b"iCCP", b"icc\0\0" + LARGE), PIXELS),  # python-pillow/Pillow#2445
    "text of 3 MB": (with_chunk(encode(RGB), b"zTXt", b"note\0\0" + LARGE), PIXELS),  # python-pillow/Pillow#8363
    "70 texts of 1 MB": (encode(RGB)[:33] + 70 * chunk(b"tEXt", b"k\0" + bytes(10**6)) + encode(RGB)[33:], PIXELS),
    "png without its end": (encode(RGB)[:-12], PIXELS),
    "webp, damaged exif": (encode(RGB, "WEBP", lossless=True, exif=exif_bytes(TURNED, BAD_RATIONAL)), np.rot90(PIXELS, -1)),
    "png, damaged exif": (with_chunk(encode(RGB), b"eXIf", exif_bytes(TURNED, BAD_RATIONAL)[6:]), np.rot90(PIXELS, -1)),
    "png, orientation in a text": (with_chunk(encode(RGB), b"zTXt", raw_profile()), np.rot90(PIXELS, -1)),
    "png, orientation in XMP": (with_chunk(encode(RGB), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP), np.rot90(PIXELS, -1)),
    "png, exif is no exif": (with_chunk(encode(RGB), b"eXIf", b"garbage"), PIXELS),
    "animated": (encode(RGB, "PNG", save_all=True, append_images=[Image.new("RGB", (9, 6))]), PIXELS),
}


@pytest.mark.parametrize("name", READABLE)
def test_every_kind_of_image_is_decoded_to_rgb(name, tmp_path):
    content, expected = READABLE[name]
    (tmp_path / "file").write_bytes(content)
    for decoded in (decode_image(content), decode_image(tmp_path / "file")):
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, expected)


def test_sixteen_bits_are_scaled_and_not_clipped():
    decoded = decode_image(encode(Image.fromarray(np.array([[0, 256, 32768, 65535]], np.uint16))))
    np.testing.assert_array_equal(decoded[0, :, 0], [0, 1, 128, 255])


@pytest.mark.parametrize(
    "orientation, turn",
    {3: lambda x: x[::-1, ::-1], 6: lambda x: np.rot90(x, -1), 8: lambda x: np.rot90(x)}.items(),
)
@pytest.mark.parametrize("image, expected", [(RGB, PIXELS), (sixteen_bits(257), GREYS)], ids=["8 bits", "16 bits"])
def test_exif_orientation_is_applied(image, expected, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode_image(encode(image, exif=exif)), turn(expected))


JPEG = encode(RGB.resize((64, 64)), "JPEG")
PROGRESSIVE = encode(RGB.resize((64, 64)), "JPEG", progressive=True)


def test_a_jpeg_without_its_end_marker_is_taken_with_a_note():
    pixels, note = decode.decode_with_note(JPEG[:-2])
    np.testing.assert_array_equal(pixels, decode_image(JPEG))
    assert note == decode.NO_END and not decode.decode_with_note(JPEG).note


@pytest.mark.parametrize("missing", [30, 300])
def test_a_jpeg_that_lacks_pixels_is_refused(missing):
    with pytest.raises(DamagedError, match="truncated"):
        decode_image(JPEG[:-missing])


def test_sixteen_bits_that_hold_twelve_are_noted():
    assert decode.decode_with_note(encode(sixteen_bits(16))).note == decode.LOW_RANGE
    assert not decode.decode_with_note(encode(sixteen_bits(257))).note


def test_heic_is_read_if_its_decoder_is_installed():
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(RGB.resize((64, 64))).save(buffer, quality=95)
    assert decode_image(buffer.getvalue()).shape == (64, 64, 3)


UNREADABLE = {
    "empty": (b"", "an empty file"),
    "text": (b"hello, world", "12 bytes that start with"),
    "html": (b"\n<!DOCTYPE html><html>404</html>", "HTML page"),
    "svg": (b"<?xml version='1.0'?>\n<!-- by a tool --><svg/>", "SVG drawing. Convert"),
    "json": (b'{"message": "Not Found"}', "JSON"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "git annex": (b"/annex/objects/SHA256E-s123--abc.jpg\n", "git annex get"),
    "avif of another version": (b"\0\0\0\x18ftypavif" + bytes(40), "image"),
    "jpeg xl": (b"\xff\x0a" + bytes(40), "JPEG XL"),
    "jpeg xl in a container": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
    "raw, Canon": (b"\0\0\0\x18ftypcrx " + bytes(40), "raw file"),
    "raw, Canon, older": (encode(RGB, "TIFF")[:8] + b"CR" + encode(RGB, "TIFF")[10:], "raw file"),
    "raw, Adobe": (raw_file(tag50706=b"\1\4\0\0"), "raw file, of which only a preview"),
    "raw, Nikon": (raw_file(tag254=1), "raw file, of which only a preview"),
    "png of Xcode": (xcode_png(), "Xcode.*pngcrush"),
    "raw, Fujifilm": (b"FUJIFILMCCD-RAW 0201" + bytes(40), "raw file"),
    "video": (b"\0\0\0\x18ftypmp42" + bytes(40), "a video"),
    "pdf": (b"%PDF-1.4", "PDF"),
    "dicom": (bytes(128) + b"DICM" + bytes(40), "DICOM"),
    "open exr": (b"v/1\x01" + bytes(40), "OpenEXR"),
    "gimp": (b"gimp xcf v011\0", "GIMP"),
    "numpy": (b"\x93NUMPY\1\0" + bytes(40), "NumPy"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    "zip": (b"PK\x03\x04" + bytes(40), "zip archive. Unpack"),
    "gzip": (b"\x1f\x8b" + bytes(40), "archive. Unpack"),
    "progressive jpeg without its end": (PROGRESSIVE[:-2], "truncated"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "cannot be decoded"),
    "truncated png": (encode(RGB.resize((64, 64)))[:200], "cannot be decoded"),
    "header alone": (JPEG[:20], "image"),
    "float": (encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "no known range"),
    "32-bit integers": (encode(Image.fromarray(np.ones((2, 2), np.int32)), "TIFF"), "no known range"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_messages_name_the_unreadable_file(name, tmp_path):
    content, reason = UNREADABLE[name]
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=reason) as raised:
        decode_image(path)
    assert str(path) in str(raised.value)
    with pytest.raises(DamagedError, match="record 7"):
        decode_image(content, "record 7")


@pytest.mark.parametrize("width, message", [(11_000, "11000 x 10000 pixels; an image may have at most"), (20_000, "exceeds limit")])
def test_a_small_file_of_a_huge_image_is_refused_before_decoding(width, message):
    content = encode(Image.new("1", (width, 10_000)))
    assert len(content) < 100_000
    with pytest.raises(DamagedError, match=message):
        decode_image(content)


def test_directories_missing_files_and_large_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DamagedError, match="not a regular file; expected an image"):
        decode_image(tmp_path)
    with pytest.raises(DamagedError, match="not a regular file; expected an image"):
        decode_image(tmp_path / "nothing.png")
    monkeypatch.setattr(decode, "MAX_BYTES", 10)
    (tmp_path / "large.png").write_bytes(encode(RGB))
    with pytest.raises(DamagedError, match="at most 10"):
        decode_image(tmp_path / "large.png")
