"""A page as a list of blocks, and its conversion to Markdown and to self-contained HTML.

Text in blocks is untrusted, so both conversions escape all of it. The HTML has no scripts and loads nothing; images are embedded.
"""

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

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
    """Rows of cells. The first column is aligned to the left, the others to the right, or also to the left if they are text."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_text: bool = False


@dataclass(frozen=True)
class Image:
    """A plot. `path` is relative to the directory of the page and ends in one of `IMAGE_TYPES`."""

    path: Path
    caption: str


IMAGE_TYPES = MappingProxyType({".png": "image/png", ".jpg": "image/jpeg"})
Block = Heading | Paragraph | Caveat | Code | Bullets | Table | Image


def to_markdown(blocks: Sequence[Block], root: Path) -> str:
    """Return the page in Markdown, with images as relative paths. `root` is the directory of the page."""
    return "\n".join(MARKDOWN[type(block)](block, root) for block in blocks)


def to_html(blocks: Sequence[Block], root: Path, *, refresh_seconds: int = 0) -> str:
    """Return the page as HTML with embedded images. Its title is the first heading.

    Args:
        root: directory of the page.
        refresh_seconds: seconds after which a browser loads the page again; 0: never.
    """
    title = next(block.text for block in blocks if isinstance(block, Heading))
    body = "\n".join(HTML[type(block)](block, root) for block in blocks)
    refresh = f'<meta http-equiv="refresh" content="{refresh_seconds:d}">\n' if refresh_seconds else ""
    return HTML_PAGE.format(title=_escape(title), refresh=refresh, body=body)


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
    }
)


def _escape(text: object) -> str:
    return html.escape(to_one_line(text))


def _html_table(table: Table, root: Path) -> str:
    rows = [_html_row("th", table.headings), *(_html_row("td", row) for row in table.rows)]
    kind = ' class="text"' if table.is_text else ""
    return f'<div class="wide"><table{kind}>\n{"".join(rows)}</table></div>'


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_escape(cell)}</{tag}>' for cell in cells)}</tr>\n"


def _html_image(image: Image, root: Path) -> str:
    data = base64.b64encode((root / image.path).read_bytes()).decode("ascii")
    caption, source = _escape(image.caption), f"data:{IMAGE_TYPES[image.path.suffix]};base64,{data}"
    return f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>'


HTML: Mapping[type, Callable[[Any, Path], str]] = MappingProxyType(
    {
        Heading: lambda block, root: f"<h{block.level}>{_escape(block.text)}</h{block.level}>",
        Paragraph: lambda block, root: f"<p>{_escape(block.text)}</p>",
        Caveat: lambda block, root: f'<p class="caveat">{_escape(block.text)}</p>',
        Code: lambda block, root: f"<pre>{_escape(block.text)}</pre>",
        Bullets: lambda block, root: f"<ul>{''.join(f'<li>{_escape(line)}</li>' for line in block.lines)}</ul>",
        Table: _html_table,
        Image: _html_image,
    }
)

HTML_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
h1, h2, h3 {{ line-height: 1.25; margin: 2.2rem 0 0.7rem; }}
h2 {{ border-top: 1px solid #ccc; padding-top: 1.2rem; }}
pre {{ background: #f4f4f4; padding: 0.6rem 0.8rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
li {{ overflow-wrap: anywhere; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid #e3e3e3; }}
th {{ vertical-align: bottom; border-bottom-color: #777; }}
th:first-child, td:first-child {{ text-align: left; min-width: 9rem; }}
.text th, .text td {{ text-align: left; vertical-align: top; overflow-wrap: anywhere; }}
figure {{ margin: 1.5rem 0; }}
img {{ max-width: 100%; height: auto; }}
figcaption {{ color: #5a5a5a; font-size: 0.85rem; }}
.caveat {{ color: #b00020; font-weight: bold; border-left: 4px solid #b00020; padding-left: 0.8rem; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
