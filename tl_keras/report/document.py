"""A page as a list of blocks, and its conversion to Markdown. Text in blocks is untrusted, so all of it is escaped.

`web_page.to_html` converts the same blocks to HTML.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tl_keras.report.text import escape_markdown
from tl_keras.utils.text import to_one_line


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Caveat:
    """The reason why results are not comparable, in bold."""

    text: str


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Bullets:
    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of cells. The first cell of a row names it.

    Attributes:
        is_text: True if all columns are aligned to the left; else only the first is, and the others are numbers.
        is_sortable: True if the order of the rows has no meaning of its own, so that a reader may choose another.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_text: bool = False
    is_sortable: bool = True


@dataclass(frozen=True)
class Image:
    """A plot that `style.save_figure` wrote. `path` is relative to the directory of the page."""

    path: Path
    caption: str


@dataclass(frozen=True, eq=False)
class Picture:
    """A small photograph with some lines of text below it.

    Attributes:
        image: uint8 (height, width, 3).
        alt: description for readers who do not see it.
    """

    image: np.ndarray
    alt: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side. Markdown has only their text."""

    pictures: Sequence[Picture]


Block = Heading | Paragraph | Caveat | Code | Bullets | Table | Image | Gallery


def to_markdown(blocks: Sequence[Block], root: Path) -> str:
    """Return the page in Markdown, with images as relative paths. `root` is the directory of the page."""
    return "\n".join(MARKDOWN[type(block)](block, root) for block in blocks)


def _markdown_table(table: Table, root: Path) -> str:
    marks = [":--", *[":--" if table.is_text else "--:"] * (len(table.headings) - 1)]
    lines = [list(map(escape_markdown, table.headings)), marks, *(list(map(escape_markdown, row)) for row in table.rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


MARKDOWN: Mapping[type, Callable[[Any, Path], str]] = MappingProxyType(
    {
        Heading: lambda block, root: f"{'#' * block.level} {escape_markdown(block.text)}\n",
        Paragraph: lambda block, root: f"{escape_markdown(block.text)}\n",
        Caveat: lambda block, root: f"> **{escape_markdown(block.text)}**\n",
        Code: lambda block, root: f"    {to_one_line(block.text)}\n",
        Bullets: lambda block, root: "".join(f"- {escape_markdown(line)}\n" for line in block.lines),
        Table: _markdown_table,
        Image: lambda block, root: f"![{escape_markdown(block.caption)}]({block.path.as_posix()})\n",
        Gallery: lambda block, root: "".join(f"- {escape_markdown('; '.join(picture.lines))}\n" for picture in block.pictures),
    }
)
