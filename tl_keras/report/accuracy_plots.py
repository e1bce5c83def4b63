"""Plots of test accuracy: against the fraction of the training data, and row by row."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from tl_keras.report.experiment_results import ExperimentResults, TableRow
from tl_keras.report.style import (
    DIMMED,
    GREY,
    LineStyle,
    finish_figure,
    line_label,
    line_styles,
    num_legend_columns,
    plot_chance,
    plot_style,
    save_figure,
    short_label,
    shorten,
)
from tl_keras.report.text import describe_interval

MAX_TICKS = 8
HOLLOW: LineStyle = {"markerfacecolor": "none", "markersize": 9}


def plot_accuracy_vs_fraction(results: ExperimentResults, path: Path) -> Path:
    """Plot test accuracy against the fraction of the training data, with published values.

    Every row needs a `train_fraction`.
    """
    with plot_style():
        figure = Figure(figsize=(6.6, 4.8), layout="constrained")
        axes = figure.add_subplot()
        legend = []
        for name, line_style in line_styles([row.line for row in results.rows]).items():
            rows = sorted((row for row in results.rows if row.line == name), key=_percent)
            legend += _plot_line(axes, results, rows, line_style)
        legend += plot_chance(axes, results.rows)
        _format_fraction_axis(axes, results.rows)
        axes.set_ylabel("Test accuracy (%)")
        columns = min(3, -(-len(legend) // 2), num_legend_columns(legend, figure))
        finish_figure(figure, results, f"Error bars: {describe_interval(results)}.", legend, columns)
        return save_figure(figure, path)


def error_bar(row: TableRow) -> list[list[float]]:
    """Return the lengths of a row's error bar in Matplotlib's layout: [[below], [above]], in points."""
    estimate = row.accuracy()
    return [[estimate.mean - max(0, estimate.low)], [min(100, estimate.high) - estimate.mean]]


def _plot_line(axes: Axes, results: ExperimentResults, rows: Sequence[TableRow], line_style: LineStyle) -> list[Line2D]:
    """Plot our accuracies of one line and the published ones, and return their legend handles."""
    percents, bars = [_percent(row) for row in rows], [error_bar(row) for row in rows]
    lengths = [[bar[side][0] for bar in bars] for side in (0, 1)]
    opacity = DIMMED if any(row.fallbacks for row in rows) else 1
    axes.errorbar(percents, [row.accuracy().mean for row in rows], yerr=lengths, alpha=opacity, **line_style)
    label = line_label(results, rows)
    legend = [Line2D([], [], label=label, alpha=opacity, **line_style)]
    published = [(_percent(row), row.published_accuracy) for row in rows if row.published_accuracy is not None]
    if published:
        published_opacity = 1 if all(results.is_comparable(row) for row in rows) else DIMMED
        dashed = {"linestyle": "--", "linewidth": 0.9, "alpha": published_opacity, **HOLLOW}
        axes.plot(*zip(*published, strict=True), **line_style, **dashed)
        legend.append(Line2D([], [], label=f"{label}, published", **line_style, **dashed))
    return legend


def _percent(row: TableRow) -> float:
    """Return the row's fraction of the training data in per cent; it has one, or the plot does not apply."""
    return 100 * cast(float, row.train_fraction)


def _format_fraction_axis(axes: Axes, rows: Sequence[TableRow]) -> None:
    """Make the axis logarithmic, with ticks at the fractions of the rows and the numbers of images below them."""
    num_images = {_percent(row): row.num_train for row in rows}
    percents = sorted(num_images)
    axes.set_xscale("log")
    axes.set_xlim(percents[0] / 1.3, percents[-1] * 1.3)
    axes.xaxis.set_minor_locator(NullLocator())
    shown = percents if len(percents) <= MAX_TICKS else percents[:: -(-len(percents) // MAX_TICKS)]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.set_xticklabels([f"{percent:g}\n({num_images[percent]:,})" for percent in shown])
    axes.set_xlabel("Fraction of the training data (%, log scale), with the number of images")


def plot_accuracy_by_row(results: ExperimentResults, path: Path) -> Path:
    """Plot the test accuracy of each row as a dot with its interval, and published values as hollow dots; the first row is on top."""
    styles = line_styles([row.line for row in results.rows])
    with plot_style():
        figure = Figure(figsize=(8, 1.7 + 0.31 * len(results.rows)), layout="constrained")
        axes = figure.add_subplot()
        for position, row in enumerate(results.rows):
            _plot_row(axes, results, row, position, styles[row.line])
        axes.set_yticks(range(len(results.rows)), [short_label(results, row) for row in results.rows])
        axes.set_ylim(len(results.rows) - 0.4, -0.6)
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("Test accuracy (%)")
        legend = _row_legend(results, styles) + plot_chance(axes, results.rows, vertical=True)
        finish_figure(figure, results, f"Error bars: {describe_interval(results)}.", legend, num_legend_columns(legend, figure))
        return save_figure(figure, path)


def _plot_row(axes: Axes, results: ExperimentResults, row: TableRow, position: int, line_style: LineStyle) -> None:
    opacity = DIMMED if row.fallbacks else 1
    axes.errorbar([row.accuracy().mean], [position], xerr=error_bar(row), linestyle="none", alpha=opacity, **line_style)
    if row.published_accuracy is not None:
        published_opacity = 1 if results.is_comparable(row) else DIMMED
        axes.plot([row.published_accuracy], [position], linestyle="none", alpha=published_opacity, **line_style, **HOLLOW)


def _row_legend(results: ExperimentResults, styles: Mapping[str, LineStyle]) -> list[Line2D]:
    """Return handles for the colours, unless each row has its own, and for our and the published values."""
    handles = []
    if 1 < len(styles) < len(results.rows):
        handles = [Line2D([], [], linestyle="none", label=shorten(name), **line_style) for name, line_style in styles.items()]
    if any(row.published_accuracy is not None for row in results.rows):
        handles.append(Line2D([], [], linestyle="none", color=GREY, marker="o", label="ours"))
        handles.append(Line2D([], [], linestyle="none", color=GREY, marker="o", label="published", **HOLLOW))
    return handles
