"""The part of a page on the best row: its classes."""

import numpy as np

from tl_keras.report.document import Block, Heading, Paragraph, Table
from tl_keras.report.error_analysis import confusion_of
from tl_keras.report.experiment_results import ExperimentResults
from tl_keras.report.text import NOTHING, label, plain
from tl_keras.results.metrics import class_scores

MAX_CLASSES = 40
HEADINGS = ("class", "test images", "precision (%)", "recall (%)", "F1 (%)", "most often taken for")


def best_row_blocks(results: ExperimentResults, level: int) -> list[Block]:
    """Precision, recall and F1 of each class of the best row; of many classes those of the lowest F1.

    Raises:
        DamagedError: predictions of a run are absent or damaged.
    """
    row = results.best_row
    confusion = confusion_of(row)
    names, f1 = row.runs[0].class_names, class_scores(confusion).f1
    order = range(len(names))
    if len(names) > MAX_CLASSES:
        order = sorted(order, key=lambda index: 2.0 if f1[index] is None else f1[index])[:MAX_CLASSES]
    kept = "" if len(names) <= MAX_CLASSES else f" The {MAX_CLASSES} classes of the lowest F1, of {len(names):,}."
    summed = " Counts are summed over the seeds." if len(row.runs) > 1 else ""
    text = f"Classes of the best row. {NOTHING}: the class was never predicted, or has no test image.{summed}{kept}"
    return [
        Heading(level, f"Best row: {label(results, row)}"),
        Table(HEADINGS, [_cells(confusion, names, index) for index in order]),
        Paragraph(text),
    ]


def _cells(confusion: np.ndarray, names: list[str], index: int) -> list[str]:
    scores = class_scores(confusion)
    shares = [values[index] for values in (scores.precision, scores.recall, scores.f1)]
    wrong = confusion[index] * (np.arange(len(names)) != index)
    taken_for = f"{plain(names[wrong.argmax()])} ({wrong.max():,})" if wrong.any() else NOTHING
    shown = [NOTHING if share is None else f"{100 * share:.2f}" for share in shares]
    return [plain(names[index]), f"{confusion[index].sum():,}", *shown, taken_for]
