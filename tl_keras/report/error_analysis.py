"""Figures of what one row gets wrong: its confusion matrix, its reliability diagram, its most confident mistakes."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tl_keras.report.experiment_results import ExperimentResults, Row
from tl_keras.report.style import GREY, PALETTE, finish, save, short, short_label, style
from tl_keras.results.metrics import NUM_BINS, confusion_matrix
from tl_keras.results.predictions import ConfidentErrors, read_confident_errors, read_predictions

MAX_NAMED = 40  # classes that a confusion matrix has room to name
LEAST_WRITTEN = 5  # per cent of a class, below which a cell of a large matrix has no number
GRID_COLUMNS = 4


def confusion_of(row: Row) -> np.ndarray:
    """int64 (classes, classes): true against predicted class, summed over the seeds.

    Raises:
        DamagedError: predictions of a run are absent or damaged.
    """
    predictions = [read_predictions(run.path) for run in row.runs]
    return sum(confusion_matrix(labels, logits.argmax(axis=1), logits.shape[1]) for logits, labels in predictions)


def draw_confusion(results: ExperimentResults, path: Path) -> Path:
    """The confusion matrix of the best row, in per cent of the true class; classes are named where there are at most `MAX_NAMED`."""
    row = results.best_row
    confusion = confusion_of(row)
    shares = 100 * confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    side = min(9.6, max(3.2, 1.0 + 0.42 * len(shares)))
    with style():
        figure = Figure(figsize=(side + 2.4, side + 1.6), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(False)
        # The root shows a few per cent off the diagonal, which is what one looks for.
        image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
        figure.colorbar(image, ax=axes, label="Share of the true class (%)", ticks=[0, 1, 5, 10, 25, 50, 100], shrink=0.8)
        axes.set(xlabel="Predicted class", ylabel="True class", title=f"Best row: {short_label(results, row)}")
        if len(shares) <= MAX_NAMED:
            _name_classes(axes, row, shares)
        finish(figure, results, f"{_seeds(row, 'Counts summed over the seeds')}", [], 1)
        return save(figure, path)


def _name_classes(axes: Axes, row: Row, shares: np.ndarray) -> None:
    is_small = len(shares) <= 12
    names = [short(name, 28) for name in row.runs[0].class_names]
    size = 9 if is_small else 6.5
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    for (true, predicted), share in np.ndenumerate(shares):
        if share >= (0.5 if is_small else LEAST_WRITTEN):
            colour = "white" if share > 40 else "black"
            axes.text(predicted, true, f"{share:.0f}", ha="center", va="center", color=colour, size=8.5 if is_small else 5)


def _seeds(row: Row, text: str) -> str:
    return text if len(row.runs) > 1 else ""


def draw_reliability(results: ExperimentResults, path: Path) -> Path:
    """Accuracy against confidence in bins of equal width, for the best row (Guo et al. 2017), and how many images lie in each."""
    row = results.best_row
    counts, confidences, accuracies = _pooled_bins(row)
    error = row.mean(lambda run: 100 * run.test["calibration"]["ece"])
    with style():
        figure = Figure(figsize=(6.6, 6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        middles = (np.arange(NUM_BINS) + 0.5) * 100 / NUM_BINS
        upper.bar(middles, 100 * accuracies, width=96 / NUM_BINS, color=PALETTE[5], alpha=0.75)
        upper.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=1.2)
        filled = counts > 0
        upper.plot(100 * confidences[filled], 100 * accuracies[filled], linestyle="none", marker="o", color=PALETTE[0])
        lower.bar(middles, 100 * counts / counts.sum(), width=96 / NUM_BINS, color=GREY)
        upper.set(ylabel="Accuracy (%)", ylim=(0, 102), title=f"Best row: {short_label(results, row)}")
        lower.set(xlabel="Confidence in the predicted class (%)", ylabel="Images (%)", xlim=(0, 100))
        legend = [
            Line2D([], [], linestyle="none", marker="s", markersize=9, color=PALETTE[5], alpha=0.75, label="accuracy of a bin"),
            Line2D([], [], linestyle="none", marker="o", color=PALETTE[0], label="at its mean confidence"),
            Line2D([], [], color=GREY, linestyle=":", linewidth=1.2, label="perfectly calibrated"),
        ]
        note = f"Expected calibration error {error:.2f} points, {NUM_BINS} bins. {_seeds(row, 'Bins pooled over the seeds')}"
        finish(figure, results, note.strip(), legend, 3)
        return save(figure, path)


def _pooled_bins(row: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, mean confidences and accuracies of the bins over all seeds; 0 where a bin is empty."""
    parts = [run.test["calibration"] for run in row.runs]
    counts = np.array([part["counts"] for part in parts], float)
    means = [np.array([[value or 0 for value in part[name]] for part in parts]) for name in ("confidences", "accuracies")]
    total = counts.sum(axis=0)
    return total, *((counts * mean).sum(axis=0) / np.maximum(1, total) for mean in means)


def has_mistakes(results: ExperimentResults) -> bool:
    """Whether the first run of the best row got a test image wrong."""
    return results.best_row.runs[0].test["accuracy"] < 1


def draw_mistakes(results: ExperimentResults, path: Path) -> Path:
    """The test images that the best row, in its first seed, got wrong with the highest confidence."""
    row, run = results.best_row, results.best_row.runs[0]
    mistakes = read_confident_errors(run.path, len(run.class_names))
    num_lines = -(-len(mistakes.labels) // GRID_COLUMNS)
    with style():
        figure = Figure(figsize=(7.6, 1.3 + 2.2 * num_lines), layout="constrained")
        panels = figure.subplots(num_lines, GRID_COLUMNS, squeeze=False)
        for index, axes in enumerate(panels.flat):
            axes.axis("off")
            if index < len(mistakes.labels):
                _draw_mistake(axes, mistakes, index, run.class_names)
        title = Line2D([], [], linestyle="none", label=f"Best row: {short_label(results, row)}, seed {run.seed}")
        finish(
            figure,
            results,
            "Above each image, as the model saw it: its true class, and → what it was taken for; # is its place in the test split",
            [title],
            1,
        )
        return save(figure, path, photographs=True)


def _draw_mistake(axes: Axes, mistakes: ConfidentErrors, index: int, class_names: list[str]) -> None:
    axes.imshow(mistakes.images[index], interpolation="nearest")
    true, predicted = (short(class_names[int(labels[index])], 26) for labels in (mistakes.labels, mistakes.predicted))
    axes.set_title(f"{true}\n", size=8, pad=3)
    axes.text(0.5, 1.02, f"→ {predicted}", size=8, color=PALETTE[1], ha="center", va="bottom", transform=axes.transAxes)
    facts = f"{100 * mistakes.confidences[index]:.1f} % sure   #{mistakes.indices[index]}"
    axes.text(0.5, -0.02, facts, size=7, color=GREY, ha="center", va="top", transform=axes.transAxes)
