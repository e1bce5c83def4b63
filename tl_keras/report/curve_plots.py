"""The figure of learning curves: accuracy and loss against the epoch."""

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tl_keras.report.experiment_results import ExperimentResults, Row
from tl_keras.report.style import DIMMED, GREY, PALETTE, finish, group_label, num_columns, save, short_label, style

# Of a panel: its axis, the columns of the history for training and validation, their factor, the place in `reported_curve`.
MEASURES = (("Accuracy (%)", ("accuracy", "val_accuracy"), 100.0, 1), ("Cross-entropy (nats)", ("loss", "val_loss"), 1.0, 0))
LINES = ("-", (0, (3, 1.5)))  # training, validation
REPORTED_LOOK = {"marker": "o", "linestyle": "none", "markerfacecolor": "white", "markersize": 6}
MAX_LINES = 5  # rows of a group that share a panel
# Panels up to this number -> columns, the width of a column and the height of a pair in inches, letters in a line of a title.
LAYOUTS = ((6, 3, 3.4, 4.6, 44), (math.inf, 5, 2.2, 3.5, 28))
LEGEND_LINE = 0.19  # inches


def draw_curves(results: ExperimentResults, path: Path) -> Path:
    """Accuracy and loss against the epoch, on training and validation images.

    A pair of panels for each group; for each row where a group has many.
    """
    groups = _panels(results)
    colours = _colours(results)
    legend = _legend(results, groups, colours)
    _, most, width, height, letters = next(layout for layout in LAYOUTS if len(groups) <= layout[0])
    across = min(len(groups), most)
    down = -(-len(groups) // across)
    with style():
        figure = Figure(figsize=(max(6.8, width * across), 1.1 + height * down), layout="constrained")
        key_columns = len(legend) if len(legend) < 5 else min(3, num_columns(legend, figure))
        figure.set_figheight(figure.get_figheight() + LEGEND_LINE * -(-len(legend) // key_columns))
        panels = figure.subplots(2 * down, across, sharex="all", sharey="row", squeeze=False)
        for index, (name, rows) in enumerate(groups.items()):
            band, column = divmod(index, across)
            pair = panels[2 * band : 2 * band + 2, column]
            pair[0].set_title(_title(results, name, rows, letters), size=10.5 if down < 3 else 8.5)
            _draw_pair(pair, results, rows, colours)
        _tidy(panels, len(groups))
        is_cut = _cut_losses(panels, results)
        finish(figure, results, _note(results, is_cut), _by_rows(legend, key_columns), key_columns)
        return save(figure, path)


def _panels(results: ExperimentResults) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in results.rows:
        groups.setdefault(row.group, []).append(row)
    is_crowded = max(map(len, groups.values())) > MAX_LINES
    return {row.label: [row] for row in results.rows} if is_crowded else groups


def _colours(results: ExperimentResults) -> dict[str, Any]:
    """Name of a line -> its colour: in the order of shares where rows have them, else as different as can be."""
    names = list(dict.fromkeys(map(_line_name, results.rows)))
    if len(names) <= len(PALETTE) and all(row.x is None for row in results.rows):
        return dict(zip(names, PALETTE, strict=False))
    return dict(zip(names, matplotlib.colormaps["viridis"](np.linspace(0, 0.78, len(names))), strict=True))


def _title(results: ExperimentResults, name: str, rows: Sequence[Row], letters: int) -> str:
    """On at most two lines."""
    text = short_label(results, rows[0], 2 * letters - 8) if name == rows[0].label else group_label(results, rows)
    return textwrap.fill(text, letters)


def _line_name(row: Row) -> str:
    return row.label if row.x is None else f"{100 * row.x:g} %"


def _draw_pair(pair: Sequence[Axes], results: ExperimentResults, rows: Sequence[Row], colours: Mapping[str, Any]) -> None:
    for axes, (name, columns, factor, place) in zip(pair, MEASURES, strict=True):
        axes.set_ylabel(name)
        for row in rows:
            colour = colours[_line_name(row)]
            for column, line in zip(columns, LINES, strict=True):
                _draw_history(axes, row, column, factor, {"color": colour, "linestyle": line})
            points = [(epoch, values[place]) for epoch, values in row.reported_curve.items()]
            if points:
                opacity = 1 if results.is_comparable(row) else DIMMED
                axes.plot(*zip(*points, strict=True), color=colour, alpha=opacity, zorder=3, **REPORTED_LOOK)


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


def _cut_losses(panels: np.ndarray, results: ExperimentResults) -> bool:
    """Keep one run that blew up from flattening all other losses: no axis goes beyond three times the loss of guessing."""
    most = 3 * math.log(max(2, len(results.runs[0].class_names)))
    high = [axes for axes in panels[1::2].flat if axes.figure is not None and axes.get_ylim()[1] > most]
    for axes in high:
        axes.set_ylim(0, most)
    return bool(high)


def _legend(results: ExperimentResults, titles: Collection[str], colours: Mapping[str, Any]) -> list[Line2D]:
    """First what the colours mean, where the titles do not say it, then the kinds of line."""
    rows = {_line_name(row): row for row in results.rows if _line_name(row) not in titles}
    names = {name: name if row.x is not None else short_label(results, row, 30) for name, row in rows.items()}
    keys = [Line2D([], [], color=colours[name], label=text) for name, text in names.items()]
    keys += [Line2D([], [], color=GREY, linestyle=line, label=name) for name, line in zip(("training", "validation"), LINES, strict=True)]
    if any(row.reported_curve for row in results.rows):
        keys.append(Line2D([], [], color=GREY, label="training, reported", **REPORTED_LOOK))
    return keys


def _by_rows(keys: Sequence[Line2D], columns: int) -> list[Line2D]:
    """The keys in the order that fills a legend row by row; Matplotlib fills columns first."""
    return [key for column in range(columns) for key in keys[column::columns]]


def _note(results: ExperimentResults, is_cut: bool) -> str:
    notes = ["Lines: mean over the seeds; bands: lowest to highest"] if any(len(row.runs) > 1 for row in results.rows) else []
    return ". ".join(notes + ["Losses above three times that of guessing lie outside the axis"] * is_cut)
