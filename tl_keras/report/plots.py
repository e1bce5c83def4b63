"""The plots of a report: their files, captions and conditions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tl_keras.report.accuracy_plots import plot_accuracy_by_row, plot_accuracy_vs_fraction
from tl_keras.report.augmentation_plot import copy_augmentation, has_augmentation
from tl_keras.report.cost_plot import plot_accuracy_vs_cost
from tl_keras.report.curve_plots import plot_learning_curves
from tl_keras.report.error_analysis import has_errors, plot_confident_errors, plot_confusion_matrix, plot_reliability
from tl_keras.report.experiment_results import ExperimentResults


@dataclass(frozen=True)
class Plot:
    """A plot of a report.

    Attributes:
        file: name of its file.
        draw: writes the plot of some results to a path and returns the path.
        applies: returns True if results have what the plot shows.
    """

    file: str
    caption: str
    draw: Callable[[ExperimentResults, Path], Path]
    applies: Callable[[ExperimentResults], bool] = lambda results: True


def _differ_by_fraction(results: ExperimentResults) -> bool:
    return all(row.train_fraction is not None for row in results.rows)


def _has_several_epochs(results: ExperimentResults) -> bool:
    return any(len(run.history) > 1 for run in results.runs)


def _has_several_rows(results: ExperimentResults) -> bool:
    return len(results.rows) > 1


ROW_PLOTS = (
    Plot(
        "accuracy_against_fraction.png",
        "Test accuracy against the fraction of the training data",
        plot_accuracy_vs_fraction,
        _differ_by_fraction,
    ),
    Plot(
        "accuracy_of_rows.png",
        "Test accuracy of each row",
        plot_accuracy_by_row,
        lambda results: _has_several_rows(results) and not _differ_by_fraction(results),
    ),
    Plot(
        "accuracy_against_cost.png",
        "Test accuracy against trained parameters and training time",
        plot_accuracy_vs_cost,
        _has_several_rows,
    ),
    Plot("learning_curves.png", "Accuracy and loss against the epoch", plot_learning_curves, _has_several_epochs),
)
AUGMENTATION_CAPTION = "Some training images, and what augmentation makes of them in each of the first epochs"
BEST_ROW_PLOTS = (
    Plot("confusion_matrix.png", "Confusion matrix", plot_confusion_matrix),
    Plot("reliability.png", "Reliability diagram: accuracy against confidence", plot_reliability),
    Plot("mistakes.jpg", "Test images with the most confident errors", plot_confident_errors, has_errors),
    Plot("augmentation.jpg", AUGMENTATION_CAPTION, copy_augmentation, has_augmentation),
)


def write_plots(results: ExperimentResults, directory: Path) -> list[Path]:
    """Write every plot that applies to `directory`, remove the files of the others, and return the written files."""
    written = []
    for plot in (*ROW_PLOTS, *BEST_ROW_PLOTS):
        if plot.applies(results):
            written.append(plot.draw(results, directory / plot.file))
        else:
            (directory / plot.file).unlink(missing_ok=True)
    return written
