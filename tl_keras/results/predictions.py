"""Predictions on the test split: the files that hold them, written and read back. No TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_keras.errors import DamagedError
from tl_keras.utils.files import READ_ERRORS, read_npz, write_npz

PREDICTIONS, MISTAKES, TEST_IMAGES = "predictions.npz", "mistakes.npz", "test_images.npz"
MAX_ERRORS = 16  # the most confident errors, of all classes
MAX_CELLS, IMAGES_PER_CELL = 6, 4  # the most frequent confusions of two classes, and errors of each
MAX_STORED = MAX_ERRORS + MAX_CELLS * IMAGES_PER_CELL  # images
MAX_THUMBNAIL = 96  # pixels
MAX_TEST_IMAGES = 64
MAX_TEST_IMAGE_SIDE = 256  # pixels; larger images are scaled down


@dataclass(frozen=True, eq=False)
class ConfidentErrors:
    """Wrong predictions on the test split with their images, in the order of `choose_errors`.

    Attributes:
        images: uint8 (k, height, width, 3), as the model saw them, at most `MAX_THUMBNAIL` pixels high and wide.
        labels: int (k,), the true class.
        predicted: int (k,), the class that was predicted instead.
        confidences: float32 (k,), the probability of the predicted class.
        indices: int (k,), indices in the test split.
    """

    images: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidences: np.ndarray
    indices: np.ndarray


def choose_errors(labels: np.ndarray, predicted: np.ndarray, confidences: np.ndarray) -> np.ndarray:
    """Return the indices of the errors whose images a run keeps, int (k,), at most `MAX_STORED`.

    The first are the `MAX_ERRORS` most confident ones in order of falling confidence. Those of the most frequent confusions follow, so
    that the `IMAGES_PER_CELL` most confident errors of each are kept.

    Args:
        labels, predicted: int (n,), the true and the predicted class.
        confidences: float (n,), the probability of the predicted class.
    """
    wrong = np.flatnonzero(labels != predicted)
    wrong = wrong[np.argsort(-confidences[wrong], kind="stable")]
    chosen = wrong[:MAX_ERRORS].tolist()
    for true, other, _ in frequent_confusions(labels, predicted)[:MAX_CELLS]:
        cell = wrong[(labels[wrong] == true) & (predicted[wrong] == other)]
        chosen += [index for index in cell[:IMAGES_PER_CELL].tolist() if index not in chosen]
    return np.array(chosen, np.int64)


def frequent_confusions(labels: np.ndarray, predicted: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the cells of the confusion matrix off its diagonal that are not 0: true class, predicted class, and number of images.

    The most frequent cells come first; of equals that of the lower true class.
    """
    wrong = labels != predicted
    cells, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    return [(*cells[index].tolist(), int(counts[index])) for index in np.argsort(-counts, kind="stable")]


def write_predictions(run_dir: Path, logits: np.ndarray, labels: np.ndarray) -> None:
    """Write logits float32 (n, classes) and labels int (n,) to `predictions.npz`."""
    write_npz(run_dir / PREDICTIONS, {"logits": logits, "labels": labels}, compress=True)


def read_predictions(run_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits float (n, classes) and labels int (n,) of the run in `run_dir`.

    Raises:
        DamagedError: The file is absent, corrupt, or its arrays do not belong together.
    """
    arrays = _read_arrays(run_dir / PREDICTIONS, {"logits": ("f", 2), "labels": ("i", 1)})
    logits, labels = arrays["logits"], arrays["labels"]
    if len(logits) != len(labels) or not len(labels) or not _are_classes(labels, logits.shape[1]) or not np.isfinite(logits).all():
        raise _damaged(run_dir / PREDICTIONS, f"logits {logits.shape} and labels {labels.shape} do not belong together")
    return logits, labels


def write_confident_errors(run_dir: Path, errors: ConfidentErrors) -> None:
    """Write `errors` to `mistakes.npz`."""
    write_npz(run_dir / MISTAKES, vars(errors), compress=True)


def read_confident_errors(run_dir: Path, num_classes: int) -> ConfidentErrors:
    """Return the errors that are kept of the run in `run_dir`, whose data set has `num_classes` classes.

    Raises:
        DamagedError: The file is absent or corrupt, or holds more or larger images than a run writes.
    """
    path = run_dir / MISTAKES
    specs = {"images": ("u", 4), "labels": ("i", 1), "predicted": ("i", 1), "confidences": ("f", 1), "indices": ("i", 1)}
    errors = ConfidentErrors(**_read_arrays(path, specs))
    num_images, *size, channels = errors.images.shape
    if num_images > MAX_STORED or not 0 < min(size) <= max(size) <= MAX_THUMBNAIL or channels != 3 or errors.images.dtype != np.uint8:
        raise _damaged(path, f"images {errors.images.dtype} {errors.images.shape}")
    labels = np.concatenate([errors.labels, errors.predicted])
    if any(len(values) != num_images for values in vars(errors).values()) or not _are_classes(labels, num_classes):
        raise _damaged(path, f"labels do not belong to {num_images} images of {num_classes} classes")
    return errors


def write_test_images(run_dir: Path, images: Sequence[np.ndarray]) -> None:
    """Write images uint8 (height, width, 3) of any sizes to `test_images.npz`, so that exports are checked without the data set."""
    write_npz(run_dir / TEST_IMAGES, {f"{index:03d}": image for index, image in enumerate(images)}, compress=True)


def read_test_images(run_dir: Path) -> list[np.ndarray]:
    """Return the images of `test_images.npz`.

    Raises:
        DamagedError: The file is absent or corrupt, or holds more or larger images than a run writes.
    """
    path = run_dir / TEST_IMAGES
    try:
        images = list(read_npz(path)[0].values())
    except READ_ERRORS as error:
        raise _damaged(path, error) from error
    shapes = [image.shape for image in images if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3]
    if not 0 < len(shapes) == len(images) <= MAX_TEST_IMAGES or max(map(max, shapes)) > MAX_TEST_IMAGE_SIDE:
        raise _damaged(path, f"images of shapes {[image.shape for image in images][:5]}")
    return images


def _are_classes(labels: np.ndarray, num_classes: int) -> bool:
    return bool(((labels >= 0) & (labels < num_classes)).all())


def _read_arrays(path: Path, specs: dict[str, tuple[str, int]]) -> dict[str, np.ndarray]:
    """Return the arrays named in `specs`, name -> (kind of dtype, number of dimensions); DamagedError if one is not of that form."""
    try:
        arrays, _ = read_npz(path)
        arrays = {name: arrays[name] for name in specs}
    except READ_ERRORS as error:
        raise _damaged(path, error) from error
    for name, (kind, num_dimensions) in specs.items():
        if arrays[name].dtype.kind != kind or arrays[name].ndim != num_dimensions:
            expected = f"expected kind {kind} with {num_dimensions} dimensions"
            raise _damaged(path, f"{name}: {arrays[name].dtype} {arrays[name].shape}, {expected}")
    return arrays


def _damaged(path: Path, reason: object) -> DamagedError:
    return DamagedError(f"{path} cannot be read ({reason}). Delete {path.parent} and run its command again.")
