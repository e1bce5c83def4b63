"""The figure of test accuracy against what it cost: trained parameters, and training time."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tl_keras.report.accuracy_plots import arms
from tl_keras.report.experiment_results import SECONDS, ExperimentResults, Row
from tl_keras.report.style import DIMMED, finish, looks, num_columns, save, short_label, style
from tl_keras.report.text import interval_meaning

MARGIN = 1.3  # factor on both sides of a logarithmic axis
# Axis, the cost of a row, how its ticks are written.
COSTS: Sequence[tuple[str, Callable[[Row], float], Callable[[], object]]] = (
    ("Trained parameters (log scale)", lambda row: row.runs[0].num_trainable, lambda: EngFormatter(sep=" ")),
    ("Training time (s, log scale)", lambda row: row.figure(SECONDS), lambda: FuncFormatter(lambda value, place: f"{value:,g}")),
)
# Where a number may stand beside its point, in points; the first place that is free is taken.
PLACES = [
    (radius * math.cos(angle), radius * math.sin(angle)) for radius in (9, 15, 22, 30) for angle in np.arange(0, 2 * math.pi, math.pi / 6)
]
CLEARANCE = (9.0, 7.5)  # points between the middles of two numbers, or of a number and a dot


def draw_costs(results: ExperimentResults, path: Path) -> Path:
    """Test accuracy against the parameters trained, and against the time of training; rows are numbered as in the table."""
    group_looks = looks([row.group for row in results.rows])
    with style():
        figure = Figure(figsize=(9, 4.2 + 0.09 * len(results.rows)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (name, cost, ticks) in zip(panels, COSTS, strict=True):
            for row in results.rows:
                look = {"alpha": DIMMED if row.stand_ins else 1, "linestyle": "none", "elinewidth": 1, **group_looks[row.group]}
                axes.errorbar([max(1e-3, cost(row))], [row.accuracy().mean], yerr=arms(row), **look)
            _cost_axis(axes, name, [max(1e-3, cost(row)) for row in results.rows], ticks())
        panels[0].set_ylabel("Test accuracy (%)")
        legend = [
            Line2D([], [], linestyle="none", label=f"{number}  {short_label(results, row)}", **group_looks[row.group])
            for number, row in enumerate(results.rows, start=1)
        ]
        finish(figure, results, f"Error bars: {interval_meaning(results)}.", legend, num_columns(legend, figure))
        figure.draw_without_rendering()  # lays out, so that places on the page are known
        for axes, (_, cost, _) in zip(panels, COSTS, strict=True):
            _number(axes, [(max(1e-3, cost(row)), row.accuracy().mean) for row in results.rows])
        return save(figure, path)


def _cost_axis(axes: Axes, name: str, costs: Sequence[float], formatter: object) -> None:
    low, high = min(costs) / MARGIN, max(costs) * MARGIN
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(_ticks(low, high)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(formatter)
    axes.set_xlabel(name)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis: evenly spaced ones on a short axis, 1, 2 and 5 or powers of ten on a long one."""
    if high / low < 8:
        values = MaxNLocator(4).tick_values(low, high)
    else:
        factors = (1,) if high / low > 300 else (1, 2, 5)
        values = [factor * 10.0**power for power in range(-4, 13) for factor in factors]
    return [value for value in values if low <= value <= high]


def _number(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Write 1, 2, ... beside the points, each where it covers neither a point nor another number, as far as there is room."""
    scale = 72 / axes.figure.dpi
    dots = axes.transData.transform(points) * scale
    taken = list(dots)
    for number, dot in enumerate(dots, start=1):
        spots = [dot + place for place in PLACES]
        spot = next((spot for spot in spots if _is_free(spot, taken)), spots[0])
        taken.append(spot)
        arrow = {"arrowstyle": "-", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2} if math.dist(spot, dot) > 12 else None
        text = axes.annotate(
            str(number), points[number - 1], spot - dot, textcoords="offset points", size=7.5, ha="center", va="center", arrowprops=arrow
        )
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
        text.set_in_layout(False)


def _is_free(spot: np.ndarray, taken: Sequence[np.ndarray]) -> bool:
    return all(abs(spot[0] - other[0]) >= CLEARANCE[0] or abs(spot[1] - other[1]) >= CLEARANCE[1] for other in taken)
