"""McNemar's test, Holm's correction and the combination over seeds, against worked examples; which rows may be compared."""

import dataclasses
import math

import numpy as np
import pytest
from report_builder import make_experiment, make_row

from tl_keras.report import sections, statistics
from tl_keras.report.statistics import combine, compare, holm, mcnemar
from tl_keras.results import predictions


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (6, 0, 2 / 64),
        (1, 9, 2 * 11 / 1024),  # two-sided sign test: 2 (1 + 10) / 2 ** 10
        (4, 4, 1.0),
        (12, 12, 1.0),
        (101, 59, math.erfc(41 / math.sqrt(320))),  # chi-square (|101 - 59| - 1) ** 2 / 160 = 10.506
        (13, 13, 1.0),
    ],
)
def test_mcnemar(first, second, p):
    assert mcnemar(first, second) == pytest.approx(p)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_the_two_forms_of_mcnemars_test_meet():
    """Where one takes over from the other they differ by little."""
    for first in range(8, 13):
        num = statistics.EXACT_BELOW
        exact = min(1.0, 2 * sum(math.comb(num, count) for count in range(first + 1)) / 2**num)
        assert mcnemar(first, num - first) == pytest.approx(exact, abs=0.02)


def test_holm_against_the_worked_example():
    """0.01, 0.04, 0.03, 0.005: times 4, 3, 2, 1 in rising order, never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


@pytest.mark.parametrize(
    ("ps", "p"), [([0.04], 0.04), ([0.04, 0.5], 0.08), ([0.01, 0.02, 0.9], 0.03), ([0.01, 0.02, 0.03, 0.9], 0.04), ([0.9, 0.8, 0.7], 1.0)]
)
def test_combine(ps, p):
    assert combine(ps) == pytest.approx(p)


def test_combine_holds_its_level_under_full_dependence_and_independence():
    rng = np.random.default_rng(0)
    for ps in (np.repeat(rng.random((4000, 1)), 3, axis=1), rng.random((4000, 3))):
        assert np.mean([combine(row) <= 0.05 for row in ps]) < 0.06


def write_made(directory, number, seed, hits, labels=None):
    """Two classes, all of class 0 unless `labels` says otherwise; right where `hits`."""
    labels = np.zeros(len(hits), np.int64) if labels is None else labels
    logits = np.eye(2, dtype=np.float32)[np.where(hits, labels, 1 - labels)]
    predictions.write_predictions(directory / f"run{number}-seed{seed}", logits, labels)


@pytest.fixture
def three(tmp_path):
    """Rows a, b and the best, c, with two seeds of 100 images."""
    rows = [make_row(name, None, name) for name in "abc"]
    return make_experiment(tmp_path, rows, seeds=(0, 1), num_test=100, class_names=["x", "y"], shares=[0.5, 0.7, 0.9]), tmp_path


def test_counts_of_discordant_images_by_seed(three):
    results, directory = three
    places = np.arange(100)
    for seed in (0, 1):
        write_made(directory, 2, seed, places < 90)
        write_made(directory, 1, seed, (places >= 2) & (places < 90) | (places == 95))
        write_made(directory, 0, seed, (places >= 40) & (places < 90 + seed))
    found = compare(results)
    assert found.reference.label == "c" and [row.row.label for row in found.rows] == ["a", "b"]
    a, b = found.rows
    assert [(test.seed, test.num_row, test.num_reference) for test in a.seeds] == [(0, 0, 40), (1, 1, 40)]
    assert [(test.num_row, test.num_reference) for test in b.seeds] == [(1, 2), (1, 2)]
    assert (a.num_agreeing, b.num_agreeing) == (2, 0) and b.p == 1 and a.difference == pytest.approx(-40)
    assert a.corrected == pytest.approx(2 * a.p) and a.p == pytest.approx(2 * min(test.p for test in a.seeds))


def test_rows_that_saw_other_images_are_left_out_and_said_so(three):
    results, directory = three
    write_made(directory, 0, 1, np.ones(100, bool), labels=np.arange(100)[::-1] % 2)
    row = results.rows[1]
    data = [{**run.result, "data": {**run.result["data"], "fingerprint": "other"}} for run in row.runs]
    runs = tuple(dataclasses.replace(run, result=result) for run, result in zip(row.runs, data, strict=True))
    changed = dataclasses.replace(results, rows=(results.rows[0], dataclasses.replace(row, runs=runs), results.rows[2]))
    reason = "other test images, or in another order"
    assert compare(changed).left_out == (("a", reason), ("b", reason)) and not compare(changed).rows
    blocks = sections.comparison_blocks(changed, 2)
    assert blocks[-1].lines == [f"a: not compared ({reason})", f"b: not compared ({reason})"]


def test_rows_with_other_stand_ins_are_left_out(three):
    results, _ = three
    rows = [dataclasses.replace(row, stand_ins=("digits for pets",)) for row in results.rows]
    mixed = dataclasses.replace(results, rows=(results.rows[0], results.rows[1], rows[2]))
    assert mixed.best_row.label == "b"
    assert [row.row.label for row in compare(mixed).rows] == ["a"] and compare(mixed).left_out == (("c", "stand-ins"),)
    alike = dataclasses.replace(results, rows=tuple(rows))
    assert alike.best_row.label == "c" and len(compare(alike).rows) == 2


def test_one_row_has_nothing_to_be_compared_with(tmp_path):
    assert sections.comparison_blocks(make_experiment(tmp_path, [make_row("a", None, "a")], num_test=50), 2) == []


def test_the_text_says_what_several_seeds_mean(three):
    results, _ = three
    several = sections.comparison_blocks(results, 2)
    assert "not independent" in several[2].text and several[1].rows[0][5].endswith(" of 2")
    first_seed = tuple(dataclasses.replace(row, runs=row.runs[:1]) for row in results.rows)
    assert "One seed" in sections.comparison_blocks(dataclasses.replace(results, rows=first_seed), 2)[2].text


@pytest.mark.parametrize(("p", "text"), [(1.0, "1"), (0.996, "1"), (0.2345, "0.23"), (0.00123, "0.0012"), (1e-9, "< 0.0001")])
def test_probability(p, text):
    assert sections.probability(p) == text
