"""Plot of learning curves: accuracy and loss against the epoch."""

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tl_keras.report.experiment_results import ExperimentResults, TableRow
from tl_keras.report.style import (
    DIMMED,
    GREY,
    PALETTE,
    LineStyle,
    finish_figure,
    line_label,
    num_legend_columns,
    plot_style,
    save_figure,
    short_label,
)


@dataclass(frozen=True)
class Curve:
    """A quantity of the learning curves.

    Attributes:
        title: title of its axis.
        columns: its columns in `history.csv`, for training and validation.
        scale: factor from a column to the axis.
        published_index: index of its value in an entry of `published_curve`.
    """

    title: str
    columns: tuple[str, str]
    scale: float
    published_index: int


@dataclass(frozen=True)
class Layout:
    """Layout for a number of panel pairs; sizes are in inches.

    Attributes:
        max_pairs: largest number of pairs with this layout.
        columns: largest number of pairs side by side.
        title_width: characters in a line of a title.
    """

    max_pairs: float
    columns: int
    column_width: float
    pair_height: float
    title_width: int


CURVES = (
    Curve("Accuracy (%)", ("accuracy", "val_accuracy"), 100.0, published_index=1),
    Curve("Cross-entropy (nats)", ("loss", "val_loss"), 1.0, published_index=0),
)
LAYOUTS = (Layout(6, 3, 3.4, 4.6, 44), Layout(math.inf, 5, 2.2, 3.5, 28))
LEGEND_LINE_HEIGHT = 0.19  # inches
LINE_STYLES: tuple[Any, ...] = ("-", (0, (3, 1.5)))  # training, validation
PUBLISHED_STYLE: LineStyle = {"marker": "o", "linestyle": "none", "markerfacecolor": "white", "markersize": 6}
MAX_ROWS_OF_PANEL = 5


