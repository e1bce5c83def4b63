"""The part of a page on paired tests: rows against the best one, image by image."""

from tl_keras.report.document import Block, Bullets, Heading, Paragraph, Table
from tl_keras.report.experiment_results import ExperimentResults
from tl_keras.report.statistics import EXACT_BELOW, Comparison, compare
from tl_keras.report.text import label, plain

HEADINGS = (
    "row",
    "difference (points)",
    "only this row right",
    "only the best right",
    "p of each seed",
    "seeds that agree",
    "p",
    "p after Holm",
)


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
        blocks += [Table(HEADINGS, [_cells(results, comparison) for comparison in found.rows]), Paragraph(_meaning(results))]
    if found.left_out:
        blocks.append(Bullets([f"{plain(name)}: not compared ({reason})" for name, reason in found.left_out]))
    return blocks


def _cells(results: ExperimentResults, comparison: Comparison) -> list[str]:
    tests = comparison.seeds
    return [
        label(results, comparison.row),
        f"{comparison.difference:+.2f}",
        ", ".join(f"{test.num_row:,}" for test in tests),
        ", ".join(f"{test.num_reference:,}" for test in tests),
        ", ".join(probability(test.p) for test in tests),
        f"{comparison.num_agreeing} of {len(tests)}",
        probability(comparison.p),
        probability(comparison.corrected),
    ]


def probability(p: float) -> str:
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
