"""Sections that compare rows: against the reference row, paired tests against the best one, and calibration."""

from statistics import fmean

from tl_keras.report.document import Block, Bullets, Heading, Paragraph, Table
from tl_keras.report.experiment_results import ExperimentResults, TableRow
from tl_keras.report.paired_tests import SIGNIFICANCE_LEVEL, Comparison, compare
from tl_keras.report.statistics import EXACT_BELOW
from tl_keras.report.tables import REFERENCE_COLUMNS, make_table
from tl_keras.report.text import row_label
from tl_keras.utils.text import to_one_line

COMPARISON_HEADINGS = (
    "row",
    "difference (points)",
    "only this row correct",
    "only the best correct",
    "p of each seed",
    "seeds that agree",
    "p",
    "p after Holm",
)
MCNEMAR_TEXT = (
    "McNemar's two-sided test compares two runs by the test images that only one of them classifies correctly. It is exact for "
    f"fewer than {EXACT_BELOW} such images, else chi-square with continuity correction. "
)
SIGN_FLIP_TEXT = (
    "Images of one group, such as a patient, are not independent. So the two-sided test of two runs changes the sign of whole groups: it "
    "compares the difference with those that arise if the two runs change places in some of the groups at random (Fisher). "
)
REFERENCE_TEXT = (
    "Accuracy difference: test accuracy minus that of the reference row. Parameter ratio: parameters of the reference row, divided by "
    "those of the row. Speed ratio: seconds per epoch of the reference row, divided by those of the row; it depends on the hardware."
)
CALIBRATION_HEADINGS = (
    "row",
    "validation images",
    "temperature",
    "calibration error before (points)",
    "after (points)",
    "test loss before (nats)",
    "after (nats)",
)
CALIBRATION_TEXT = (
    "Logits are divided by a temperature that was fitted on the validation split (Guo et al. 2017), which changes probabilities and no "
    "label. Calibration error and loss are those of the test split, before and after; means over the seeds. With few validation images "
    "the temperature is uncertain. Rows without validation have none."
)


def reference_blocks(results: ExperimentResults, level: int) -> list[Block]:
    """Return a table that compares the rows with the reference row, and its explanation; empty if there is none or it was not run."""
    if not any(map(results.reference_row, results.rows)):
        return []
    fractions = "Each row is compared with the reference row of its fraction. " if results.rows[0].train_fraction else ""
    title = f"Against the reference row: {to_one_line(results.reference)}"
    return [Heading(level, title), make_table(results, REFERENCE_COLUMNS), Paragraph(fractions + REFERENCE_TEXT)]


def comparison_blocks(results: ExperimentResults, level: int) -> list[Block]:
    """Return a table of paired tests, its explanation, and the rows that cannot be compared; empty for a single row.

    Raises:
        DamagedError: The predictions of a run are absent or damaged.
    """
    if len(results.rows) < 2:
        return []
    comparisons = compare(results)
    blocks: list[Block] = [Heading(level, f"Paired tests against the best row, {row_label(results, comparisons.reference)}")]
    if comparisons.rows:
        blocks += [
            Table(COMPARISON_HEADINGS, [_comparison_cells(results, comparison) for comparison in comparisons.rows]),
            Paragraph(_explanation(results, comparisons.has_groups)),
        ]
    if comparisons.not_compared:
        blocks.append(Bullets([f"{to_one_line(name)}: not compared ({reason})" for name, reason in comparisons.not_compared]))
    return blocks


def _comparison_cells(results: ExperimentResults, comparison: Comparison) -> list[str]:
    tests = comparison.seeds
    return [
        row_label(results, comparison.row),
        f"{comparison.difference:+.2f}",
        ", ".join(f"{test.only_row_correct:,}" for test in tests),
        ", ".join(f"{test.only_reference_correct:,}" for test in tests),
        ", ".join(format_p_value(test.p) for test in tests),
        f"{comparison.num_agreeing} of {len(tests)}",
        format_p_value(comparison.p),
        format_p_value(comparison.p_corrected),
    ]


def format_p_value(p: float) -> str:
    """Return a p-value as text, e.g. `0.23`, `0.0041` or `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.995 else "1"


def _explanation(results: ExperimentResults, has_groups: bool) -> str:
    """Return the explanation of the tests."""
    text = SIGN_FLIP_TEXT if has_groups else MCNEMAR_TEXT
    if any(len(row.runs) > 1 for row in results.rows):
        text += (
            "Seeds share the test images, so their tests are not independent and their counts are not added up. p is about twice "
            "the median over the seeds, which is valid under any dependence (Rüger 1978). A seed agrees if its own p is below "
            f"{SIGNIFICANCE_LEVEL} and its difference has the sign of the mean difference. "
        )
    else:
        text += "One seed: the test covers the sampling of the test images, not the variation between seeds. "
    return text + (
        "Holm's correction accounts for the number of compared rows. The best row was chosen on the same test images, which favours "
        "it: a p-value near the threshold is weaker evidence than it seems."
    )


def calibration_blocks(results: ExperimentResults, level: int) -> list[Block]:
    """Return a table of calibration error and loss before and after temperature scaling, and its explanation; empty without validation."""
    rows = [row for row in results.rows if all("calibrated" in run.test for run in row.runs)]
    if not rows:
        return []
    table = Table(CALIBRATION_HEADINGS, [_calibration_cells(results, row) for row in rows])
    return [Heading(level, "Calibration"), table, Paragraph(CALIBRATION_TEXT)]


def _calibration_cells(results: ExperimentResults, row: TableRow) -> list[str]:
    before = [(100 * run.test["calibration"]["ece"], run.test["loss"]) for run in row.runs]
    scaled = [run.test["calibrated"] for run in row.runs]
    errors, losses = zip(*before, strict=True)
    return [
        row_label(results, row),
        f"{row.runs[0].result['data']['num_validation']:,}",
        f"{fmean(part['temperature'] for part in scaled):.2f}",
        f"{fmean(errors):.2f}",
        f"{100 * fmean(part['ece'] for part in scaled):.2f}",
        f"{fmean(losses):.4f}",
        f"{fmean(part['loss'] for part in scaled):.4f}",
    ]
