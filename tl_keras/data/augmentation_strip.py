"""A small picture of augmented images that a run leaves for its report: some training images, and what the first epochs make of them."""

from pathlib import Path

import numpy as np
from PIL import Image

from tl_keras.data.augmentation import NONE
from tl_keras.data.examples import Examples
from tl_keras.data.geometry import Geometry
from tl_keras.data.pipeline import training_batches
from tl_keras.data.sampling import TrainingOrder
from tl_keras.utils.files import atomic_write

NUM_IMAGES, NUM_EPOCHS = 4, 3
SIDE, GAP = 96, 6  # pixels of an image at most, and around it


def write_strip(train: Examples, path: Path, *, geometry: Geometry, num_classes: int, augmentation: str, seed: int) -> None:
    """Write a JPEG with a line for each of the first training images: the original, then the image in the first epochs.

    All lines are one batch, so mixup and cutmix mix them with each other.

    Args:
        geometry: crop and resize of the model input.
        augmentation, seed: those of the run.
    """
    order = TrainingOrder(train.subset(np.arange(min(NUM_IMAGES, len(train)))), seed)
    shown = [(NONE, 0), *((augmentation, epoch) for epoch in range(NUM_EPOCHS))]
    geometry = geometry.in_pipeline()
    columns = [first_batch(order, geometry, num_classes=num_classes, augmentation=name, epoch=epoch)[0] for name, epoch in shown]
    with atomic_write(path) as temporary:
        _draw(np.stack(columns, axis=1)).save(temporary, "JPEG", quality=85)


def first_batch(
    order: TrainingOrder, geometry: Geometry, *, num_classes: int, augmentation: str, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and targets of an epoch that is one batch, in the order of the examples."""
    batches = training_batches(
        order, geometry, num_classes=num_classes, augmentation=augmentation, sizes=(order.num_examples,), epoch=epoch
    )
    images, targets = next(batches.as_numpy_iterator())
    in_order = np.argsort(order.epoch(epoch).positions)
    return images[in_order], targets[in_order]


def _draw(images: np.ndarray) -> Image.Image:
    """Return images float (lines, columns, height, width, 3) in 0..255 side by side on white."""
    pixels = images.round().clip(0, 255).astype(np.uint8)
    lines, columns, height, width = pixels.shape[:4]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    step_x, step_y = size[0] + GAP, size[1] + GAP
    sheet = Image.new("RGB", (GAP + columns * step_x, GAP + lines * step_y), "white")
    for line, column in np.ndindex(lines, columns):
        sheet.paste(Image.fromarray(pixels[line, column]).resize(size), (GAP + column * step_x, GAP + line * step_y))
    return sheet
