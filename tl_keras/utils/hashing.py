"""SHA-256 of a data set's content."""

import hashlib
from collections.abc import Iterable

import numpy as np


def fingerprint(header: str, parts: Iterable[bytes | np.ndarray]) -> str:
    """Hex digest over `header` and `parts`, each with its length, so that nothing can move from one to the next unnoticed."""
    digest = hashlib.sha256()
    for part in [header.encode(), *parts]:
        content = part.tobytes() if isinstance(part, np.ndarray) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()
