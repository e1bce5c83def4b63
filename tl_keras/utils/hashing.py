"""SHA-256 fingerprints of data sets.

A fingerprint identifies content: the header that a loader chooses, and then every part in order. Each is hashed after its length
in bytes, so a byte cannot move from one part to the next unnoticed. The loaders of `tl_keras.data` cover:

    digits    header `digits` or `digits parity`; pixel values, labels of the task, mask of the test split
    glyphs    header `glyphs`; pixels, labels
    folder    header `folder`; for each readable file its path in the folder and the SHA-256 of its content
    table     header `table` and the class names; for each readable file its path from the directory of the table, the SHA-256 of its
              content, its label, its group and its split
    tfds      header of set name, version, label, class names and sizes of the splits; encoded images, labels

Paths outside the data set, the seed of a run and its split settings are not covered.
"""

import hashlib
import itertools
from collections.abc import Iterable

import numpy as np


def fingerprint(header: str, parts: Iterable[bytes | np.ndarray]) -> str:
    """Return the SHA-256 hex digest over `header` and `parts`, each preceded by its length.

    Of an array only the bytes count, in C order. Its shape and dtype do not, so name them in `header` if they can vary.
    """
    digest = hashlib.sha256()
    for part in itertools.chain([header.encode()], parts):
        content = part.tobytes() if isinstance(part, np.ndarray) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()
