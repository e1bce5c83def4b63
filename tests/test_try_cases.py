"""The table of tools/try_cases.py is complete, its inputs are what they are said to be, and it runs."""

import re
from collections import Counter

import pytest
from PIL import Image

from tools import case_inputs, try_cases
from tools.case_table import CASES, KINDS, Case, Outcome, either, loss_below, refuses, without, works

THREAD = re.compile(r"[\w.-]+(/[\w.-]+)?#\d+")


def test_every_entry_is_described_and_has_a_source():
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        assert all((case.name, case.source, case.description, case.expected, case.script)), case.name
        assert case.kind in KINDS and (not case.is_neighbour or case.name.startswith(f"N{case.kind} "))


def test_every_kind_has_four_neighbours_with_sources_outside():
    neighbours = [case for case in CASES if case.is_neighbour]
    assert all(number >= 4 for number in Counter(case.kind for case in neighbours).values())
    assert {case.kind for case in neighbours} == set(KINDS)
    assert all(THREAD.fullmatch(case.source) or re.match("(tool|format): ", case.source) for case in neighbours)


@pytest.mark.parametrize(
    "test, code, text, expected",
    [
        (works("n = 50"), 0, "test accuracy, n = 50", True),
        (works("n = 50"), 0, "test accuracy, n = 10", False),
        (works(), 1, "", False),
        (works(), 0, "Traceback (most recent call last):", False),
        (refuses("unpack"), 2, "error: unpack it", True),
        (refuses("unpack"), 0, "error: unpack it", False),
        (refuses("unpack"), 1, "Traceback (most recent call last):\nerror: unpack", False),
        (either(works(), refuses("x")), 2, "error: x", True),
        (without("None", works("recall")), 0, "recall None", False),
        (loss_below(30), 0, "loss           1322.5 nats", False),
        (loss_below(30), 0, "loss           4.5 nats; error", True),
        (loss_below(30), 0, "loss           nan nats", False),
    ],
)
def test_outcomes_are_judged(test, code, text, expected):
    assert Case("A", 1, "source", "tried", "expected", "script", test).is_right(Outcome(code, text)) == expected


@pytest.mark.parametrize("image", case_inputs.IMAGES)
def test_inputs_are_files_of_images(image, tmp_path):
    (tmp_path / "image").write_bytes(image())
    if image not in (case_inputs.large_text, case_inputs.large_profile):  # Pillow refuses these
        with Image.open(tmp_path / "image") as opened:
            assert opened.size == ((16, 12) if image is case_inputs.dng else (48, 32))


def test_scripts_make_inputs_and_call_the_project_without_a_server(tmp_path):
    case = next(case for case in CASES if case.name == "N5 turned PNG")
    outcome = try_cases.run_case(case, try_cases.PROJECT, tmp_path / "inputs", tmp_path / "work", tmp_path / "server")
    assert case.is_right(outcome) and outcome.code == 0 and not (tmp_path / "work").exists()


def test_the_table_counts_what_is_wrong_in_each_checkout():
    case = Case("N1 x", 1, "a/b#1", "tried", "a | b", "script", works())
    rows = [try_cases.Row(case, {"before": Outcome(1, "error: no"), "now": Outcome(0, "yes")})]
    table = try_cases.format_table(rows).splitlines()
    assert table[2] == "| N1 x: tried | a/b#1 | WRONG: exit 1, error: no | right: exit 0, yes | a &#124; b | right |"
    assert f"| {KINDS[1]} | 1 | 1 | 0 |" in table and "| neighbours | 1 | 1 | 0 |" in table and "| cases | 0 | 0 | 0 |" in table


def test_scripts_are_copied_and_run_elsewhere(tmp_path):
    (tmp_path / "scripts" / "photos").mkdir(parents=True)
    (tmp_path / "scripts" / "photos" / "make.py").write_text("import pathlib; pathlib.Path(__file__).with_name('made').touch()")
    try_cases.make_inputs(tmp_path / "scripts", tmp_path / "inputs")
    assert (tmp_path / "inputs" / "photos" / "made").exists() and not (tmp_path / "scripts" / "photos" / "made").exists()
