"""Names in messages."""

import os
from collections.abc import Iterable


def printable(path: str | os.PathLike[str]) -> str:
    """Return the name of a file as text. Bytes that are not UTF-8 are written as escapes.

    >>> printable("caf\\udce9.png")
    'caf\\\\xe9.png'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def join_names(names: Iterable[str], limit: int = 5, separator: str = ", ") -> str:
    """Return the first `limit` names, and the number of the others.

    >>> join_names(["cat", "dog", "horse", "ship"], limit=2)
    'cat, dog and 2 more'
    """
    names = list(names)
    hidden = len(names) - limit
    return separator.join(names[:limit]) + (f" and {hidden} more" if hidden > 0 else "")
