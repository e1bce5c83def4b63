"""Formatting of text and numbers in a report.

Labels, class names and notes are untrusted text, so nothing in them may act as markup.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tl_keras.report.experiment_results import ExperimentResults, Run, TableRow
from tl_keras.results.experiment_file import PAPER
from tl_keras.utils.text import join_names, plain_cell, to_one_line

EMPTY_CELL = "–"
FALLBACK_MARKS = "†‡§¶"  # of rows with fallbacks
MAX_PENDING = 12  # rows in a note


def escape_markdown(text: object) -> str:
    """Return `text` as one line with the special characters of Markdown and HTML escaped."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", to_one_line(text))


def csv_cell(value: object) -> object:
    """Return a number unchanged, and text as one line, with an apostrophe in front if a spreadsheet would read it as a formula."""
    if value is None or isinstance(value, int | float):
        return value
    return plain_cell(value)


def format_duration(seconds: float) -> str:
    """Return a duration as text, e.g. `0.4 s`, `43 s`, `6 min 7 s` or `3 h 2 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    hours, minutes, rest = int(seconds) // 3600, int(seconds) // 60 % 60, int(seconds) % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def join_unique(values: Iterable[Any]) -> str:
    """Return the distinct values in the order of appearance, e.g. `0, 1, 2`."""
    return ", ".join(dict.fromkeys(to_one_line(value) for value in values))


def format_range(values: Sequence[int]) -> str:
    """Return the smallest and the largest value, e.g. `4,500 to 22,500`, or the value that all share."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def device_name(run: Run) -> str:
    """Return the name of the accelerator, or of the processor if there is none."""
    runtime = run.result["runtime"]
    return runtime["cpu"] if runtime["device"] == "CPU" else runtime["device"]


def run_facts(results: ExperimentResults) -> list[str]:
    """Return the conditions of the results: data, model, seeds, epochs, image size, precision and device."""
    runs = results.runs
    data = [run.result["data"] for run in runs]
    seeds = join_unique(run.seed for run in runs)
    epochs = format_range([run.num_epochs for run in runs])
    return [
        f"data set {join_unique(part['dataset'] for part in data)}",
        join_unique(run.result["model"]["backbone"] for run in runs),
        f"n train {format_range([part['num_train'] for part in data])}",
        f"n validation {format_range([part['num_validation'] for part in data])}",
        f"n test {format_range([part['num_test'] for part in data])}",
        f"{'seeds' if ',' in seeds else 'seed'} {seeds}",
        f"{epochs} epoch{'' if epochs == '1' else 's'}",
        f"{join_unique(run.result['model']['image_size'] for run in runs)} px",
        join_unique(run.result["runtime"]["precision"] for run in runs),
        join_unique(device_name(run) for run in runs),
        *([f"{results.profile} profile"] if results.has_source and not (results.embedded or changed_settings_note(results)) else []),
    ]


def capitalize(text: str) -> str:
    """Return `text` with its first letter in upper case; the rest is unchanged."""
    return text[:1].upper() + text[1:]


def changed_settings_note(results: ExperimentResults) -> str:
    """Return a note of the settings that differ from the source report's, or from the full experiment's; empty if none do."""
    if results.embedded or (results.profile == PAPER and not results.changed_settings):
        return ""
    profile = "" if results.profile == PAPER else f"{results.profile} profile: "
    settings = f": {join_unique(results.changed_settings)}" if results.changed_settings else ""
    has_differences = any(results.difference(row) is not None for row in results.rows)
    consequence = "; the difference is not a test of reproduction" if has_differences else ""
    return f"{profile}settings differ from the {'source report' if results.has_source else 'full experiment'}{settings}{consequence}"


def pending_note(results: ExperimentResults) -> str:
    """Return the number of finished runs and those to come, e.g. `1 of 3 runs finished; to come: head (2)`; empty if all are."""
    if not results.pending:
        return ""
    num_finished = len(results.runs)
    total = num_finished + sum(results.pending.values())
    waiting = [f"{to_one_line(label)} ({number})" for label, number in results.pending.items()]
    return f"{num_finished} of {total} runs finished; to come: {join_names(waiting, MAX_PENDING)}"


def fallback_marks(results: ExperimentResults) -> dict[tuple[str, ...], str]:
    """Return a mapping from the fallbacks of a row to the mark of such rows."""
    found = dict.fromkeys(row.fallbacks for row in results.rows if row.fallbacks)
    return {
        fallbacks: FALLBACK_MARKS[index % len(FALLBACK_MARKS)] * (1 + index // len(FALLBACK_MARKS)) for index, fallbacks in enumerate(found)
    }


def row_label(results: ExperimentResults, row: TableRow) -> str:
    """Return the row's label with the mark of its fallbacks."""
    return with_fallback_mark(results, to_one_line(row.label), row.fallbacks)


def with_fallback_mark(results: ExperimentResults, name: str, fallbacks: tuple[str, ...]) -> str:
    """Return `name` with the mark of `fallbacks`."""
    return f"{name} {fallback_marks(results).get(fallbacks, '')}".rstrip()


def fallback_notes(results: ExperimentResults) -> list[str]:
    """Return the meaning of each mark."""
    consequence = "; not compared with the source report" if results.has_source else ""
    return [f"{mark} fallback: {join_unique(fallbacks)}{consequence}" for fallbacks, mark in fallback_marks(results).items()]


def describe_interval(results: ExperimentResults) -> str:
    """Return a description of the interval around an accuracy."""
    has_several_seeds = any(len(row.runs) > 1 for row in results.rows)
    over_seeds = "the mean over seeds (Student's t: variation between seeds)"
    over_images = "the accuracy (Wilson: sampling of the test images)"
    return f"95 % interval of {over_seeds if has_several_seeds else over_images}"
