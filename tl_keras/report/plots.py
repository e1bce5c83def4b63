"""The figures of an experiment: their files, what they show, when there is one, and what draws them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tl_keras.report.accuracy_plots import draw_rows, draw_shares
from tl_keras.report.cost_plot import draw_costs
from tl_keras.report.curve_plots import draw_curves
from tl_keras.report.error_analysis import draw_confusion, draw_mistakes, draw_reliability, has_mistakes
from tl_keras.report.experiment_results import ExperimentResults


@dataclass(frozen=True)
class Drawing:
    file: str
    caption: str
    draw: Callable[[ExperimentResults, Path], Path]
    applies: Callable[[ExperimentResults], bool] = lambda results: True


def _differ_by_share(results: ExperimentResults) -> bool:
    return all(row.x is not None for row in results.rows)


# Those of all rows, then those of the best row.
OF_ROWS = (
    Drawing("accuracy_against_fraction.png", "Test accuracy against the share of the training data", draw_shares, _differ_by_share),
    Drawing("accuracy_of_rows.png", "Test accuracy of each row", draw_rows, lambda results: not _differ_by_share(results)),
    Drawing("accuracy_against_cost.png", "Test accuracy against trained parameters and training time", draw_costs),
    Drawing("learning_curves.png", "Accuracy and loss against the epoch", draw_curves),
)
OF_BEST_ROW = (
    Drawing("confusion_matrix.png", "Confusion matrix of the best row", draw_confusion),
    Drawing("reliability.png", "Reliability diagram of the best row: accuracy against confidence", draw_reliability),
    Drawing("mistakes.jpg", "The most confidently wrong test images of the best row", draw_mistakes, has_mistakes),
)


def draw_all(results: ExperimentResults, directory: Path) -> list[Path]:
    """Draw every figure that applies into `directory`; a file of one that no longer does is removed."""
    drawn = []
    for drawing in (*OF_ROWS, *OF_BEST_ROW):
        if drawing.applies(results):
            drawn.append(drawing.draw(results, directory / drawing.file))
        else:
            (directory / drawing.file).unlink(missing_ok=True)
    return drawn
