"""The embedded data set of handwritten digits. Its origin and licence are in tools/make_digits.py."""

from pathlib import Path

import numpy as np

from tl_keras.config import DataConfig
from tl_keras.data.examples import DatasetSource, ImageStore, make_examples
from tl_keras.errors import DamagedError
from tl_keras.utils.files import READ_ERRORS, read_npz
from tl_keras.utils.hashing import fingerprint

PARITY = ("even", "odd")
PATH = Path(__file__).parent / "embedded" / "digits.npz"
MAX_VALUE = 16


def load(config: DataConfig, url: str = "", *, for_scoring: bool = False) -> DatasetSource:
    """Return 1,297 training and 500 test images, uint8 (8, 8, 3), in 10 classes, or in 2 with `label=parity`.

    `url` is unused: nothing is downloaded.

    Raises:
        DamagedError: The file is absent or corrupt.
    """
    values, labels, is_test = _read()
    class_names, header = tuple("0123456789"), "digits"
    superclasses = {name: tuple(range(first, 10, 2)) for first, name in enumerate(PARITY)}
    if config.label == "parity":
        labels, class_names, superclasses, header = labels % 2, PARITY, {}, "digits parity"
    grey = np.round(values * (255 / MAX_VALUE)).astype(np.uint8)
    examples = make_examples(ImageStore(np.repeat(grey[..., None], 3, axis=-1)), labels)
    return DatasetSource(
        name="digits",
        class_names=class_names,
        train=examples.subset(np.flatnonzero(~is_test)),
        validation=None,
        test=examples.subset(np.flatnonzero(is_test)),
        fingerprint=fingerprint(header, [values, labels, is_test]),
        embedded=True,
        superclasses=superclasses,
    )


def _read() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pixel values uint8 (n, 8, 8) in 0..16, labels int64 (n,), and bool (n,): True for the test split."""
    try:
        arrays, _ = read_npz(PATH)
        return arrays["images"], arrays["labels"].astype(np.int64), arrays["is_test"]
    except READ_ERRORS as error:
        raise DamagedError(f"{PATH}, a file of this package, cannot be read ({error}). Reinstall the package.") from error
