"""Makes the inputs of the neighbours in tools/case_table.py: `python -m tools.case_inputs NAME ARGUMENTS`, in the current directory.

Pictures are noise, or FLAG: 32 x 48 pixels, a red left half and a blue right half. Only NumPy and Pillow are needed.
"""

import importlib
import io
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

RED, BLUE = (200, 20, 20), (20, 20, 200)
ORIENTATION, CLOCKWISE = 0x0112, 6  # EXIF: the picture is to be turned by 90 degrees clockwise
DNG_VERSION, NEW_SUBFILE_TYPE, REDUCED = 50706, 254, 1
NUM_BYTES = 3_000_000  # of metadata: more than Pillow reads


def photos(root: str = "photos", classes: str = "cat,dog", number: str = "10", seed: str = "0", suffix: str = "png") -> None:
    """Write `number` pictures of noise for each class, 24 x 24 pixels."""
    random = np.random.default_rng(int(seed))
    for name in classes.split(","):
        folder = Path(root) / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(int(number)):
            Image.fromarray(random.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / f"{index:03}.{suffix}")


def recompress(root: str, quality: str = "60") -> None:
    """Write every picture again as a JPEG of less quality under its old name, as optimizers of web sites do."""
    for path in sorted(Path(root).rglob("*.*")):
        with Image.open(path) as image:
            pixels = image.copy()
        pixels.save(path, "JPEG", quality=int(quality))


def describe(root: str) -> None:
    """Write a text into every PNG, which leaves its pixels as they are."""
    for path in sorted(Path(root).rglob("*.png")):
        content = path.read_bytes()
        path.write_bytes(content[:-12] + _chunk(b"tEXt", b"Software\0exiftool") + content[-12:])


def mirror_split(root: str, split: str, other: str) -> None:
    """Copy the pictures of a split into another one as BMP: equal pixels in other files."""
    for path in sorted((Path(root) / split).rglob("*.png")):
        target = Path(root) / other / path.parent.name / f"copy_{path.stem}.bmp"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.save(target)


def augment_before_split(root: str = "photos") -> None:
    """Write three versions of each of 24 pictures, named as exports of annotation tools name them: NAME_png.rf.HASH.jpg."""
    random = np.random.default_rng(0)
    for index in range(24):
        folder = Path(root) / ("cat", "dog")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture = random.integers(0, 200, (24, 24, 3), np.uint8)
        for version in range(3):
            Image.fromarray(picture + np.uint8(20 * version)).save(folder / f"IMG_{index:03}_png.rf.{random.bytes(8).hex()}.jpg")


def resized_copies(root: str = "photos") -> None:
    """Write 20 pictures, and beside each a smaller version of it, as web sites keep them: NAME-16x16.png."""
    photos(root)
    for path in sorted(Path(root).rglob("*.png")):
        with Image.open(path) as image:
            image.resize((16, 16)).save(path.with_name(f"{path.stem}-16x16.png"))


def checkpoint(scripts: str, name: str) -> None:
    """Write `model.pth`, a checkpoint of ResNet18 with the names and the wrapper `name`.

    Args:
        scripts: directory with the script `torch_checkpoints/make.py`, which writes torch files without torch.
    """
    sys.path.insert(0, f"{scripts}/torch_checkpoints")
    sys.argv[1:] = ["."]
    make = importlib.import_module("make")
    make.save("model.pth", CHECKPOINTS[name](make, make.t(make.base)))


def _renamed(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _lightning(make: Any, tensors: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    beside = {name.replace("__", "."): make.T(value) for name, value in others.items()}
    return {"epoch": 3, "state_dict": {**_renamed(tensors, "model."), **beside}, "pytorch-lightning_version": "2.1"}


def _without_head(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}


CHECKPOINTS: Mapping[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "compiled in parallel": lambda make, tensors: {"model": _renamed(tensors, "module._orig_mod."), "epoch": 3},
    "average in parallel": lambda make, tensors: {"state_dict": tensors, "state_dict_ema": _renamed(make.t(make.ema), "module.")},
    "weights of a loss": lambda make, tensors: _lightning(make, tensors, criterion__pos_weight=np.ones(5, np.float32)),
    "states of metrics": lambda make, tensors: _lightning(
        make, tensors, val_acc__confmat=np.zeros((5, 5), np.int64), val_acc__total=np.array(3)
    ),
    "online probe": lambda make, tensors: _lightning(
        make, tensors, online_finetuner__weight=np.ones((5, 512), np.float32), online_finetuner__bias=np.ones(5, np.float32)
    ),
    "momentum contrast": lambda make, tensors: {
        "arch": "resnet18",
        "state_dict": {
            **_renamed(tensors, "module.encoder_q."),
            **_renamed(make.t(make.ema), "module.encoder_k."),
            "module.queue": make.T(np.ones((128, 16), np.float32)),
            "module.queue_ptr": make.T(np.zeros(1, np.int64)),
        },
    },
    "sequential encoder": lambda make, tensors: {
        "state_dict": {
            **_renamed(_without_head(tensors), "encoder_q.0."),
            **{f"encoder_q.1.mlp.{part}": make.T(np.ones((128, 512)[: 1 + (part == "weight")], np.float32)) for part in ("weight", "bias")},
            "queue": make.T(np.ones((128, 16), np.float32)),
        }
    },
    "average in one dict": lambda make, tensors: {
        "state_dict": {
            **_renamed(tensors, "model."),
            **{f"model_ema.{name.replace('.', '')}": tensor for name, tensor in make.t(make.ema).items()},
            "model_ema.decay": make.T(np.array(0.999, np.float32)),
        }
    },
}


def two_normal_forms() -> None:
    """Write a class whose name has an accent: composed below train/, decomposed below test/, as macOS writes it."""
    names = "chat,\u00e9l\u00e9phant"
    photos("photos/train", unicodedata.normalize("NFC", names), seed="1")
    photos("photos/test", unicodedata.normalize("NFD", names), seed="2")


def _flag() -> Image.Image:
    pixels = np.empty((32, 48, 3), np.uint8)
    pixels[:, :24], pixels[:, 24:] = RED, BLUE
    return Image.fromarray(pixels)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(*chunks: bytes) -> bytes:
    """Return FLAG as a PNG with `chunks` before its pixels."""
    file = io.BytesIO()
    _flag().save(file, "PNG")
    content = file.getvalue()
    return content[:33] + b"".join(chunks) + content[33:]


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = CLOCKWISE
    return exif


def large_text() -> bytes:
    """Return a PNG with a compressed text of some megabytes."""
    return _png(_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * NUM_BYTES)))


