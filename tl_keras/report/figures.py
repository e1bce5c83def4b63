"""Figures of an experiment with Matplotlib, drawn without pyplot and so without its global state."""

import contextlib
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from tl_keras.report.collection import ExperimentResults, Row
from tl_keras.report.text import facts, interval_meaning, plain
from tl_keras.results import atomic_write

# Okabe and Ito 2008: told apart with every kind of colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, MARK_COLOUR = "#5a5a5a", "#b00020"
DIMMED = 0.45  # opacity of reported figures that are not comparable
MAX_TICKS, MAX_NAME = 8, 40
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
def _style() -> Iterator[None]:
    """Our style on Matplotlib's own defaults, whatever the user's are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _text(value: object) -> str:
    """A name from outside: one short line, no mathematics."""
    return textwrap.shorten(plain(value), MAX_NAME, placeholder=" …").replace("$", r"\$")


def _finish(figure: Figure, results: ExperimentResults, note: str, handles: Sequence[Line2D], num_columns: int) -> None:
    """The mark and the legend above the axes, what a reader must know below them."""
    legend = figure.legend(handles=list(handles), loc="outside upper center", ncols=num_columns, columnspacing=1.4, handlelength=2.6)
    if results.mark:
        legend.set_title(results.mark, prop={"weight": "bold", "size": 10})
        legend.get_title().set_color(MARK_COLOUR)
    what = "; ".join(facts(results))
    footnote = f"{what[0].upper()}{what[1:]}. {note}".replace("$", r"\$")
    figure.supxlabel(textwrap.fill(footnote, int(18.5 * figure.get_figwidth())), color=GREY, size=7, x=0.02, ha="left")


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=200, metadata={"Software": None})
    return path


def draw_accuracy(results: ExperimentResults, path: Path) -> Path:
    """Test accuracy against the share of the training data, one line a group, beside the reported figures.

    Rows without `x` are left out; at least one must have it.
    """
    rows = [row for row in results.rows if row.x is not None]
    with _style():
        figure = Figure(figsize=(6.6, 4.8), layout="constrained")
        axes = figure.add_subplot()
        legend = []
        for index, (group, members) in enumerate(_by(rows, lambda row: row.group).items()):
            look = {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)]}
            legend += _draw_group(axes, group, sorted(members, key=lambda row: row.x), look, bool(results.mark))
        legend += _draw_chance(axes, rows)
        _share_axis(axes, rows)
        axes.set_ylabel("Test accuracy (%)")
        _finish(figure, results, f"Error bars: {interval_meaning(results)}.", legend, min(3, -(-len(legend) // 2)))
        return _save(figure, path)


def _by(rows: Sequence[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """The rows by `key`, in the order of appearance."""
    return {value: [row for row in rows if key(row) == value] for value in dict.fromkeys(map(key, rows))}


def _draw_group(axes: Axes, group: str, rows: Sequence[Row], look: Mapping[str, str], is_marked: bool) -> list[Line2D]:
    shares = [100 * row.x for row in rows]
    estimates = [row.accuracy() for row in rows]
    low = [estimate.mean - max(0, estimate.low) for estimate in estimates]
    high = [min(100, estimate.high) - estimate.mean for estimate in estimates]
    axes.errorbar(shares, [estimate.mean for estimate in estimates], yerr=[low, high], **look)
    legend = [Line2D([], [], label=_text(group), **look)]
    reported = [(100 * row.x, row.reported_accuracy) for row in rows if row.reported_accuracy is not None]
    if reported:
        hollow = {"linestyle": "--", "linewidth": 0.9, "markerfacecolor": "none", "markersize": 9, "alpha": DIMMED if is_marked else 1}
        axes.plot(*zip(*reported, strict=True), **look, **hollow)
        legend.append(Line2D([], [], label=f"{_text(group)}, reported", **look, **hollow))
    return legend


def _draw_chance(axes: Axes, rows: Sequence[Row]) -> list[Line2D]:
    """The accuracy of guessing, where a row comes near it."""
    num_classes = len(rows[0].runs[0].result["data"]["class_names"])
    chance = 100 / max(1, num_classes)
    if min(row.accuracy().mean for row in rows) > 2 * chance:
        return []
    look = {"color": GREY, "linestyle": ":", "linewidth": 1.2}
    axes.axhline(chance, **look, zorder=1)
    return [Line2D([], [], label="guessing", **look)]


def _share_axis(axes: Axes, rows: Sequence[Row]) -> None:
    """Logarithmic, with a tick at each share that was run and the number of images below it."""
    images = {row.x: row.num_train for row in rows}
    shares = sorted(images)
    axes.set_xscale("log")
    axes.set_xlim(100 * shares[0] / 1.3, 100 * shares[-1] * 1.3)
    axes.xaxis.set_minor_locator(NullLocator())
    shown = shares if len(shares) <= MAX_TICKS else shares[:: -(-len(shares) // MAX_TICKS)]
    axes.xaxis.set_major_locator(FixedLocator([100 * share for share in shown]))
    axes.set_xticklabels([f"{100 * share:g}\n({images[share]:,})" for share in shown])
    axes.set_xlabel("Share of the training data (%, log scale), with the number of images")


# Of a panel: its axis, the columns of the history for training and validation, their factor, the place in `reported_curve`.
MEASURES = (("Accuracy (%)", ("accuracy", "val_accuracy"), 100.0, 1), ("Cross-entropy (nats)", ("loss", "val_loss"), 1.0, 0))
LINES = ("-", (0, (3, 1.5)))  # training, validation
REPORTED_LOOK = {"marker": "o", "linestyle": "none", "markerfacecolor": "white", "markersize": 6}
MAX_COLUMNS = 3


def draw_curves(results: ExperimentResults, path: Path) -> Path:
    """Accuracy and loss against the epoch, on training and validation images, a pair of panels for each group."""
    groups = _by(results.rows, lambda row: row.group)
    names = list(dict.fromkeys(map(_line_name, results.rows)))
    colours = dict(zip(names, matplotlib.colormaps["viridis"](np.linspace(0, 0.78, len(names))), strict=True))
    num_columns = min(len(groups), MAX_COLUMNS)
    num_bands = -(-len(groups) // num_columns)
    with _style():
        figure = Figure(figsize=(max(6.6, 3.4 * num_columns), 1.3 + 4.6 * num_bands), layout="constrained")
        panels = figure.subplots(2 * num_bands, num_columns, sharex="all", sharey="row", squeeze=False)
        for index, (group, rows) in enumerate(groups.items()):
            band, column = divmod(index, num_columns)
            _draw_pair(panels[2 * band : 2 * band + 2, column], group, rows, colours, bool(results.mark))
        _tidy(panels, len(groups))
        _finish(figure, results, _curve_note(results), *_curve_legend(results, colours))
        return _save(figure, path)


def _line_name(row: Row) -> str:
    return row.label if row.x is None else f"{100 * row.x:g} %"


def _draw_pair(pair: Sequence[Axes], group: str, rows: Sequence[Row], colours: Mapping[str, Any], is_marked: bool) -> None:
    pair[0].set_title(_text(group))
    for axes, (name, columns, factor, place) in zip(pair, MEASURES, strict=True):
        axes.set_ylabel(name)
        for row in rows:
            colour = colours[_line_name(row)]
            for column, line in zip(columns, LINES, strict=True):
                _draw_history(axes, row, column, factor, {"color": colour, "linestyle": line})
            points = [(epoch, values[place]) for epoch, values in row.reported_curve.items()]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, alpha=DIMMED if is_marked else 1, zorder=3, **REPORTED_LOOK)


def _draw_history(axes: Axes, row: Row, column: str, factor: float, look: Mapping[str, Any]) -> None:
    """The mean over the seeds, and a band from the lowest to the highest."""
    values: dict[int, list[float]] = {}
    for record in (record for run in row.runs for record in run.history if column in record):
        values.setdefault(int(record["epoch"]), []).append(factor * record[column])
    epochs = sorted(values)
    marker = "." if len(epochs) == 1 else None  # a line of one point is invisible
    axes.plot(epochs, [np.mean(values[epoch]) for epoch in epochs], marker=marker, **look)
    if len(row.runs) > 1:
        bounds = [[bound(values[epoch]) for epoch in epochs] for bound in (min, max)]
        axes.fill_between(epochs, *bounds, color=look["color"], alpha=0.15, linewidth=0)


def _tidy(panels: np.ndarray, num_groups: int) -> None:
    """Remove the panels without a group, and say once what an axis shows: measures at the left, epochs at the foot of a column."""
    num_columns = panels.shape[1]
    panels[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # all panels share it
    for (row, column), axes in np.ndenumerate(panels):
        index = row // 2 * num_columns + column
        if index >= num_groups:
            axes.remove()
        if column:
            axes.set_ylabel("")
        if row % 2 and index + num_columns >= num_groups:
            axes.set_xlabel("Epoch")
            axes.tick_params(labelbottom=True)


def _curve_legend(results: ExperimentResults, colours: Mapping[str, Any]) -> tuple[list[Line2D], int]:
    """The keys and the number of columns: first what the colours mean, where the headings do not say it, then the kinds of line."""
    groups = {row.group for row in results.rows}
    keys = [Line2D([], [], color=colour, label=_text(name)) for name, colour in colours.items() if name not in groups]
    keys += [Line2D([], [], color=GREY, linestyle=line, label=name) for name, line in zip(("training", "validation"), LINES, strict=True)]
    if any(row.reported_curve for row in results.rows):
        keys.append(Line2D([], [], color=GREY, label="training, reported", **REPORTED_LOOK))
    num_columns = len(keys) if len(keys) < 5 else 3
    return [key for column in range(num_columns) for key in keys[column::num_columns]], num_columns  # Matplotlib fills columns first


def _curve_note(results: ExperimentResults) -> str:
    return "Lines: mean over the seeds; bands: lowest to highest." if any(len(row.runs) > 1 for row in results.rows) else ""
