"""Plots of the errors of the best row: its confusion matrix, reliability diagram, and most confident errors."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tl_keras.report.experiment_results import ExperimentResults, TableRow
from tl_keras.report.style import GREY, PALETTE, best_row_title, finish_figure, plot_style, save_figure, shorten
from tl_keras.results.calibration import scaled_calibration
from tl_keras.results.metrics import NUM_BINS, confusion_matrix
from tl_keras.results.predictions import MAX_ERRORS, ConfidentErrors, read_confident_errors, read_predictions

MAX_NAMED_CLASSES = 40  # in a confusion matrix
MAX_CLASSES_OF_SMALL_MATRIX = 12
MAX_CLASSES_OF_MATRIX = 500  # the picture has about two pixels for each
MIN_SHOWN_PERCENT = 5  # cells of a large confusion matrix below this number are not labelled
GRID_COLUMNS = 4


def read_predicted_classes(row: TableRow) -> tuple[np.ndarray, np.ndarray]:
    """Return the true and the predicted class of every test image, int (n,), those of all seeds together.

    Raises:
        DamagedError: The predictions of a run are absent or damaged.
    """
    pairs = [(labels, logits.argmax(axis=1)) for logits, labels in (read_predictions(run.path) for run in row.runs)]
    labels, predicted = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return labels, predicted


def occurring_classes(confusion: np.ndarray) -> np.ndarray:
    """Return the labels, in ascending order, of the classes in `confusion` with test images or predictions."""
    return np.flatnonzero(confusion.sum(axis=0) + confusion.sum(axis=1))


def most_confused(confusion: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return at most `MAX_CLASSES_OF_MATRIX` labels of `classes`, in their order: those with the most errors."""
    errors = (confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * np.diag(confusion))[classes]
    return np.sort(classes[np.argsort(-errors, kind="stable")[:MAX_CLASSES_OF_MATRIX]])


