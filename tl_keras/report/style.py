"""Style, legends and files of plots.

Matplotlib is used without pyplot, and so without its global state.
"""

import contextlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from PIL import Image

from tl_keras.report.experiment_results import ExperimentResults, TableRow
from tl_keras.report.text import capitalize, changed_settings_note, fallback_notes, run_facts, with_fallback_mark
from tl_keras.utils.files import atomic_write
from tl_keras.utils.text import to_one_line

# Okabe and Ito 2008: distinguishable with every kind of colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, CAVEAT_COLOUR = "#5a5a5a", "#b00020"
DIMMED = 0.45  # opacity of results that are not comparable
DPI, PHOTOGRAPH_DPI, NUM_COLOURS = 200, 120, 256
LineStyle = Mapping[str, Any]  # keywords of Matplotlib's plotting methods
MAX_LABEL_WIDTH = 40  # characters
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "errorbar.capsize": 3,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
}


@contextlib.contextmanager
def plot_style() -> Iterator[None]:
    """Apply our style on top of Matplotlib's defaults; the user's settings have no effect."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def shorten(value: object, width: int = MAX_LABEL_WIDTH) -> str:
    """Return untrusted text as one line of at most `width` characters, without mathematics."""
    line = to_one_line(value)
    return (line if len(line) <= width else f"{line[: width - 2].rstrip()} …").replace("$", r"\$")


def short_label(results: ExperimentResults, row: TableRow, width: int = MAX_LABEL_WIDTH) -> str:
    """Return the row's shortened label with the mark of its fallbacks."""
    return with_fallback_mark(results, shorten(row.label, width), row.fallbacks)


def best_row_title(results: ExperimentResults) -> str:
    """Return the title of a plot of the best row: its shortened label, with a word before it if there are other rows."""
    label = short_label(results, results.best_row)
    return f"Best row: {label}" if len(results.rows) > 1 else label


def line_label(results: ExperimentResults, rows: Sequence[TableRow]) -> str:
    """Return the shortened name of the line of `rows`, with the mark of fallbacks that they all share."""
    distinct = {row.fallbacks for row in rows}
    return with_fallback_mark(results, shorten(rows[0].line), distinct.pop() if len(distinct) == 1 else ())


def line_styles(names: Sequence[str]) -> dict[str, LineStyle]:
    """Return a colour and a marker for each name; the pairs are distinct for up to 49 names."""
    return {
        name: {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]}
        for index, name in enumerate(dict.fromkeys(names))
    }


def plot_chance(axes: Axes, rows: Sequence[TableRow], *, vertical: bool = False) -> list[Line2D]:
    """Plot the accuracy of guessing if a row is close to it, and return its legend handle."""
    chance = 100 / sum(recall is not None for recall in rows[0].runs[0].test["recall"])  # over the classes with test images
    if min(row.accuracy().mean for row in rows) > 2 * chance:
        return []
    line_style: LineStyle = {"color": GREY, "linestyle": ":", "linewidth": 1.2}
    (axes.axvline if vertical else axes.axhline)(chance, **line_style, zorder=1)
    return [Line2D([], [], label="guessing", **line_style)]


def num_legend_columns(handles: Sequence[Line2D], figure: Figure, max_columns: int = 4) -> int:
    """Return the number of legend columns for which the longest label leaves room."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    return max(1, min(max_columns, len(handles), int(figure.get_figwidth() / (0.068 * longest + 0.6))))


def finish_figure(figure: Figure, results: ExperimentResults, note: str, handles: Sequence[Line2D], columns: int) -> None:
    """Add the caveat and the legend above the axes, and the conditions of the results below them."""
    if handles or results.caveat:
        legend = figure.legend(
            handles=list(handles), loc="outside upper center", ncols=max(1, columns), columnspacing=1.4, handlelength=2.6
        )
        if results.caveat:
            legend.set_title(textwrap.fill(results.caveat, int(11 * figure.get_figwidth())), prop=FontProperties(weight="bold", size=10))
            legend.get_title().set_color(CAVEAT_COLOUR)
            legend.get_title().set_multialignment("center")
    sentences = [changed_settings_note(results), "; ".join(run_facts(results)), note.removesuffix("."), *fallback_notes(results)]
    footnote = ". ".join(map(capitalize, filter(None, sentences))).replace("$", r"\$") + "."
    figure.supxlabel(textwrap.fill(footnote, int(18.5 * figure.get_figwidth())), color=GREY, size=7, x=0.02, ha="left")


def save_figure(figure: Figure, path: Path, *, photographs: bool = False) -> Path:
    """Write the figure as a small file: PNG with a palette of 256 colours, or JPEG for `photographs`."""
    canvas = FigureCanvasAgg(figure)
    dpi = PHOTOGRAPH_DPI if photographs else DPI
    figure.set_dpi(dpi)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    with atomic_write(path) as temporary:
        if photographs:
            image.save(temporary, "JPEG", quality=80, subsampling=0, dpi=(dpi, dpi))
        else:
            image.quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(temporary, "PNG", optimize=True, dpi=(dpi, dpi))
    return path
