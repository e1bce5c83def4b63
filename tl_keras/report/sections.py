"""Sections of a page: paired tests of all rows against the best one, and the classes of the best row."""

import numpy as np

from tl_keras.report.document import Block, Bullets, Heading, Paragraph, Table
from tl_keras.report.error_analysis import confusion_of
from tl_keras.report.experiment_results import ExperimentResults
from tl_keras.report.paired_tests import Comparison, compare
from tl_keras.report.statistics import EXACT_BELOW
from tl_keras.report.text import NOTHING, label, plain
from tl_keras.results.metrics import class_scores

COMPARISON_HEADINGS = (
    "row",
    "difference (points)",
    "only this row right",
    "only the best right",
    "p of each seed",
    "seeds that agree",
    "p",
    "p after Holm",
)
MAX_CLASSES = 40
CLASS_HEADINGS = ("class", "test images", "precision (%)", "recall (%)", "F1 (%)", "most often taken for")


def comparison_blocks(results: ExperimentResults, level: int) -> list[Block]:
    """A table of McNemar's tests, what it means, and which rows could not be compared; nothing for a single row.

    Raises:
        DamagedError: predictions of a run are absent or damaged.
    """
    if len(results.rows) < 2:
        return []
    found = compare(results)
    blocks: list[Block] = [Heading(level, f"Paired tests against the best row, {label(results, found.reference)}")]
    if found.rows:
        blocks += [
            Table(COMPARISON_HEADINGS, [_comparison_cells(results, comparison) for comparison in found.rows]),
            Paragraph(_meaning(results)),
        ]
    if found.not_compared:
        blocks.append(Bullets([f"{plain(name)}: not compared ({reason})" for name, reason in found.not_compared]))
    return blocks


def _comparison_cells(results: ExperimentResults, comparison: Comparison) -> list[str]:
    tests = comparison.seeds
    return [
        label(results, comparison.row),
        f"{comparison.difference:+.2f}",
        ", ".join(f"{test.only_row_correct:,}" for test in tests),
        ", ".join(f"{test.only_reference_correct:,}" for test in tests),
        ", ".join(format_p_value(test.p) for test in tests),
        f"{comparison.num_agreeing} of {len(tests)}",
        format_p_value(comparison.p),
        format_p_value(comparison.p_corrected),
    ]


def format_p_value(p: float) -> str:
    """E.g. `0.23`, `0.0041` or `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.995 else "1"


def _meaning(results: ExperimentResults) -> str:
    text = (
        "McNemar's two-sided test on the test images that only one of two runs got right, seed by seed (exact for fewer than "
        f"{EXACT_BELOW} such images, else chi-square with continuity correction). "
    )
    if any(len(row.runs) > 1 for row in results.rows):
        text += (
            "Seeds share the test images, so their tests are not independent and their counts are not added up: p is about twice "
            "the median over the seeds, which holds under any dependence (Rüger 1978); a seed agrees when its own p is below 0.05 "
            "and its sign is that of the mean. "
        )
    else:
        text += "One seed: this says what other test images would change, not what other seeds would. "
    return text + (
        "Holm's correction is for the number of rows compared. The best row was chosen by the same test images, "
        "which favours it: a p near the threshold is weaker than it looks."
    )


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
        Table(CLASS_HEADINGS, [_class_cells(confusion, names, index) for index in order]),
        Paragraph(text),
    ]


def _class_cells(confusion: np.ndarray, names: list[str], index: int) -> list[str]:
    scores = class_scores(confusion)
    shares = [values[index] for values in (scores.precision, scores.recall, scores.f1)]
    wrong = confusion[index] * (np.arange(len(names)) != index)
    taken_for = f"{plain(names[wrong.argmax()])} ({wrong.max():,})" if wrong.any() else NOTHING
    shown = [NOTHING if share is None else f"{100 * share:.2f}" for share in shares]
    return [plain(names[index]), f"{confusion[index].sum():,}", *shown, taken_for]
