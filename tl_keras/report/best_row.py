"""Sections on the best row: its scores by class, the classes that it confuses most often, and images of these errors."""

from collections.abc import Sequence

import numpy as np

from tl_keras.report.document import Block, Gallery, Heading, Paragraph, Picture, Table
from tl_keras.report.error_analysis import has_errors, occurring_classes, omitted_note, read_predicted_classes
from tl_keras.report.experiment_results import ExperimentResults, Run
from tl_keras.report.text import EMPTY_CELL, row_label
from tl_keras.results.metrics import ClassScores, class_scores, confusion_matrix
from tl_keras.results.predictions import (
    IMAGES_PER_CELL,
    MAX_CELLS,
    ConfidentErrors,
    frequent_confusions,
    read_confident_errors,
    read_predictions,
)
from tl_keras.results.split_record import TEST, read_split
from tl_keras.utils.text import to_one_line

MAX_CLASSES = 40
MAX_CONFUSIONS = 12
CLASS_HEADINGS = ("class", "test images", "precision (%)", "recall (%)", "F1 (%)", "most often confused with")
CONFUSION_HEADINGS = ("true class", "predicted class", "test images", "of the true class (%)")
CONFUSIONS_TEXT = "The most frequent confusions of two classes, that is, the largest cells of the confusion matrix off its diagonal"


def best_row_blocks(results: ExperimentResults, level: int) -> list[Block]:
    """Return precision, recall and F1 of each class of the best row, the lowest F1 first, and the classes that it confuses most.

    Only the `MAX_CLASSES` classes with the lowest F1 are shown. Classes without test images and predictions are left out.

    Raises:
        DamagedError: The predictions of a run are absent or damaged.
    """
    row = results.best_row
    names, (labels, predicted) = row.runs[0].class_names, read_predicted_classes(row)
    confusion = confusion_matrix(labels, predicted, len(names))
    scores = class_scores(confusion)
    occurring = sorted(occurring_classes(confusion).tolist(), key=lambda label: scores.f1[label] or 0.0)
    summed = "Counts are summed over the seeds" if len(row.runs) > 1 else ""
    notes = [
        "Scores by class, the lowest F1 first",
        f"{EMPTY_CELL}: the class was never predicted, or has no test image",
        summed,
        omitted_note(len(names) - len(occurring)),
        f"Only the {MAX_CLASSES} of {len(occurring):,} classes with the lowest F1 are shown" if len(occurring) > MAX_CLASSES else "",
    ]
    blocks: list[Block] = [
        Heading(level, f"Best row: {row_label(results, row)}" if len(results.rows) > 1 else "Scores by class"),
        Table(CLASS_HEADINGS, [_class_cells(confusion, scores, names, label) for label in occurring[:MAX_CLASSES]]),
        Paragraph(_sentences(notes)),
    ]
    cells = _confusion_cells(labels, predicted, names)
    return [*blocks, Table(CONFUSION_HEADINGS, cells), Paragraph(_sentences([CONFUSIONS_TEXT, summed]))] if cells else blocks


def _sentences(texts: Sequence[str]) -> str:
    return ". ".join(filter(None, texts)) + "."


def _class_cells(confusion: np.ndarray, scores: ClassScores, names: Sequence[str], index: int) -> list[str]:
    fractions = [values[index] for values in (scores.precision, scores.recall, scores.f1)]
    errors = confusion[index] * (np.arange(len(names)) != index)
    confused_with = f"{to_one_line(names[errors.argmax()])} ({errors.max():,})" if errors.any() else EMPTY_CELL
    percents = [EMPTY_CELL if fraction is None else f"{100 * fraction:.2f}" for fraction in fractions]
    return [to_one_line(names[index]), f"{confusion[index].sum():,}", *percents, confused_with]


def _confusion_cells(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> list[list[str]]:
    """Return the most frequent confusions of two classes, at most `MAX_CONFUSIONS`."""
    totals = np.bincount(labels)
    return [
        [to_one_line(names[true]), to_one_line(names[other]), f"{count:,}", f"{100 * count / totals[true]:.2f}"]
        for true, other, count in frequent_confusions(labels, predicted)[:MAX_CONFUSIONS]
    ]


def misclassified_blocks(results: ExperimentResults, level: int) -> list[Block]:
    """Return images of the most frequent confusions of the first run of the best row, those of highest confidence first.

    Raises:
        DamagedError: The predictions or the errors of the run are absent or damaged.
    """
    if not has_errors(results):
        return []
    run = results.best_row.runs[0]
    logits, labels = read_predictions(run.path)
    errors = read_confident_errors(run.path, len(run.class_names))
    files = _test_files(run)
    blocks: list[Block] = []
    for true, other, count in frequent_confusions(labels, logits.argmax(axis=1))[:MAX_CELLS]:
        shown = np.flatnonzero((errors.labels == true) & (errors.predicted == other))[:IMAGES_PER_CELL].tolist()
        pictures = [_picture(errors, index, run.class_names, files) for index in shown]
        title = f"{_name(run, true)} → {_name(run, other)}: {count:,} of {int((labels == true).sum()):,} images"
        blocks += [Heading(level + 1, title), Gallery(pictures)] if pictures else []
    text = f"Test images by true → predicted class, seed {run.seed}: the most confident errors of the most frequent confusions."
    return [Heading(level, "Misclassified images"), Paragraph(text), *blocks]


def _name(run: Run, label: int) -> str:
    return to_one_line(run.class_names[label])


def _test_files(run: Run) -> Sequence[str]:
    """Return the files of the test images in their order, or nothing if the data set has no files."""
    record = read_split(run.path)
    files = record.paths[record.splits == TEST].tolist() if record else []
    return files if len(files) == run.test["num_examples"] and any(files) else []


def _picture(errors: ConfidentErrors, index: int, names: Sequence[str], files: Sequence[str]) -> Picture:
    true, predicted = (to_one_line(names[int(labels[index])]) for labels in (errors.labels, errors.predicted))
    position = int(errors.indices[index])
    file = to_one_line(files[position]) if 0 <= position < len(files) else ""
    confidence = f"{100 * errors.confidences[index]:.1f} % sure, #{position}"
    return Picture(errors.images[index], f"{true}, taken for {predicted}", [f"{true} → {predicted}", confidence, *filter(None, [file])])