def plot_learning_curves(results: ExperimentResults, path: Path) -> Path:
    """Plot accuracy and loss on training and validation images against the epoch.

    Each `line` of rows has a pair of panels. If one has more than `MAX_ROWS_OF_PANEL` rows, each row has its own pair.
    """
    pairs = _group_rows(results)
    colours = _colours(results)
    legend = _legend(results, pairs, colours)
    layout = next(layout for layout in LAYOUTS if len(pairs) <= layout.max_pairs)
    across = min(len(pairs), layout.columns)
    down = -(-len(pairs) // across)
    with plot_style():
        figure = Figure(figsize=(max(6.8, layout.column_width * across), 1.1 + layout.pair_height * down), layout="constrained")
        legend_columns = len(legend) if len(legend) < 5 else min(3, num_legend_columns(legend, figure))
        figure.set_figheight(figure.get_figheight() + LEGEND_LINE_HEIGHT * -(-len(legend) // legend_columns))
        panels = figure.subplots(2 * down, across, sharex="all", sharey="row", squeeze=False)
        for index, (name, rows) in enumerate(pairs.items()):
            band, column = divmod(index, across)
            pair = panels[2 * band : 2 * band + 2, column]
            pair[0].set_title(_title(results, name, rows, layout.title_width), size=10.5 if down < 3 else 8.5)
            _plot_pair(pair, results, rows, colours)
        _remove_unused(panels, len(pairs))
        is_cut = _cut_losses(panels, results)
        finish_figure(figure, results, _note(results, is_cut), _order_by_rows(legend, legend_columns), legend_columns)
        return save_figure(figure, path)


def _group_rows(results: ExperimentResults) -> dict[str, list[TableRow]]:
    """Return the rows of each pair of panels by its name."""
    lines: dict[str, list[TableRow]] = {}
    for row in results.rows:
        lines.setdefault(row.line, []).append(row)
    is_crowded = max(map(len, lines.values())) > MAX_ROWS_OF_PANEL
    return {row.label: [row] for row in results.rows} if is_crowded else lines


def _colours(results: ExperimentResults) -> dict[str, Any]:
    """Return a colour for each curve: a sequence if rows have fractions or are many, else the most distinct colours."""
    names = list(dict.fromkeys(map(_curve_name, results.rows)))
    if len(names) <= len(PALETTE) and all(row.train_fraction is None for row in results.rows):
        return dict(zip(names, PALETTE, strict=False))
    return dict(zip(names, matplotlib.colormaps["viridis"](np.linspace(0, 0.78, len(names))), strict=True))


def _curve_name(row: TableRow) -> str:
    return row.label if row.train_fraction is None else f"{100 * row.train_fraction:g} %"


def _title(results: ExperimentResults, name: str, rows: Sequence[TableRow], width: int) -> str:
    """Return the title of a pair, on at most two lines."""
    text = short_label(results, rows[0], 2 * width - 8) if name == rows[0].label else line_label(results, rows)
    return textwrap.fill(text, width)


def _plot_pair(pair: np.ndarray, results: ExperimentResults, rows: Sequence[TableRow], colours: Mapping[str, Any]) -> None:
    for axes, curve in zip(pair, CURVES, strict=True):
        axes.set_ylabel(curve.title)
        for row in rows:
            colour = colours[_curve_name(row)]
            for column, line_style in zip(curve.columns, LINE_STYLES, strict=True):
                _plot_history(axes, row, column, curve.scale, {"color": colour, "linestyle": line_style})
            values = [(epoch, values[curve.published_index]) for epoch, values in row.published_curve.items()]
            if published := [(epoch, value) for epoch, value in values if value is not None]:
                opacity = 1 if results.is_comparable(row) else DIMMED
                axes.plot(*zip(*published, strict=True), color=colour, alpha=opacity, zorder=3, **PUBLISHED_STYLE)


def _plot_history(axes: Axes, row: TableRow, column: str, scale: float, line_style: LineStyle) -> None:
    """Plot the mean over the seeds, and a band from the lowest to the highest value."""
    values: dict[int, list[float]] = {}
    for record in (record for run in row.runs for record in run.history if column in record):
        values.setdefault(int(record["epoch"]), []).append(scale * record[column])
    epochs = sorted(values)
    marker = "." if len(epochs) == 1 else None  # A line of one point is invisible.
    axes.plot(epochs, [np.mean(values[epoch]) for epoch in epochs], marker=marker, **line_style)
    if len(row.runs) > 1:
        low, high = [[bound(values[epoch]) for epoch in epochs] for bound in (min, max)]
        axes.fill_between(epochs, low, high, color=line_style["color"], alpha=0.15, linewidth=0)


def _remove_unused(panels: np.ndarray, num_pairs: int) -> None:
    """Remove the panels without curves, and axis labels that repeat: titles stay at the left, epochs at the foot of a column."""
    num_columns = panels.shape[1]
    panels[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # shared by all panels
    for (row, column), axes in np.ndenumerate(panels):
        index = row // 2 * num_columns + column
        if index >= num_pairs:
            axes.remove()
        if column:
            axes.set_ylabel("")
        if row % 2 and index + num_columns >= num_pairs:
            axes.set_xlabel("Epoch")
            axes.tick_params(labelbottom=True)


def _cut_losses(panels: np.ndarray, results: ExperimentResults) -> bool:
    """Limit the loss axes to three times the loss of guessing, so that a diverged run does not flatten the others.

    Returns:
        True if an axis was cut.
    """
    limit = 3 * math.log(max(2, len(results.runs[0].class_names)))
    too_high = [axes for axes in panels[1::2].flat if axes.figure is not None and axes.get_ylim()[1] > limit]
    for axes in too_high:
        axes.set_ylim(0, limit)
    return bool(too_high)


def _legend(results: ExperimentResults, titles: Collection[str], colours: Mapping[str, Any]) -> list[Line2D]:
    """Return handles for the colours that no title explains, then for the line styles."""
    rows = {_curve_name(row): row for row in results.rows if _curve_name(row) not in titles}
    labels = {name: name if row.train_fraction is not None else short_label(results, row, 30) for name, row in rows.items()}
    handles = [Line2D([], [], color=colours[name], label=label) for name, label in labels.items()]
    splits = zip(("training", "validation"), LINE_STYLES, strict=True)
    handles += [Line2D([], [], color=GREY, linestyle=line_style, label=split) for split, line_style in splits]
    if any(row.published_curve for row in results.rows):
        handles.append(Line2D([], [], color=GREY, label="training, published", **PUBLISHED_STYLE))
    return handles


def _order_by_rows(handles: Sequence[Line2D], columns: int) -> list[Line2D]:
    """Return the handles in the order that fills a legend row by row; Matplotlib fills columns first."""
    return [handle for column in range(columns) for handle in handles[column::columns]]


def _note(results: ExperimentResults, is_cut: bool) -> str:
    notes = ["Lines: mean over the seeds; bands: lowest to highest"] if any(len(row.runs) > 1 for row in results.rows) else []
    return ". ".join(notes + ["Losses above three times that of guessing are not shown"] * is_cut)