def plot_confusion_matrix(results: ExperimentResults, path: Path) -> Path:
    """Plot the confusion matrix of the best row, in per cent of the true class. Classes that do not occur are left out."""
    row = results.best_row
    confusion = confusion_matrix(*read_predicted_classes(row), len(row.runs[0].class_names))
    classes = occurring_classes(confusion)
    num_omitted, shown = len(confusion) - len(classes), most_confused(confusion, classes)
    confusion = confusion[np.ix_(shown, shown)]
    percents = 100 * confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    side = min(9.6, max(3.2, 1.0 + 0.42 * len(percents)))
    with plot_style():
        figure = Figure(figsize=(side + 2.4, side + 1.6), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(False)
        # The square root makes the few per cent off the diagonal visible.
        image = axes.imshow(percents, cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
        figure.colorbar(image, ax=axes, label="Fraction of the true class (%)", ticks=[0, 1, 5, 10, 25, 50, 100], shrink=0.8)
        axes.set(xlabel="Predicted class", ylabel="True class", title=best_row_title(results))
        if len(percents) <= MAX_NAMED_CLASSES:
            _label_cells(axes, [row.runs[0].class_names[label] for label in shown], percents)
        part = f"Of {len(classes):,} classes, the {len(shown):,} with the most errors are shown" if len(shown) < len(classes) else ""
        notes = [_if_several_seeds(row, "Counts summed over the seeds"), part, omitted_note(num_omitted)]
        finish_figure(figure, results, ". ".join(filter(None, notes)), [], 1)
        return save_figure(figure, path)


def omitted_note(num_classes: int) -> str:
    """Return a note on `num_classes` classes that are left out because they do not occur; empty for 0."""
    return f"{num_classes:,} classes without test images that were never predicted are left out" if num_classes else ""


def _label_cells(axes: Axes, class_names: Sequence[str], percents: np.ndarray) -> None:
    """Write the names of the classes on the axes, and numbers in the cells."""
    is_small = len(percents) <= MAX_CLASSES_OF_SMALL_MATRIX
    names = [shorten(name, 28) for name in class_names]
    size = 9 if is_small else 6.5
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    for (true, predicted), percent in np.ndenumerate(percents):
        if percent >= (0.5 if is_small else MIN_SHOWN_PERCENT):
            colour = "white" if percent > 40 else "black"
            axes.text(predicted, true, f"{percent:.0f}", ha="center", va="center", color=colour, size=8.5 if is_small else 5)


def _if_several_seeds(row: TableRow, text: str) -> str:
    return text if len(row.runs) > 1 else ""


def plot_reliability(results: ExperimentResults, path: Path) -> Path:
    """Plot the reliability diagram of the best row (Guo et al. 2017), with the fraction of the images in each bin below.

    Where the runs have a temperature, it also shows the bins after temperature scaling.
    """
    row = results.best_row
    counts, confidences, accuracies = _pool_bins([run.test["calibration"] for run in row.runs])
    ece = row.mean(lambda run: 100 * run.test["calibration"]["ece"])
    scaled = _scaled_bins(row)
    centres = (np.arange(NUM_BINS) + 0.5) * 100 / NUM_BINS
    with plot_style():
        figure = Figure(figsize=(6.6, 6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.bar(centres, 100 * accuracies, width=96 / NUM_BINS, color=PALETTE[5], alpha=0.75)
        upper.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=1.2)
        filled = counts > 0
        upper.plot(100 * confidences[filled], 100 * accuracies[filled], linestyle="none", marker="o", color=PALETTE[0])
        if scaled:
            _plot_scaled(upper, scaled)
        lower.bar(centres, 100 * counts / counts.sum(), width=96 / NUM_BINS, color=GREY)
        upper.set(ylabel="Accuracy (%)", ylim=(0, 102), title=best_row_title(results))
        lower.set(xlabel="Confidence in the predicted class (%)", ylabel="Images (%)", xlim=(0, 100))
        after = f", {100 * np.mean([bins['ece'] for bins in scaled]):.2f} after temperature scaling" if scaled else ""
        pooled = _if_several_seeds(row, "Bins pooled over the seeds")
        note = f"Expected calibration error {ece:.2f} points{after}, {NUM_BINS} bins. {pooled}"
        finish_figure(figure, results, note.strip(), _reliability_legend(bool(scaled)), 2 if scaled else 3)
        return save_figure(figure, path)


def _scaled_bins(row: TableRow) -> list[Mapping[str, Any]]:
    """Return the bins of each seed after temperature scaling; none if a run has no temperature."""
    if not all(run.result.get("temperature") for run in row.runs):
        return []
    return [asdict(scaled_calibration(*read_predictions(run.path), run.result["temperature"])) for run in row.runs]


def _plot_scaled(axes: Axes, scaled: Sequence[Mapping[str, Any]]) -> None:
    counts, confidences, accuracies = _pool_bins(scaled)
    filled = counts > 0
    axes.plot(100 * confidences[filled], 100 * accuracies[filled], **SCALED_STYLE)


SCALED_STYLE: Mapping[str, Any] = {"linestyle": "none", "marker": "D", "fillstyle": "none", "color": PALETTE[1]}


def _reliability_legend(has_scaled: bool) -> list[Line2D]:
    return [
        Line2D([], [], linestyle="none", marker="s", markersize=9, color=PALETTE[5], alpha=0.75, label="accuracy of a bin"),
        Line2D([], [], linestyle="none", marker="o", color=PALETTE[0], label="at its mean confidence"),
        *([Line2D([], [], **SCALED_STYLE, label="after temperature scaling")] if has_scaled else []),
        Line2D([], [], color=GREY, linestyle=":", linewidth=1.2, label="perfectly calibrated"),
    ]


def _pool_bins(seeds: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return counts, mean confidences and accuracies of the bins over all seeds, float (bins,) each; 0 for empty bins."""
    counts = np.array([bins["counts"] for bins in seeds], float)
    means = [np.array([[value or 0 for value in bins[name]] for bins in seeds]) for name in ("confidences", "accuracies")]
    total = counts.sum(axis=0)
    return total, *((counts * mean).sum(axis=0) / np.maximum(1, total) for mean in means)


def has_errors(results: ExperimentResults) -> bool:
    """Return True if the first run of the best row misclassified a test image."""
    return results.best_row.runs[0].test["accuracy"] < 1


def plot_confident_errors(results: ExperimentResults, path: Path) -> Path:
    """Plot the misclassified test images with the highest confidence, of the first run of the best row."""
    run = results.best_row.runs[0]
    errors = read_confident_errors(run.path, len(run.class_names))
    num_shown = min(len(errors.labels), MAX_ERRORS)
    num_lines = -(-num_shown // GRID_COLUMNS)
    with plot_style():
        figure = Figure(figsize=(7.6, 1.3 + 2.2 * num_lines), layout="constrained")
        panels = figure.subplots(num_lines, GRID_COLUMNS, squeeze=False)
        for index, axes in enumerate(panels.flat):
            axes.axis("off")
            if index < num_shown:
                _plot_error(axes, errors, index, run.class_names)
        title = Line2D([], [], linestyle="none", label=f"{best_row_title(results)}, seed {run.seed}")
        note = "Images as the model saw them, with the true class, → the predicted class, and # the index in the test split"
        finish_figure(figure, results, note, [title], 1)
        return save_figure(figure, path, photographs=True)


def _plot_error(axes: Axes, errors: ConfidentErrors, index: int, class_names: Sequence[str]) -> None:
    axes.imshow(errors.images[index], interpolation="nearest")
    true, predicted = (shorten(class_names[int(labels[index])], 26) for labels in (errors.labels, errors.predicted))
    axes.set_title(f"{true}\n", size=8, pad=3)
    axes.text(0.5, 1.02, f"→ {predicted}", size=8, color=PALETTE[1], ha="center", va="bottom", transform=axes.transAxes)
    confidence = f"{100 * errors.confidences[index]:.1f} % sure   #{errors.indices[index]}"
    axes.text(0.5, -0.02, confidence, size=7, color=GREY, ha="center", va="top", transform=axes.transAxes)
