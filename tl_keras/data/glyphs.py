"""The embedded data set of letters and digits, rendered from matplotlib's fonts at 8 pixels like the handwritten digits.

The embedded weights are pre-trained on it. The images are not stored: the same package versions render the same pixels.
"""

import string
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tl_keras.config import DataConfig
from tl_keras.data.examples import DatasetSource, ImageStore, make_examples
from tl_keras.utils.hashing import fingerprint

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmss10", "cmtt10"),
)
NUM_TRAIN, NUM_TEST = 180, 20  # per character
SEED = 0
SIDE = 8
CELL = 4  # a pixel is the mean of 4 x 4 rendered pixels, as in the handwritten digits
CANVAS = 64
FONT_SIZE = 40


def load(config: DataConfig, url: str = "", *, for_scoring: bool = False) -> DatasetSource:
    """Render 11,160 training and 1,240 test images, uint8 (8, 8, 3), in 62 classes. This takes some seconds.

    Both arguments are unused: there is one task, and nothing is downloaded.
    """
    train, train_labels = render(NUM_TRAIN, seed=SEED)
    test, test_labels = render(NUM_TEST, seed=SEED + 1)
    pixels, labels = np.concatenate([train, test]), np.concatenate([train_labels, test_labels])
    examples = make_examples(ImageStore(np.repeat(pixels[..., None], 3, axis=-1)), labels)
    return DatasetSource(
        name="glyphs",
        class_names=tuple(CHARACTERS),
        train=examples.subset(np.arange(len(train))),
        validation=None,
        test=examples.subset(np.arange(len(train), len(labels))),
        fingerprint=fingerprint("glyphs", [pixels, labels]),
        embedded=True,
    )


def render(num_each: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `num_each` images of every character, grey uint8 (n, 8, 8), bright on black, and labels int64 (n,)."""
    random = np.random.default_rng(seed)
    labels = np.tile(np.arange(len(CHARACTERS)), num_each)
    return np.stack([_glyph(CHARACTERS[label], random) for label in labels]), labels


def _glyph(character: str, random: np.random.Generator) -> np.ndarray:
    """Return a character in a random font, stroke, scale, rotation, shear, position and contrast, uint8 (8, 8)."""
    character_image = _draw(character, FONTS[random.integers(len(FONTS))], int(random.integers(3)))
    side = SIDE * CELL
    matrix = _affine_matrix(character_image, side, random)
    warped = character_image.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    cells = np.asarray(warped, np.float32).reshape(SIDE, CELL, SIDE, CELL).mean(axis=(1, 3))
    return np.round(cells * random.uniform(0.7, 1.0) * (255 / max(cells.max(), 1))).astype(np.uint8)


@cache
def _draw(character: str, font: str, stroke: int) -> Image.Image:
    """Return a grey image of a character, cropped to its ink."""
    canvas = Image.new("L", (2 * CANVAS, 2 * CANVAS))
    ImageDraw.Draw(canvas).text((CANVAS, CANVAS), character, fill=255, font=_font(font), anchor="mm", stroke_width=stroke)
    return canvas.crop(canvas.getbbox())


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", FONT_SIZE)


def _affine_matrix(source: Image.Image, side: int, random: np.random.Generator) -> tuple[float, ...]:
    """Return Pillow's six affine coefficients, which map pixels of the result to pixels of `source`."""
    angle, shear = random.normal(0, 0.12), random.normal(0, 0.15)
    height = side * random.uniform(0.75, 1.0)
    width = height * np.clip(source.width / source.height, 0.1, 1.0) * random.uniform(0.75, 1.1)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.diag([source.width / width, source.height / height]) @ np.array([[1, shear], [0, 1]]) @ rotation
    centre = side / 2 + random.uniform(-0.06, 0.06, size=2) * side
    offset = np.array([source.width / 2, source.height / 2]) - matrix @ centre
    return (*matrix[0], offset[0], *matrix[1], offset[1])
