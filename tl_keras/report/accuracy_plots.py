"""Figures of test accuracies: against the share of the training data, row by row, and against what they cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from tl_keras.report.experiment_results import ExperimentResults, Row
from tl_keras.report.style import DIMMED, GREY, draw_chance, finish, group_label, looks, num_columns, save, short, short_label, style
from tl_keras.report.text import interval_meaning

MAX_TICKS = 8
HOLLOW = {"markerfacecolor": "none", "markersize": 9}


def draw_shares(results: ExperimentResults, path: Path) -> Path:
    """Test accuracy against the share of the training data, one line a group, beside the reported figures. Every row has an `x`."""
    with style():
        figure = Figure(figsize=(6.6, 4.8), layout="constrained")
        axes = figure.add_subplot()
        legend = []
        for group, look in looks([row.group for row in results.rows]).items():
            rows = sorted((row for row in results.rows if row.group == group), key=lambda row: row.x)
            legend += _draw_group(axes, results, rows, look)
        legend += draw_chance(axes, results.rows)
        _share_axis(axes, results.rows)
        axes.set_ylabel("Test accuracy (%)")
        columns = min(3, -(-len(legend) // 2), num_columns(legend, figure))
        finish(figure, results, f"Error bars: {interval_meaning(results)}.", legend, columns)
        return save(figure, path)


def arms(row: Row) -> list[list[float]]:
    """The arms of the error bar of one row, as Matplotlib wants them: [[below], [above]]."""
    estimate = row.accuracy()
    return [[estimate.mean - max(0, estimate.low)], [min(100, estimate.high) - estimate.mean]]


def _draw_group(axes: Axes, results: ExperimentResults, rows: Sequence[Row], look: Mapping[str, str]) -> list[Line2D]:
    shares, bars = [100 * row.x for row in rows], [arms(row) for row in rows]
    bounds = [[bar[side][0] for bar in bars] for side in (0, 1)]
    opacity = 1 if all(results.is_comparable(row) for row in rows) else DIMMED
    own_opacity = DIMMED if any(row.stand_ins for row in rows) else 1
    axes.errorbar(shares, [row.accuracy().mean for row in rows], yerr=bounds, alpha=own_opacity, **look)
    group = group_label(results, rows)
    legend = [Line2D([], [], label=group, alpha=own_opacity, **look)]
    reported = [(100 * row.x, row.reported_accuracy) for row in rows if row.reported_accuracy is not None]
    if reported:
        dashed = {"linestyle": "--", "linewidth": 0.9, "alpha": opacity, **HOLLOW}
        axes.plot(*zip(*reported, strict=True), **look, **dashed)
        legend.append(Line2D([], [], label=f"{group}, reported", **look, **dashed))
    return legend


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


def draw_rows(results: ExperimentResults, path: Path) -> Path:
    """A dot and its interval for the test accuracy of each row, from the first row down, beside the reported figures as hollow ones."""
    group_looks = looks([row.group for row in results.rows])
    with style():
        figure = Figure(figsize=(8, 1.7 + 0.31 * len(results.rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(results.rows):
            _draw_row(axes, results, row, place, group_looks[row.group])
        axes.set_yticks(range(len(results.rows)), [short_label(results, row) for row in results.rows])
        axes.set_ylim(len(results.rows) - 0.4, -0.6)
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("Test accuracy (%)")
        legend = _row_legend(results, group_looks) + draw_chance(axes, results.rows, vertical=True)
        finish(figure, results, f"Error bars: {interval_meaning(results)}.", legend, num_columns(legend, figure))
        return save(figure, path)


def _draw_row(axes: Axes, results: ExperimentResults, row: Row, place: int, look: Mapping[str, str]) -> None:
    axes.errorbar([row.accuracy().mean], [place], xerr=arms(row), linestyle="none", alpha=DIMMED if row.stand_ins else 1, **look)
    if row.reported_accuracy is not None:
        opacity = 1 if results.is_comparable(row) else DIMMED
        axes.plot([row.reported_accuracy], [place], linestyle="none", alpha=opacity, **look, **HOLLOW)


def _row_legend(results: ExperimentResults, group_looks: Mapping[str, Mapping[str, str]]) -> list[Line2D]:
    """What the colours mean, unless each row has its own; then what is ours and what is reported."""
    keys = []
    if 1 < len(group_looks) < len(results.rows):
        keys = [Line2D([], [], linestyle="none", label=short(group), **look) for group, look in group_looks.items()]
    if any(row.reported_accuracy is not None for row in results.rows):
        keys.append(Line2D([], [], linestyle="none", color=GREY, marker="o", label="ours"))
        keys.append(Line2D([], [], linestyle="none", color=GREY, marker="o", label="reported", **HOLLOW))
    return keys
