"""Makes the input of the exported model from an image of any size, with NumPy and Pillow: `inputs = preprocess(load("cat.jpg"))[None]`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps


def load(path: str | Path) -> Image.Image:
    """Open an image file as RGB: upright, and on white where it is transparent."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def preprocess(image: Image.Image | np.ndarray, settings: Mapping[str, Any] | None = None) -> np.ndarray:
    """Return the centre of an RGB image, or of an array uint8 (height, width, 3), resized as uint8 (image_size, image_size, 3)."""
    settings = settings or json.loads(Path(__file__).with_name("preprocessing.json").read_text())
    size, side, kernel = settings["image_size"], settings["side"], Image.Resampling[settings["interpolation"].upper()]
    pixels = np.asarray(image, np.float32)
    height, width = pixels.shape[:2]
    square = min(height, width)
    top, left, start = (height - square) // 2, (width - square) // 2, (side - size) // 2
    pixels = pixels[top : top + square, left : left + square]
    # Planes of floats are rounded once, and not after each of two passes.
    planes = [np.asarray(Image.fromarray(pixels[:, :, channel]).resize((side, side), kernel)) for channel in range(3)]
    return np.stack(planes, -1)[start : start + size, start : start + size].clip(0, 255).round().astype(np.uint8)
