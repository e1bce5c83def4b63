"""Text from outside, such as names of files and classes, in messages and tables."""

import os
from collections.abc import Iterable, Sequence

FORMULA_STARTS = ("=", "+", "-", "@")  # a spreadsheet reads a cell that begins with one of these as a formula


def to_one_line(text: object) -> str:
    """Return `text` as one printable line; line breaks, tabs and other control characters become spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def plain_cell(text: object) -> str:
    """Return `text` as one line, with an apostrophe in front if a spreadsheet would read it as a formula.

    >>> plain_cell("=1+1"), plain_cell("cat.png")
    ("'=1+1", 'cat.png')
    """
    line = to_one_line(text)
    return f"'{line}" if line.startswith(FORMULA_STARTS) else line


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


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return each row as a line, with its cells padded to the width of their column.

    >>> align_columns([("stage", "trained"), ("head", "all")])
    ['stage  trained', 'head   all']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
