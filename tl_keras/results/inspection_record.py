"""`inspection.json`: the findings on a data set before training, which `tl-keras fit` writes into the directory of its run. No TensorFlow.

    {"suspected_labels": [{"file": "cat/7.png", "label": "cat", "suggested": "dog", "confidence": 0.97, "thumbnail": JPEG in base64}],
     "near_duplicates": [["cat/1.png", "cat/8.png", 0.98]], "corrupt": [["cat/3.png", "no image"]], "copies": [["a.png", "b.png"]],
     "notes": ["12 images are smaller than 32 pixels"]}

A run directory may come from elsewhere, so the size of the file is limited, and a thumbnail is read as a JPEG and as nothing else.
"""

import base64
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tl_keras.errors import DamagedError
from tl_keras.utils.files import READ_ERRORS, write_json

INSPECTION = "inspection.json"
MAX_BYTES = 4_000_000  # of the file
MAX_THUMBNAIL_BYTES = 16_384  # of one JPEG
MAX_SIDE, THUMBNAIL_SIDE = 256, 96  # pixels: that is read at most, and that is written


@dataclass(frozen=True, eq=False)
class SuspectedLabel:
    """An image whose label is probably wrong.

    Attributes:
        suggested: name of the class that the image seems to have.
        confidence: probability of that class, in [0, 1].
        thumbnail: uint8 (height, width, 3).
    """

    file: str
    label: str
    suggested: str
    confidence: float
    thumbnail: np.ndarray


@dataclass(frozen=True, eq=False)
class Inspection:
    """Findings on a data set.

    Attributes:
        near_duplicates: pairs of files in different splits that look alike, and the cosine of their features.
        corrupt: files that cannot be read, and the reason.
        copies: groups of files of the same content.
        notes: other remarks, one sentence each.
    """

    suspected_labels: tuple[SuspectedLabel, ...] = ()
    near_duplicates: tuple[tuple[str, str, float], ...] = ()
    corrupt: tuple[tuple[str, str], ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()


def write_inspection(run_dir: Path, inspection: Inspection) -> None:
    """Write `inspection.json`, with thumbnails of at most `THUMBNAIL_SIDE` pixels."""
    suspected = [vars(suspect) | {"thumbnail": _encode(suspect.thumbnail)} for suspect in inspection.suspected_labels]
    write_json(run_dir / INSPECTION, vars(inspection) | {"suspected_labels": suspected})


def read_inspection(run_dir: Path) -> Inspection | None:
    """Return the findings in `run_dir`, or None if there are none.

    Raises:
        DamagedError: The file is damaged, or larger than `write_inspection` makes it.
    """
    path = run_dir / INSPECTION
    if not path.exists():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
        return _read(json.loads(path.read_text(encoding="utf-8")))
    except (*READ_ERRORS, AttributeError, RecursionError, Image.DecompressionBombError) as error:
        raise DamagedError(f"{path} is not a record of an inspection ({error!r}). Delete it, and write the report again.") from error


def _read(content: Mapping[str, Any]) -> Inspection:
    return Inspection(
        suspected_labels=tuple(map(_read_suspect, content["suspected_labels"])),
        near_duplicates=tuple((str(first), str(second), _finite(cosine)) for first, second, cosine in content["near_duplicates"]),
        corrupt=tuple((str(file), str(reason)) for file, reason in content["corrupt"]),
        copies=tuple(tuple(map(str, files)) for files in content["copies"]),
        notes=tuple(map(str, content["notes"])),
    )


def _read_suspect(content: Mapping[str, Any]) -> SuspectedLabel:
    names = {name: str(content[name]) for name in ("file", "label", "suggested")}
    return SuspectedLabel(**names, confidence=_finite(content["confidence"]), thumbnail=_decode(content["thumbnail"]))


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return float(value)


def _encode(image: np.ndarray) -> str:
    """Return an image uint8 (height, width, 3) as a small JPEG in base64."""
    small, file = Image.fromarray(image), io.BytesIO()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small.save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _decode(text: str) -> np.ndarray:
    """Return a JPEG in base64 as uint8 (height, width, 3); ValueError if it is too large, OSError if it is no JPEG."""
    content = base64.b64decode(text, validate=True)
    if len(content) > MAX_THUMBNAIL_BYTES:
        raise ValueError(f"a thumbnail has {len(content):,} bytes; expected at most {MAX_THUMBNAIL_BYTES:,}")
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        if max(image.size) > MAX_SIDE:
            raise ValueError(f"a thumbnail has {image.width} x {image.height} pixels; expected at most {MAX_SIDE}")
        return np.asarray(image.convert("RGB"))
