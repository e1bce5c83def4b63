"""Plot of test accuracy against its cost: trained parameters and training time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, FixedLocator, Formatter, FuncFormatter, MaxNLocator, NullLocator

from tl_keras.report.accuracy_plots import error_bar
from tl_keras.report.experiment_results import SECONDS, ExperimentResults, TableRow
from tl_keras.report.style import DIMMED, finish_figure, line_styles, num_legend_columns, plot_style, save_figure, short_label
from tl_keras.report.text import describe_interval

MARGIN_FACTOR = 1.3  # on both sides of a logarithmic axis
MIN_COST = 1e-3  # a logarithmic axis has no zero
# Offsets of a number from its point, in typographic points; the first one that is free is taken.
LABEL_OFFSETS = [
    (radius * math.cos(angle), radius * math.sin(angle)) for radius in (9, 15, 22, 30) for angle in np.arange(0, 2 * math.pi, math.pi / 6)
]
CLEARANCE = (9.0, 7.5)  # horizontal and vertical distance of a number from points and other numbers, in typographic points


@dataclass(frozen=True)
class Cost:
    """A cost of a row, the title of its axis, and the format of its ticks."""

    title: str
    value: Callable[[TableRow], float]
    make_formatter: Callable[[], Formatter]

    def of(self, row: TableRow) -> float:
        """Return the cost of `row`, at least `MIN_COST`."""
        return max(MIN_COST, self.value(row))


COSTS = (
    Cost("Trained parameters (log scale)", lambda row: row.runs[0].num_trainable, lambda: EngFormatter(sep=" ")),
    Cost(
        "Training time (s, log scale)", lambda row: row.value(SECONDS) or 0.0, lambda: FuncFormatter(lambda value, position: f"{value:,g}")
    ),
)


def plot_accuracy_vs_cost(results: ExperimentResults, path: Path) -> Path:
    """Plot test accuracy against trained parameters and against training time; rows are numbered as in the table."""
    styles = line_styles([row.line for row in results.rows])
    with plot_style():
        figure = Figure(figsize=(9, 4.2 + 0.09 * len(results.rows)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, cost in zip(panels, COSTS, strict=True):
            for row in results.rows:
                line_style = {"alpha": DIMMED if row.fallbacks else 1, "linestyle": "none", "elinewidth": 1, **styles[row.line]}
                axes.errorbar([cost.of(row)], [row.accuracy().mean], yerr=error_bar(row), **line_style)
            _format_cost_axis(axes, cost, results.rows)
        panels[0].set_ylabel("Test accuracy (%)")
        legend = [
            Line2D([], [], linestyle="none", label=f"{number}  {short_label(results, row)}", **styles[row.line])
            for number, row in enumerate(results.rows, start=1)
        ]
        finish_figure(figure, results, f"Error bars: {describe_interval(results)}.", legend, num_legend_columns(legend, figure))
        figure.draw_without_rendering()  # Lays out the figure, so that the positions of the points are known.
        for axes, cost in zip(panels, COSTS, strict=True):
            _label_points(axes, [(cost.of(row), row.accuracy().mean) for row in results.rows])
        return save_figure(figure, path)


def _format_cost_axis(axes: Axes, cost: Cost, rows: Sequence[TableRow]) -> None:
    costs = [cost.of(row) for row in rows]
    low, high = min(costs) / MARGIN_FACTOR, max(costs) * MARGIN_FACTOR
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(_round_ticks(low, high)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(cost.make_formatter())
    axes.set_xlabel(cost.title)


def _round_ticks(low: float, high: float) -> list[float]:
    """Return round numbers for a logarithmic axis: evenly spaced on a short axis; 1, 2 and 5 or powers of ten on a long one."""
    if high / low < 8:
        values = MaxNLocator(4).tick_values(low, high)
    else:
        factors = (1,) if high / low > 300 else (1, 2, 5)
        values = [factor * 10.0**power for power in range(-4, 13) for factor in factors]
    return [value for value in values if low <= value <= high]


def _label_points(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Write 1, 2, ... beside the points. A number covers no point and no other number as far as there is room."""
    scale = 72 / axes.figure.dpi
    dots = axes.transData.transform(points) * scale
    taken = list(dots)
    for number, (point, dot) in enumerate(zip(points, dots, strict=True), start=1):
        positions = [dot + offset for offset in LABEL_OFFSETS]
        position = next((position for position in positions if _is_free(position, taken)), positions[0])
        taken.append(position)
        arrow = {"arrowstyle": "-", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2} if math.dist(position, dot) > 12 else None
        text = axes.annotate(
            str(number), point, position - dot, textcoords="offset points", size=7.5, ha="center", va="center", arrowprops=arrow
        )
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
        text.set_in_layout(False)


def _is_free(position: np.ndarray, taken: Sequence[np.ndarray]) -> bool:
    return all(abs(position[0] - other[0]) >= CLEARANCE[0] or abs(position[1] - other[1]) >= CLEARANCE[1] for other in taken)
