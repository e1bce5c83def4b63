"""Letters and digits rendered from the fonts that matplotlib carries, blurred to 8 pixels as the handwritten digits are.

The embedded weights are pre-trained on them. The same package versions make the same images: nothing is stored.
"""

import string
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tl_keras.config import DataConfig
from tl_keras.data.examples import Images, Source, make_examples
from tl_keras.utils.hashing import fingerprint

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmss10", "cmtt10"),
)
NUM_TRAIN, NUM_TEST = 180, 20  # of each character
SEED = 0
SIDE = 8
CELL = 4  # rendered pixels to the side of a stored one, as in the handwritten digits
CANVAS = 64
FONT_SIZE = 40


def load(config: DataConfig, url: str = "") -> Source:
    """11,160 images to train and 1,240 to test on, uint8 (8, 8, 3), in 62 classes; some seconds. Nothing to choose or to fetch."""
    train, train_labels = render(NUM_TRAIN, seed=SEED)
    test, test_labels = render(NUM_TEST, seed=SEED + 1)
    pixels, labels = np.concatenate([train, test]), np.concatenate([train_labels, test_labels])
    examples = make_examples(Images(np.repeat(pixels[..., None], 3, axis=-1)), labels)
    return Source(
        name="glyphs",
        class_names=tuple(CHARACTERS),
        train=examples.take(np.arange(len(train))),
        validation=None,
        test=examples.take(np.arange(len(train), len(labels))),
        fingerprint=fingerprint("glyphs", [pixels, labels]),
        embedded=True,
    )


def render(num_each: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`num_each` images of every character: grey uint8 (n, 8, 8), bright on black, and labels int64 (n,)."""
    random = np.random.default_rng(seed)
    labels = np.tile(np.arange(len(CHARACTERS)), num_each)
    return np.stack([_glyph(CHARACTERS[label], random) for label in labels]), labels


def _glyph(character: str, random: np.random.Generator) -> np.ndarray:
    """One character in a random font, stroke, scale, rotation, shear, position and contrast."""
    drawn = _draw(character, FONTS[random.integers(len(FONTS))], int(random.integers(3)))
    side = SIDE * CELL
    warped = drawn.transform((side, side), Image.Transform.AFFINE, _warp(drawn, side, random), Image.Resampling.BILINEAR)
    cells = np.asarray(warped, np.float32).reshape(SIDE, CELL, SIDE, CELL).mean(axis=(1, 3))
    return np.round(cells * random.uniform(0.7, 1.0) * (255 / max(cells.max(), 1))).astype(np.uint8)


@cache
def _draw(character: str, font: str, stroke: int) -> Image.Image:
    """A character, cropped to its ink, grey."""
    canvas = Image.new("L", (2 * CANVAS, 2 * CANVAS))
    ImageDraw.Draw(canvas).text((CANVAS, CANVAS), character, fill=255, font=_font(font), anchor="mm", stroke_width=stroke)
    return canvas.crop(canvas.getbbox())


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", FONT_SIZE)


def _warp(drawn: Image.Image, side: int, random: np.random.Generator) -> tuple[float, ...]:
    """The affine map from pixels of the result to pixels of `drawn`, as Pillow wants it."""
    angle, shear = random.normal(0, 0.12), random.normal(0, 0.15)
    height = side * random.uniform(0.75, 1.0)
    width = height * np.clip(drawn.width / drawn.height, 0.1, 1.0) * random.uniform(0.75, 1.1)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.diag([drawn.width / width, drawn.height / height]) @ np.array([[1, shear], [0, 1]]) @ turn
    centre = side / 2 + random.uniform(-0.06, 0.06, size=2) * side
    offset = np.array([drawn.width / 2, drawn.height / 2]) - matrix @ centre
    return (*matrix[0], offset[0], *matrix[1], offset[1])
