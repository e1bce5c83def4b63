"""How figures look and how they are written: Matplotlib without pyplot, and so without its global state."""

import contextlib
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from tl_keras.report.experiment_results import ExperimentResults, Row
from tl_keras.report.text import departure_note, facts, plain, sentence, signed, stand_in_notes
from tl_keras.utils.files import atomic_write

# Okabe and Ito 2008: told apart with every kind of colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, MARK_COLOUR = "#5a5a5a", "#b00020"
DIMMED = 0.45  # opacity of what is not comparable
DPI, PHOTOGRAPH_DPI, NUM_COLOURS = 200, 120, 256
MAX_NAME = 40
STYLE = {
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
def style() -> Iterator[None]:
    """Our style on Matplotlib's own defaults, whatever the user's are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def short(value: object, width: int = MAX_NAME) -> str:
    """A name from outside: one short line, no mathematics."""
    line = plain(value)
    return (line if len(line) <= width else f"{line[: width - 2].rstrip()} …").replace("$", r"\$")


def short_label(results: ExperimentResults, row: Row, width: int = MAX_NAME) -> str:
    """The row's label as `short`, with the sign of its stand-ins."""
    return signed(results, short(row.label, width), row.stand_ins)


def group_label(results: ExperimentResults, rows: Sequence[Row]) -> str:
    """The name of the group of `rows` as `short`, with the sign of stand-ins that all of them have."""
    shared = {row.stand_ins for row in rows}
    return signed(results, short(rows[0].group), shared.pop() if len(shared) == 1 else ())


def looks(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Name -> a colour and a marker, the pairs different for up to 49 names."""
    return {
        name: {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]}
        for index, name in enumerate(dict.fromkeys(names))
    }


def draw_chance(axes: Axes, rows: Sequence[Row], *, vertical: bool = False) -> list[Line2D]:
    """The accuracy of guessing, where a row comes near it, and its key."""
    chance = 100 / max(1, len(rows[0].runs[0].class_names))
    if min(row.accuracy().mean for row in rows) > 2 * chance:
        return []
    look = {"color": GREY, "linestyle": ":", "linewidth": 1.2}
    (axes.axvline if vertical else axes.axhline)(chance, **look, zorder=1)
    return [Line2D([], [], label="guessing", **look)]


def num_columns(handles: Sequence[Line2D], figure: Figure, most: int = 4) -> int:
    """As many columns as the longest key leaves room for."""
    longest = max((len(handle.get_label()) for handle in handles), default=1)
    return max(1, min(most, len(handles), int(figure.get_figwidth() / (0.068 * longest + 0.6))))


def finish(figure: Figure, results: ExperimentResults, note: str, handles: Sequence[Line2D], columns: int) -> None:
    """The mark and the legend above the axes, what a reader must know below them."""
    if handles or results.mark:
        legend = figure.legend(
            handles=list(handles), loc="outside upper center", ncols=max(1, columns), columnspacing=1.4, handlelength=2.6
        )
        if results.mark:
            legend.set_title(textwrap.fill(results.mark, int(11 * figure.get_figwidth())), prop={"weight": "bold", "size": 10})
            legend.get_title().set_color(MARK_COLOUR)
            legend.get_title().set_multialignment("center")
    sentences = [departure_note(results), "; ".join(facts(results)), note.removesuffix("."), *stand_in_notes(results)]
    footnote = ". ".join(map(sentence, filter(None, sentences))).replace("$", r"\$") + "."
    figure.supxlabel(textwrap.fill(footnote, int(18.5 * figure.get_figwidth())), color=GREY, size=7, x=0.02, ha="left")


def save(figure: Figure, path: Path, *, photographs: bool = False) -> Path:
    """Write the figure, small: as PNG with a palette of 256 colours, `photographs` as JPEG."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(PHOTOGRAPH_DPI if photographs else DPI)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    with atomic_write(path) as temporary:
        if photographs:
            image.save(temporary, "JPEG", quality=80, subsampling=0)
        else:
            image.quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(temporary, "PNG", optimize=True)
    return path
