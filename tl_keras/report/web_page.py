"""A page as one HTML file that loads nothing: its style, its images and the script that sorts its tables are part of it.

Text in blocks is untrusted, so all of it is escaped. The policy of the page allows the style and the script by their hashes, and no
other. Without the script the page is complete, and its tables keep their order.
"""

import base64
import hashlib
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from tl_keras.report.document import Block, Bullets, Caveat, Code, Gallery, Heading, Image, Paragraph, Picture, Table
from tl_keras.utils.text import to_one_line

IMAGE_TYPES = MappingProxyType({".png": "image/png", ".jpg": "image/jpeg"})
PIXELS_PER_INCH = 100  # of a plot on the page
MIN_SECTIONS = 5  # a page with fewer has no list of contents
MIN_PICTURE_SIDE = 96  # pixels; smaller pictures are enlarged by a whole factor, so that their pixels stay sharp
MAX_ANCHOR = 48  # characters


def to_html(blocks: Sequence[Block], root: Path, *, refresh_seconds: int = 0) -> str:
    """Return the page as HTML. The first block is a heading, its title.

    Args:
        root: directory of the page, from which the paths of images are read.
        refresh_seconds: seconds after which a browser loads the page again; 0: never.
    """
    anchors = _anchors(blocks)
    first, *others = (HTML[type(block)](block, _Section(anchor, root)) for block, anchor in zip(blocks, anchors, strict=True))
    style, script = _asset("page.css"), _asset("page.js")
    return HTML_PAGE.format(
        policy=POLICY.format(style=_hash(style), script=_hash(script)),
        refresh=f'<meta http-equiv="refresh" content="{refresh_seconds:d}">\n' if refresh_seconds else "",
        title=_escape(next(block.text for block in blocks if isinstance(block, Heading))),
        style=style,
        body="\n".join([first, *_contents(blocks, anchors), *others]),
        script=script,
    )


@dataclass(frozen=True)
class _Section:
    """The part of a page below a heading: the anchor of the heading, and the directory of the page."""

    anchor: str
    root: Path


def _anchors(blocks: Sequence[Block]) -> list[str]:
    """Return for each block the anchor of the heading above it: letters and digits of its text, made unique by a number."""
    anchors: list[str] = []
    for index, block in enumerate(blocks):
        if isinstance(block, Heading):
            words = re.sub(r"[^a-z0-9]+", "-", block.text.lower())[:MAX_ANCHOR].strip("-") or "section"
            anchors.append(f"{words}-{index}" if words in anchors else words)
        else:
            anchors.append(anchors[-1])
    return anchors


def _contents(blocks: Sequence[Block], anchors: Sequence[str]) -> list[str]:
    """Return links to the sections, or nothing if they are few."""
    sections = [
        (anchor, block.text) for block, anchor in zip(blocks, anchors, strict=True) if isinstance(block, Heading) and block.level == 2
    ]
    links = "".join(f'<li><a href="#{anchor}">{_escape(text)}</a></li>\n' for anchor, text in sections)
    return [f'<nav aria-label="Contents"><p>Contents</p><ul>\n{links}</ul></nav>'] if len(sections) >= MIN_SECTIONS else []


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the source expression that allows `text` in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _escape(text: object) -> str:
    return html.escape(to_one_line(text))


def _heading(heading: Heading, section: _Section) -> str:
    return f'<h{heading.level} id="{section.anchor}">{_escape(heading.text)}</h{heading.level}>'


def _table(table: Table, section: _Section) -> str:
    classes = " ".join(["text"] * table.is_text + ["sortable"] * (table.is_sortable and len(table.rows) > 1))
    attributes = f'class="{classes}" aria-labelledby="{section.anchor}"'
    columns = "".join(f'<th scope="col">{_escape(heading)}</th>' for heading in table.headings)
    head, body = f"<thead><tr>{columns}</tr></thead>", "".join(map(_row, table.rows))
    return f'<div class="wide"><table {attributes}>\n{head}\n<tbody>\n{body}</tbody></table></div>'


def _row(cells: Sequence[str]) -> str:
    others = "".join(f"<td>{_escape(cell)}</td>" for cell in cells[1:])
    return f'<tr><th scope="row">{_escape(cells[0])}</th>{others}</tr>\n'


def _image(image: Image, section: _Section) -> str:
    content = (section.root / image.path).read_bytes()
    with PillowImage.open(io.BytesIO(content)) as opened:
        scale = PIXELS_PER_INCH / round(opened.info["dpi"][0])
        width, height = (round(scale * pixels) for pixels in opened.size)
    source, caption = _data_uri(content, IMAGE_TYPES[image.path.suffix]), _escape(image.caption)
    tag = f'<img alt="{caption}" width="{width}" height="{height}" src="{source}">'
    return f'<figure class="plot">{tag}<figcaption>{caption}</figcaption></figure>'


def _words(text: str) -> str:
    """Return a command line whose flags are elements, so that a line does not end within their hyphens."""
    return " ".join(f"<span>{_escape(word)}</span>" if word.startswith("--") else _escape(word) for word in text.split())


def _gallery(gallery: Gallery, section: _Section) -> str:
    return f'<div class="gallery">\n{"".join(map(_picture, gallery.pictures))}</div>'


def _picture(picture: Picture) -> str:
    lines = "".join(f"<span>{_escape(line).replace('/', '/<wbr>')}</span>" for line in picture.lines)
    source = _data_uri(_encode(picture.image), IMAGE_TYPES[".jpg"])
    return f'<figure><img alt="{_escape(picture.alt)}" src="{source}"><figcaption>{lines}</figcaption></figure>\n'


def _encode(image: np.ndarray) -> bytes:
    """Return an image uint8 (height, width, 3) as JPEG."""
    factor = -(-MIN_PICTURE_SIDE // max(image.shape[:2]))
    file = io.BytesIO()
    PillowImage.fromarray(image.repeat(factor, axis=0).repeat(factor, axis=1)).save(file, "JPEG", quality=85)
    return file.getvalue()


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


HTML: Mapping[type, Callable[[Any, _Section], str]] = MappingProxyType(
    {
        Heading: _heading,
        Paragraph: lambda block, section: f"<p>{_escape(block.text)}</p>",
        Caveat: lambda block, section: f'<p class="caveat">{_escape(block.text)}</p>',
        Code: lambda block, section: f"<pre>{_words(block.text)}</pre>",
        Bullets: lambda block, section: f"<ul>{''.join(f'<li>{_escape(line)}</li>' for line in block.lines)}</ul>",
        Table: _table,
        Image: _image,
        Gallery: _gallery,
    }
)
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src {style}; script-src {script}"
HTML_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""