def large_profile() -> bytes:
    """Return a PNG with a colour profile of some megabytes."""
    return _png(_chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"a" * NUM_BYTES)))


def png_exif() -> bytes:
    """Return a PNG whose EXIF chunk says that it is to be turned."""
    return _png(_chunk(b"eXIf", _turned().tobytes().removeprefix(b"Exif\0\0")))


def png_raw_profile() -> bytes:
    """Return a PNG to be turned whose EXIF data are a text in hexadecimal digits, as ImageMagick and macOS write them."""
    exif = _turned().tobytes()
    text = f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()
    return _png(_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)))


def png_xmp() -> bytes:
    """Return a PNG to be turned whose orientation stands in XMP data alone."""
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{CLOCKWISE}"/></x:xmpmeta>'
    return _png(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode()))


def webp_exif() -> bytes:
    """Return a WebP to be turned."""
    file = io.BytesIO()
    _flag().save(file, "WEBP", lossless=True, exif=_turned().tobytes())
    return file.getvalue()


def dng() -> bytes:
    """Return the beginning of a DNG: a TIFF whose first image is a small preview of the camera's raw data."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[NEW_SUBFILE_TYPE] = REDUCED
    tags.tagtype[DNG_VERSION] = 1
    tags[DNG_VERSION] = bytes((1, 4, 0, 0))
    file = io.BytesIO()
    _flag().resize((16, 12)).save(file, "TIFF", tiffinfo=tags)
    return file.getvalue()


def tiff_rgb16() -> bytes:
    """Return an uncompressed TIFF of three channels of 16 bits, as scanners write it."""
    pixels = (np.asarray(_flag()).astype("<u2") * 257).tobytes()
    bits = 8 + 2 + 12 * 9 + 4
    entries = ((256, 3, 1, 48), (257, 3, 1, 32), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, bits + 6),
               (277, 3, 1, 3), (278, 3, 1, 32), (279, 4, 1, len(pixels)))  # fmt: skip
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I3H", 0, 16, 16, 16) + pixels


def apple_png() -> bytes:
    """Return a PNG as Xcode rewrites it for iPhones: a chunk `CgBI` before the header, blue first, and no checksum of the pixels."""
    pixels = np.dstack([np.asarray(_flag())[..., ::-1], np.full((32, 48), 255, np.uint8)])
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    header = struct.pack(">IIBBBBB", 48, 32, 8, 6, 0, 0, 0)
    chunks = (_chunk(b"CgBI", b"\x50\0\x20\x06"), _chunk(b"IHDR", header),
              _chunk(b"IDAT", compressor.compress(rows) + compressor.flush()), _chunk(b"IEND", b""))  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def signed_tiff() -> bytes:
    """Return a TIFF of signed heights, 16 bits, as elevation models are stored."""
    pixels = np.linspace(-400, 8000, 32 * 48).astype("<i2").tobytes()
    start = 8 + 2 + 12 * 9 + 4
    entries = ((256, 3, 1, 48), (257, 3, 1, 32), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, start),
               (277, 3, 1, 1), (279, 4, 1, len(pixels)), (339, 3, 1, 2))  # fmt: skip
    return b"II*\0" + struct.pack("<IH", 8, 9) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4) + pixels


IMAGES: tuple[Callable[[], bytes], ...] = (
    large_text, large_profile, png_exif, png_raw_profile, png_xmp, webp_exif, dng, tiff_rgb16, apple_png, signed_tiff,
)  # fmt: skip
FOLDERS: tuple[Callable[..., None], ...] = (
    photos, recompress, describe, mirror_split, augment_before_split, resized_copies, two_normal_forms, checkpoint,
)  # fmt: skip


def main(arguments: list[str]) -> None:
    name, *rest = arguments
    images = {image.__name__: image for image in IMAGES}
    if name in images:
        Path(name).write_bytes(images[name]())
    else:
        {folder.__name__: folder for folder in FOLDERS}[name](*rest)


if __name__ == "__main__":
    main(sys.argv[1:])
