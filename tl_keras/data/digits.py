"""The handwritten digits that the package carries; their origin and licence stand in tools/make_digits.py."""

import zipfile
from pathlib import Path

import numpy as np

from tl_keras.config import DataConfig
from tl_keras.data.examples import Images, Source, make_examples
from tl_keras.errors import DamagedError
from tl_keras.utils.hashing import fingerprint

PARITY = ("even", "odd")
PATH = Path(__file__).parent / "embedded" / "digits.npz"
MAX_VALUE = 16


def load(config: DataConfig, url: str = "") -> Source:
    """1,297 images to train and 500 to test on, uint8 (8, 8, 3), in 10 classes, or 2 with the label parity. Nothing to fetch."""
    try:
        with np.load(PATH, allow_pickle=False) as arrays:
            values, labels, is_test = arrays["images"], arrays["labels"].astype(np.int64), arrays["is_test"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DamagedError(f"{PATH}, which the package carries, cannot be read ({error}). Reinstall the package.") from error
    groups = {name: tuple(range(first, 10, 2)) for first, name in enumerate(PARITY)}
    names, header = tuple("0123456789"), "digits"
    if config.label == "parity":
        labels, names, groups, header = labels % 2, PARITY, {}, "digits parity"
    grey = np.round(values * (255 / MAX_VALUE)).astype(np.uint8)
    examples = make_examples(Images(np.repeat(grey[..., None], 3, axis=-1)), labels)
    return Source(
        name="digits",
        class_names=names,
        train=examples.take(np.flatnonzero(~is_test)),
        validation=None,
        test=examples.take(np.flatnonzero(is_test)),
        fingerprint=fingerprint(header, [values, labels, is_test]),
        embedded=True,
        groups=groups,
    )
