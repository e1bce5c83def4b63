"""A sheet of augmented images to look at: what the model will see, epoch by epoch, drawn without pyplot."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tl_keras.config import DataConfig
from tl_keras.data import pipeline
from tl_keras.data.augmentation import NONE
from tl_keras.data.examples import Examples, Source
from tl_keras.data.sampling import NATURAL, epoch_order
from tl_keras.data.splits import make_splits
from tl_keras.utils.files import atomic_write

NUM_IMAGES, NUM_EPOCHS = 8, 6
INCHES, DPI = 1.35, 120
MAX_NAME, MAX_TITLE = 18, 80
Column = tuple[str, tuple[np.ndarray, np.ndarray]]  # title, images, targets
LEAST_SHARE = 0.005  # of a class in a mixture that is worth a line


def write_sheet(source: Source, config: DataConfig, path: Path, *, image_size: int, seed: int) -> Path:
    """Draw the first training images of a run, a row each: without augmentation, then as they come in each of the first epochs.

    They are one batch, so mixtures mix them with each other; below each stands its class, or its shares of two classes.

    Args:
        config: names the augmentation, crop_fraction, and what decides the split.
        image_size: side in pixels of what the model sees.
        seed: of the split and of the augmentation.

    Returns:
        `path`.
    """
    train = make_splits(source, config, seed).train
    examples = train.take(np.arange(min(NUM_IMAGES, len(train))))
    settings = {
        "image_size": image_size,
        "crop_fraction": config.crop_fraction or source.crop_fraction,
        "num_classes": len(source.class_names),
        "seed": seed,
    }
    columns = [("original", _in_order(examples, augmentation=NONE, epoch=0, **settings))]
    for epoch in range(NUM_EPOCHS):
        columns.append((f"epoch {epoch + 1}", _in_order(examples, augmentation=config.augmentation, epoch=epoch, **settings)))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = _draw(columns, source.class_names)
        title = f"{source.name}, {config.augmentation}, {image_size} px, seed {seed}"
        figure.suptitle(_short(title, MAX_TITLE), fontsize=11, parse_math=False)
        FigureCanvasAgg(figure)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=DPI, format="png", metadata={"Software": None})
    return path


def _in_order(examples: Examples, *, seed: int, epoch: int, **settings: object) -> tuple[np.ndarray, np.ndarray]:
    """The images and targets of an epoch of one batch, each at the place of its example."""
    batches = pipeline.training_batches(examples, batch_size=len(examples), seed=seed, epoch=epoch, **settings)
    images, targets = next(batches.as_numpy_iterator())
    order, _ = epoch_order(examples, NATURAL, seed=seed, epoch=epoch)
    places = np.argsort(order)
    return images[places], targets[places]


def _draw(columns: list[Column], class_names: tuple[str, ...]) -> Figure:
    num_rows = len(columns[0][1][0])
    figure = Figure(figsize=(INCHES * len(columns), (INCHES + 0.3) * num_rows + 0.5), layout="constrained")
    grid = figure.subplots(num_rows, len(columns), squeeze=False)
    for number, (title, (images, targets)) in enumerate(columns):
        grid[0, number].set_title(title, fontsize=9)
        for row in range(num_rows):
            _draw_image(grid[row, number], images[row], _shares(targets[row], class_names))
    return figure


def _draw_image(axes: Axes, image: np.ndarray, caption: str) -> None:
    axes.imshow(np.clip(np.round(image), 0, 255).astype(np.uint8), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(caption, fontsize=6.5, labelpad=2, parse_math=False)


def _shares(target: np.ndarray, class_names: tuple[str, ...]) -> str:
    """The class, or the classes with their shares, largest first."""
    labels = [label for label in np.argsort(-target, kind="stable") if target[label] >= LEAST_SHARE]
    if len(labels) == 1:
        return _short(class_names[labels[0]])
    return "\n".join(f"{target[label]:.2f} {_short(class_names[label])}" for label in labels)


def _short(text: str, width: int = MAX_NAME) -> str:
    """A name from outside, on one short line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
