"""Lists of names in messages."""

from collections.abc import Iterable


def join_names(names: Iterable[str], limit: int = 5, separator: str = ", ") -> str:
    """Return the first `limit` names, and the number of the others.

    >>> join_names(["cat", "dog", "horse", "ship"], limit=2)
    'cat, dog and 2 more'
    """
    names = list(names)
    hidden = len(names) - limit
    return separator.join(names[:limit]) + (f" and {hidden} more" if hidden > 0 else "")
