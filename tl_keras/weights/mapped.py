"""Memory of mapped files."""

import mmap
from typing import Any


def release(array: Any) -> None:
    """Give back the memory of the file that `array` is a view of, if it is of a mapped one; it is read again when it is wanted.

    What has been copied out of a large file need not stay in memory twice.
    """
    owner = array
    while getattr(owner, "base", None) is not None:
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
