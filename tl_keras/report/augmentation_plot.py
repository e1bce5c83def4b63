"""Picture of augmented training images that the first run of the best row left in its directory."""

from pathlib import Path

import numpy as np
from PIL import Image

from tl_keras.errors import DamagedError
from tl_keras.report.experiment_results import ExperimentResults
from tl_keras.report.style import PHOTOGRAPH_DPI
from tl_keras.results.run_directory import AUGMENTATION
from tl_keras.utils.files import READ_ERRORS, atomic_write

MAX_BYTES, MAX_SIDE = 1_000_000, 2000  # of the file, and pixels


def has_augmentation(results: ExperimentResults) -> bool:
    """Return True if the run left such a picture."""
    return _path(results).exists()


def copy_augmentation(results: ExperimentResults, path: Path) -> Path:
    """Write the picture to `path`. It is decoded and encoded again, since the directory of a run may come from elsewhere.

    Raises:
        DamagedError: The file is no JPEG, or larger than a run writes.
    """
    source = _path(results)
    try:
        if source.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
        with Image.open(source, formats=("JPEG",)) as image:
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"it has {image.width} x {image.height} pixels; expected at most {MAX_SIDE}")
            picture = Image.fromarray(np.asarray(image.convert("RGB")))  # without comments and other metadata
    except (*READ_ERRORS, Image.DecompressionBombError) as error:
        raise DamagedError(f"{source} cannot be read ({error}). Delete it, and write the report again.") from error
    with atomic_write(path) as temporary:
        picture.save(temporary, "JPEG", quality=85, dpi=(PHOTOGRAPH_DPI, PHOTOGRAPH_DPI))
    return path


def _path(results: ExperimentResults) -> Path:
    return results.best_row.runs[0].path / AUGMENTATION
