"""The decoder: every kind of image file as RGB, and every kind of damage refused with the name of the file."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

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


def deep_colour() -> bytes:
    """Return a PNG with 16 bits per channel, which Pillow cannot write: every value of `PIXELS` times 257."""
    rows = b"".join(b"\0" + row.tobytes() for row in (PIXELS.astype(">u2") * 257).astype(">u2"))
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 9, 6, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


WHITE = np.full((6, 9, 3), 255, np.uint8)
GREYS = np.repeat(PIXELS[..., :1], 3, axis=-1)
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
    "16 bits, colour": (deep_colour(), PIXELS),
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
UNREADABLE = {
    "empty": (b"", "an empty file"),
    "text": (b"hello, world", "12 bytes that start with"),
    "html": (b"\n<!DOCTYPE html><html>404</html>", "HTML page"),
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
