"""Statistics of a report against published values and SciPy, and the choice of rows that are compared."""

import dataclasses
import math

import numpy as np
import pytest
from report_builder import make_experiment, make_row
from scipy import stats

from tl_keras.report import sections
from tl_keras.report.paired_tests import compare
from tl_keras.report.statistics import EXACT_BELOW, combine_p_values, holm, mcnemar, summarize
from tl_keras.results import predictions
from tl_keras.results.split_record import TEST, TRAIN, SplitRecord, write_split


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (6, 0, 0.03125),  # these two: tables of the sign test, one-sided 0.016 and 0.011 (Siegel 1956, table D)
        (1, 9, 0.021484375),
        (4, 4, 1.0),
        (12, 12, 1.0),
        (25, 15, 0.1547289),  # chi-square 2.025 (Raschka 2018, arXiv:1811.12808)
        (101, 59, 0.0011897),  # chi-square 10.506
        (13, 13, 1.0),
    ],
)
def test_mcnemar_gives_the_published_p_values(first, second, p):
    assert mcnemar(first, second) == pytest.approx(p, rel=1e-4)
    assert mcnemar(second, first) == mcnemar(first, second)


@pytest.mark.parametrize("num_discordant", [1, 2, 7, 24, 25, 60, 1000])
def test_mcnemar_agrees_with_other_distributions_of_scipy(num_discordant):
    """The exact form is twice a binomial tail. A chi-square with one degree of freedom is the square of a normal variable."""
    for first in range(num_discordant // 2 + 1):
        second = num_discordant - first
        z = max(0, second - first - 1) / math.sqrt(num_discordant)
        exact = min(1.0, 2 * stats.binom.cdf(first, num_discordant, 0.5))
        assert mcnemar(first, second) == pytest.approx(exact if num_discordant < EXACT_BELOW else 2 * stats.norm.sf(z), rel=1e-9)


def test_the_chi_square_form_is_close_to_the_exact_test_where_it_takes_over():
    for first in range(8, 13):
        exact = stats.binomtest(first, EXACT_BELOW).pvalue
        assert mcnemar(first, EXACT_BELOW - first) == pytest.approx(exact, abs=0.02)


def test_holm_multiplies_by_falling_numbers_and_never_decreases():
    """0.01, 0.04, 0.03, 0.005: times 4, 3, 2, 1 in rising order."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


@pytest.mark.parametrize(
    ("p_values", "combined"),
    [([0.04], 0.04), ([0.04, 0.5], 0.08), ([0.01, 0.02, 0.9], 0.03), ([0.01, 0.02, 0.03, 0.9], 0.04), ([0.9, 0.8, 0.7], 1.0)],
)
def test_combined_p_value_is_about_twice_the_median(p_values, combined):
    assert combine_p_values(p_values) == pytest.approx(combined)


def test_combined_p_value_holds_its_level_under_full_dependence_and_independence():
    rng = np.random.default_rng(0)
    for p_values in (np.repeat(rng.random((4000, 1)), 3, axis=1), rng.random((4000, 3))):
        assert np.mean([combine_p_values(seeds) <= 0.05 for seeds in p_values]) < 0.06


# Quantile 0.975 of Student's distribution, from the printed tables.
@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (100, 1.984)])
def test_interval_has_the_half_width_of_students_tables(degrees, quantile):
    summary = summarize([0.5 + 0.01 * (index % 3) for index in range(degrees + 1)])
    half_width = (summary.interval[1] - summary.interval[0]) / 2
    assert half_width / (summary.std / math.sqrt(degrees + 1)) == pytest.approx(quantile, abs=5e-4)


def test_summary_of_several_values_and_of_one():
    summary = summarize([0.80, 0.81, 0.83])
    assert (summary.num_values, summary.mean) == (3, pytest.approx(0.813333, abs=1e-6))
    assert summary.std == pytest.approx(0.0152753, abs=1e-6)
    assert summary.interval == pytest.approx((0.775388, 0.851279), abs=1e-5)
    single = summarize([0.5])
    assert single.mean == 0.5 and math.isnan(single.std) and math.isnan(single.interval[0])


def write_outcomes(directory, row_index, seed, correct, labels=None):
    """Write predictions of two classes, correct where `correct` is true. Every label is 0 unless `labels` are given."""
    labels = np.zeros(len(correct), np.int64) if labels is None else labels
    logits = np.eye(2, dtype=np.float32)[np.where(correct, labels, 1 - labels)]
    predictions.write_predictions(directory / f"run{row_index}-seed{seed}", logits, labels)


@pytest.fixture
def three(tmp_path):
    """Rows a, b and c, of which c is the best, with two seeds and 100 test images."""
    rows = [make_row(name, None, name) for name in "abc"]
    return make_experiment(tmp_path, rows, seeds=(0, 1), num_test=100, class_names=["x", "y"], accuracies=[0.5, 0.7, 0.9]), tmp_path


def test_discordant_images_are_counted_for_each_seed(three):
    results, directory = three
    indices = np.arange(100)
    for seed in (0, 1):
        write_outcomes(directory, 2, seed, indices < 90)
        write_outcomes(directory, 1, seed, (indices >= 2) & (indices < 90) | (indices == 95))
        write_outcomes(directory, 0, seed, (indices >= 40) & (indices < 90 + seed))
    found = compare(results)
    assert found.reference.label == "c" and [row.row.label for row in found.rows] == ["a", "b"]
    a, b = found.rows
    assert [(test.seed, test.only_row_correct, test.only_reference_correct) for test in a.seeds] == [(0, 0, 40), (1, 1, 40)]
    assert [(test.only_row_correct, test.only_reference_correct) for test in b.seeds] == [(1, 2), (1, 2)]
    assert (a.num_agreeing, b.num_agreeing) == (2, 0) and b.p == 1 and a.difference == pytest.approx(-40)
    assert a.p_corrected == pytest.approx(2 * a.p) and a.p == pytest.approx(2 * min(test.p for test in a.seeds))


def test_images_of_one_group_count_as_one(three):
    """Row a loses 10 images of one patient: McNemar's p is 0.002, but a single patient tells nothing."""
    results, directory = three
    first_seed = tuple(dataclasses.replace(row, runs=row.runs[:1]) for row in results.rows)
    results, indices = dataclasses.replace(results, rows=first_seed), np.arange(100)
    for index, wrong in enumerate((range(40, 50), range(0), range(0))):
        write_outcomes(directory, index, 0, (indices < 90) & ~np.isin(indices, wrong))
    assert compare(results).rows[0].p == mcnemar(0, 10) < 0.05 and not compare(results).has_groups
    for run in (row.runs[0] for row in results.rows):
        splits, patients = np.array([TRAIN] + [TEST] * 100, np.uint8), np.concatenate([[99], indices // 10])
        digests, labels = np.arange(101, dtype=np.uint64), np.zeros(101, np.int64)
        write_split(run.path, SplitRecord("x", ("x", "y"), digests, labels, splits, np.array([""] * 101), patients))
    assert compare(results).rows[0].p == 1 and compare(results).has_groups
    assert "change places in some of the groups" in sections.comparison_blocks(results, 2)[2].text


def test_rows_tested_on_other_images_are_listed_as_not_compared(three):
    results, directory = three
    write_outcomes(directory, 0, 1, np.ones(100, bool), labels=np.arange(100)[::-1] % 2)
    row = results.rows[1]
    data = [{**run.result, "data": {**run.result["data"], "fingerprint": "other"}} for run in row.runs]
    runs = tuple(dataclasses.replace(run, result=result) for run, result in zip(row.runs, data, strict=True))
    changed = dataclasses.replace(results, rows=(results.rows[0], dataclasses.replace(row, runs=runs), results.rows[2]))
    reason = "other test images, or another order"
    assert compare(changed).not_compared == (("a", reason), ("b", reason)) and not compare(changed).rows
    blocks = sections.comparison_blocks(changed, 2)
    assert blocks[-1].lines == [f"a: not compared ({reason})", f"b: not compared ({reason})"]


def test_rows_with_other_fallbacks_are_not_compared(three):
    results, _ = three
    rows = [dataclasses.replace(row, fallbacks=("digits for pets",)) for row in results.rows]
    mixed = dataclasses.replace(results, rows=(results.rows[0], results.rows[1], rows[2]))
    assert mixed.best_row.label == "b"
    assert [row.row.label for row in compare(mixed).rows] == ["a"] and compare(mixed).not_compared == (("c", "other fallbacks"),)
    alike = dataclasses.replace(results, rows=tuple(rows))
    assert alike.best_row.label == "c" and len(compare(alike).rows) == 2


def test_a_single_row_has_no_section_of_paired_tests(tmp_path):
    assert sections.comparison_blocks(make_experiment(tmp_path, [make_row("a", None, "a")], num_test=50), 2) == []


def test_the_text_explains_one_and_several_seeds(three):
    results, _ = three
    several = sections.comparison_blocks(results, 2)
    assert "not independent" in several[2].text and several[1].rows[0][5].endswith(" of 2")
    first_seed = tuple(dataclasses.replace(row, runs=row.runs[:1]) for row in results.rows)
    assert "One seed" in sections.comparison_blocks(dataclasses.replace(results, rows=first_seed), 2)[2].text


@pytest.mark.parametrize(("p", "text"), [(1.0, "1"), (0.996, "1"), (0.2345, "0.23"), (0.00123, "0.0012"), (1e-9, "< 0.0001")])
def test_p_values_are_shown_with_two_digits(p, text):
    assert sections.format_p_value(p) == text
