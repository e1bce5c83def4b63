"""A sheet of augmented images: the model inputs of the first epochs as a PNG. Drawn without pyplot, so no global state changes."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tl_keras.config import DataConfig
from tl_keras.data.augmentation import NONE
from tl_keras.data.augmentation_strip import first_batch
from tl_keras.data.examples import DatasetSource
from tl_keras.data.geometry import Geometry
from tl_keras.data.sampling import TrainingOrder
from tl_keras.data.splits import make_splits
from tl_keras.utils.files import atomic_write

NUM_IMAGES, NUM_EPOCHS = 8, 6
INCHES, DPI = 1.35, 120
MAX_NAME_LENGTH, MAX_TITLE_LENGTH = 18, 80
MIN_CAPTION_FRACTION = 0.005  # classes with a smaller fraction of a mixture are not named in its caption


@dataclass(frozen=True)
class _Column:
    """A column of the sheet: images (n, h, w, 3) in 0..255, and targets (n, classes)."""

    title: str
    images: np.ndarray
    targets: np.ndarray


def write_sheet(source: DatasetSource, config: DataConfig, path: Path, *, geometry: Geometry, seed: int) -> Path:
    """Draw the first training images of a run, one row per image: first the original, then the image in each of the first epochs.

    All rows are one batch, so mixup and cutmix mix them with each other. The caption of an image is its class, or the fractions of
    the classes in a mixture.

    Args:
        config: the augmentation and the settings of the split.
        geometry: crop and resize of the model input.
        seed: seed of the split and of the augmentation.

    Returns:
        `path`.
    """
    train = make_splits(source, config, seed).train
    order = TrainingOrder(train.subset(np.arange(min(NUM_IMAGES, len(train)))), seed)
    geometry, num_classes = geometry.in_pipeline(), len(source.class_names)
    shown = [("original", NONE, 0), *((f"epoch {epoch + 1}", config.augmentation, epoch) for epoch in range(NUM_EPOCHS))]
    columns = [
        _Column(title, *first_batch(order, geometry, num_classes=num_classes, augmentation=augmentation, epoch=epoch))
        for title, augmentation, epoch in shown
    ]
    title = f"{source.name}, {config.augmentation}, {geometry.image_size} px, seed {seed}"
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = _draw(columns, source.class_names)
        figure.suptitle(_shorten(title, MAX_TITLE_LENGTH), fontsize=11, parse_math=False)
        FigureCanvasAgg(figure)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=DPI, format="png", metadata={"Software": None})
    return path


def _draw(columns: list[_Column], class_names: tuple[str, ...]) -> Figure:
    num_rows = len(columns[0].images)
    figure = Figure(figsize=(INCHES * len(columns), (INCHES + 0.3) * num_rows + 0.5), layout="constrained")
    grid = figure.subplots(num_rows, len(columns), squeeze=False)
    for index, column in enumerate(columns):
        grid[0, index].set_title(column.title, fontsize=9)
        for row in range(num_rows):
            _draw_image(grid[row, index], column.images[row], _caption(column.targets[row], class_names))
    return figure


def _draw_image(axes: Axes, image: np.ndarray, caption: str) -> None:
    axes.imshow(np.clip(np.round(image), 0, 255).astype(np.uint8), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(caption, fontsize=6.5, labelpad=2, parse_math=False)


def _caption(target: np.ndarray, class_names: tuple[str, ...]) -> str:
    """Return the class, or the classes of a mixture with their fractions, largest first."""
    labels = [label for label in np.argsort(-target, kind="stable") if target[label] >= MIN_CAPTION_FRACTION]
    if len(labels) == 1:
        return _shorten(class_names[labels[0]])
    return "\n".join(f"{target[label]:.2f} {_shorten(class_names[label])}" for label in labels)


def _shorten(text: str, width: int = MAX_NAME_LENGTH) -> str:
    """Return `text` on one line of at most `width` characters. Names come from the user's data."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
