"""The page and the plot of `experiments/collapse.py`, made from what the probes of its runs measured."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.collapse import BATCH, SWITCH
from tl_keras.report import EXPERIMENT_FILE, ExperimentResults, load_experiment
from tl_keras.report.document import Block, Caveat, Heading, Image, Paragraph, Table, to_markdown
from tl_keras.report.statistics import summarize
from tl_keras.report.style import GREY, PALETTE, finish_figure, plot_style, save_figure, shorten
from tl_keras.report.text import EMPTY_CELL
from tl_keras.utils.files import read_json, write_text

PAGE, PLOT = "probe.md", "probe.png"
NUM_UPDATES = 20  # shown before and after the end of epoch 1

Records = Sequence[Mapping[str, Any]]  # the content of the probe's file of one run, see `_collapse_probe.Probe`
Value = Callable[[Records], float]  # NaN if the run is too short
Probes = Mapping[str, Sequence[Records]]  # label of a row -> one per seed


def write_page(directory: Path, probe_file: str) -> list[Path]:
    """Write `PAGE` and `PLOT` for the experiment in `directory`, whose run directories hold `probe_file`. Return their paths."""
    results = load_experiment(directory / EXPERIMENT_FILE)
    probes = {row.label: [read_json(run.path / probe_file) for run in row.runs] for row in results.rows}
    plot = _plot(results, probes, directory / PLOT)
    write_text(directory / PAGE, to_markdown(_blocks(results, probes), directory))
    return [directory / PAGE, plot]


def _blocks(results: ExperimentResults, probes: Probes) -> list[Block]:
    return [
        Heading(1, results.title),
        *([Caveat(results.caveat)] if results.caveat else []),
        Paragraph(results.question),
        *(block for title, columns in TABLES.items() for block in (Heading(2, title), _table(columns, probes))),
        *_differences(probes),
        Paragraph(f"±: 95 % interval of the mean over seeds (Student's t). {NOTE}"),
        Image(Path(PLOT), "Means over the seeds, bands from the lowest to the highest."),
    ]


def _table(columns: Mapping[str, tuple[Value, str]], probes: Probes) -> Table:
    rows = [[label, *(_cell([value(run) for run in runs], form) for value, form in columns.values())] for label, runs in probes.items()]
    return Table(["row", *columns], rows)


def _differences(probes: Probes) -> list[Block]:
    """Return the effect of the switch to running statistics in the rows that have it, against the same row without it, if there is one."""
    pairs = [(label, label.replace(SWITCH, BATCH)) for label in probes if SWITCH in label]
    rows = [
        [
            label.replace(SWITCH, "").strip(),
            *(_cell(_paired(value, probes[label], probes[other]), form) for value, form in EFFECTS.values()),
        ]
        for label, other in pairs
        if other in probes
    ]
    title = f"{SWITCH.capitalize()} minus {BATCH}, seed by seed; epoch 1 is the same"
    return [Heading(2, title), Table(["rows", *EFFECTS], rows)] if rows else []


def _paired(value: Value, runs: Sequence[Records], others: Sequence[Records]) -> list[float]:
    return [value(run) - value(other) for run, other in zip(runs, others, strict=True)]


def _cell(values: Sequence[float], form: str) -> str:
    """Return the mean of `values` in the format `form` and the half width of its interval, e.g. `4.10 ± 0.32`."""
    if any(map(math.isnan, values)):
        return EMPTY_CELL
    summary = summarize(values)
    half_width = "" if len(values) < 2 else f" ± {summary.interval[1] - summary.mean:{form.removeprefix('+')}}"
    return f"{summary.mean:{form}}{half_width}"


def _after(epoch: int, *keys: str, factor: float = 1.0) -> Value:
    """Return the value at `keys` of the record after `epoch`; -1: the last one."""

    def value(records: Records) -> float:
        if epoch >= len(records):
            return math.nan
        found: Any = records[epoch]
        for key in keys:
            found = found[key]
        return factor * found

    return value


def _loss(epoch: int, first: int = 0, last: int | None = None) -> Value:
    """Return the mean training loss of the updates `first` up to but without `last` of `epoch`; -1: of the last epoch."""

    def value(records: Records) -> float:
        losses = records[epoch]["losses"][first:last] if epoch < len(records) else []
        return fmean(losses) if losses else math.nan

    return value


def _accuracy(epoch: int, mode: str) -> Value:
    return _after(epoch, mode, "accuracy", factor=100)


TABLES: Mapping[str, Mapping[str, tuple[Value, str]]] = {
    "Training loss": {
        "epoch 1": (_loss(1), ".2f"),
        f"its last {NUM_UPDATES} updates": (_loss(1, -NUM_UPDATES), ".2f"),
        "epoch 2: update 1": (_loss(2, 0, 1), ".2f"),
        "updates 2 to 5": (_loss(2, 1, 5), ".2f"),
        "6 to 10": (_loss(2, 5, 10), ".2f"),
        f"11 to {NUM_UPDATES}": (_loss(2, 10, NUM_UPDATES), ".2f"),
        "epoch 2": (_loss(2), ".2f"),
        "epoch 3": (_loss(3), ".2f"),
        "last epoch": (_loss(-1), ".2f"),
    },
    "Validation accuracy (%) on running statistics and on those of the batch": {
        f"{name}, {mode}": (_accuracy(epoch, mode), ".1f")
        for epoch, name in {1: "epoch 1", 2: "epoch 2", 3: "epoch 3", -1: "last"}.items()
        for mode in ("running", "batch")
    },
    "Distance of the statistics that arrive from the running ones, and changes of kernels": {
        **{
            f"{moment}s, {name}": (_after(epoch, "running", f"{moment}_distance"), ".2f")
            for moment in ("mean", "variance")
            for epoch, name in {0: "start", 1: "epoch 1", 2: "epoch 2", -1: "last"}.items()
        },
        **{f"kernels, epoch {epoch} (%)": (_after(epoch, "kernel_change", factor=100), ".1f") for epoch in (1, 2)},
        "norm, epoch 2": (_after(2, "kernel_growth"), ".3f"),
    },
}
EFFECTS: Mapping[str, tuple[Value, str]] = {
    "loss, epoch 2: update 1": (_loss(2, 0, 1), "+.2f"),
    f"updates 2 to {NUM_UPDATES}": (_loss(2, 1, NUM_UPDATES), "+.2f"),
    "epoch 2": (_loss(2), "+.2f"),
    "last epoch": (_loss(-1), "+.2f"),
    "accuracy (points), epoch 2": (_accuracy(2, "running"), "+.1f"),
    "last": (_accuracy(-1, "running"), "+.1f"),
    "on statistics of the batch, epoch 2": (_accuracy(2, "batch"), "+.1f"),
}
NOTE = (
    "Distances are measured on the validation images as the network evaluates them: means over the channels of the probed BatchNorm "
    "layers of the absolute logarithm of the ratio of variances, and of the absolute difference of means in running standard "
    "deviations. A kernel's change is the norm of its change in the epoch over its norm before; its norm is that after the epoch over "
    "that before; both are medians over the trained kernels before the head."
)


def _plot(results: ExperimentResults, probes: Probes, path: Path) -> Path:
    """Plot a row of panels for each `line` of rows: training loss, accuracy, and distances of the statistics."""
    lines = {row.line: [other.label for other in results.rows if other.line == row.line] for row in results.rows}
    with plot_style():
        figure = Figure(figsize=(13, 1.2 + 2.6 * len(lines)), layout="constrained")
        grid = figure.subplots(len(lines), len(PANELS), squeeze=False, sharey="col", sharex="col")
        for axes, title in zip(grid[0], PANELS, strict=True):
            axes.set_title(title)
        for panels, labels in zip(grid, lines.values(), strict=True):
            colours = dict(zip(labels, PALETTE, strict=False))
            for axes, draw in zip(panels, PANELS.values(), strict=True):
                for label, colour in colours.items():
                    draw(axes, probes[label], colour)
            handles = [Line2D([], [], color=colour, label=shorten(label)) for label, colour in colours.items()]
            panels[-1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5))
        modes = [Line2D([], [], color=GREY, linestyle=style, label=f"on {mode} statistics") for mode, style in MODES.items()]
        finish_figure(figure, results, "Lines: means over the seeds. Bands: lowest to highest", modes, len(modes))
        return save_figure(figure, path)


def _draw_losses(axes: Axes, runs: Sequence[Records], colour: str) -> None:
    _draw(axes, [[(record["epoch"], fmean(record["losses"])) for record in records[1:]] for records in runs], colour)
    axes.set(xlabel="epoch", ylabel="nats")


def _draw_updates(axes: Axes, runs: Sequence[Records], colour: str) -> None:
    """Draw the losses of the updates around the end of epoch 1, which is at 0."""
    pieces = [[*records[1]["losses"][-NUM_UPDATES:], *records[2]["losses"][:NUM_UPDATES]] for records in runs if len(records) > 2]
    _draw(axes, [list(enumerate(losses, start=1 - NUM_UPDATES)) for losses in pieces], colour)
    axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel="update of epoch 2", ylabel="nats")


def _draw_accuracy(axes: Axes, runs: Sequence[Records], colour: str) -> None:
    for mode, style in MODES.items():
        _draw(axes, [[(record["epoch"], 100 * record[mode]["accuracy"]) for record in records[1:]] for records in runs], colour, style)
    axes.set(xlabel="epoch", ylabel="%")


def _draw_distances(axes: Axes, runs: Sequence[Records], colour: str) -> None:
    _draw(axes, [[(record["epoch"], record["running"]["variance_distance"]) for record in records] for records in runs], colour)
    axes.set(xlabel="epoch", ylabel="|ln of ratio of variances|")


def _draw(axes: Axes, curves: Sequence[Sequence[tuple[int, float]]], colour: str, style: Any = "-") -> None:
    """Draw the mean of `curves`, lists of (x, y) of one length, and a band from the lowest to the highest."""
    if not curves:
        return
    positions, values = [x for x, _ in curves[0]], np.array([[y for _, y in curve] for curve in curves])
    axes.plot(positions, values.mean(axis=0), color=colour, linestyle=style)
    axes.fill_between(positions, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


MODES: Mapping[str, Any] = {"running": "-", "batch": (0, (3, 1.5))}  # line styles
PANELS: Mapping[str, Callable[[Axes, Sequence[Records], str], None]] = {
    "Training loss": _draw_losses,
    "Training loss of each update": _draw_updates,
    "Validation accuracy": _draw_accuracy,
    "Distance of statistics": _draw_distances,
}
