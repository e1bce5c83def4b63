"""Text and numbers as a report prints them. Labels, class names and notes come from outside: nothing in them may act as markup."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tl_keras.report.experiment_results import PAPER, ExperimentResults, Row, Run

FORMULA_STARTS = ("=", "+", "-", "@")  # what makes a spreadsheet take a cell for a formula
NOTHING = "–"
SIGNS = "†‡§¶"  # of rows with stand-ins


def plain(text: object) -> str:
    """One printable line: line breaks, tabs and other control characters become spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def markdown(text: object) -> str:
    """`plain` text with Markdown's and HTML's marks escaped."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", plain(text))


def csv_cell(value: object) -> object:
    """Numbers as they are; text as `plain`, with an apostrophe where a spreadsheet would take it for a formula."""
    if value is None or isinstance(value, int | float):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def duration(seconds: float) -> str:
    """E.g. `0.4 s`, `43 s`, `6 min 7 s` or `3 h 2 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    hours, minutes, rest = int(seconds) // 3600, int(seconds) // 60 % 60, int(seconds) % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def listed(values: Iterable[Any]) -> str:
    """The different values in the order of appearance, e.g. `0, 1, 2`."""
    return ", ".join(dict.fromkeys(plain(value) for value in values))


def span(values: Sequence[int]) -> str:
    """E.g. `4,500 to 22,500`, or the one value."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def device(run: Run) -> str:
    """The accelerator, or the processor where there is none."""
    runtime = run.result["runtime"]
    return runtime["cpu"] if runtime["device"] == "CPU" else runtime["device"]


def facts(results: ExperimentResults) -> list[str]:
    """What a reader must know beside the figures: data, seeds, epochs, image size, precision, device."""
    runs = results.runs
    data = [run.result["data"] for run in runs]
    seeds = listed(run.seed for run in runs)
    return [
        f"data set {listed(part['dataset'] for part in data)}",
        listed(run.result["model"]["backbone"] for run in runs),
        f"n train {span([part['num_train'] for part in data])}",
        f"n validation {span([part['num_validation'] for part in data])}",
        f"n test {span([part['num_test'] for part in data])}",
        f"{'seeds' if ',' in seeds else 'seed'} {seeds}",
        f"{span([run.num_epochs for run in runs])} epochs",
        f"{listed(run.result['model']['image_size'] for run in runs)} px",
        listed(run.result["runtime"]["precision"] for run in runs),
        listed(device(run) for run in runs),
        *([] if results.embedded or departure_note(results) else [f"{results.profile} profile"]),
    ]


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]


def departure_note(results: ExperimentResults) -> str:
    """That the settings are not the report's, and which; empty where they are."""
    if results.embedded or (results.profile == PAPER and not results.departures):
        return ""
    profile = "" if results.profile == PAPER else f"{results.profile} profile: "
    which = f": {listed(results.departures)}" if results.departures else ""
    has_differences = any(results.difference(row) is not None for row in results.rows)
    verdict = "; the difference says nothing about reproduction" if has_differences else ""
    return f"{profile}other settings than the report's{which}{verdict}"


def stand_in_signs(results: ExperimentResults) -> dict[tuple[str, ...], str]:
    """What stood in -> the sign of its rows."""
    found = dict.fromkeys(row.stand_ins for row in results.rows if row.stand_ins)
    return {stand_ins: SIGNS[index % len(SIGNS)] * (1 + index // len(SIGNS)) for index, stand_ins in enumerate(found)}


def label(results: ExperimentResults, row: Row) -> str:
    """The row's label with the sign of its stand-ins."""
    return signed(results, plain(row.label), row.stand_ins)


def signed(results: ExperimentResults, name: str, stand_ins: tuple[str, ...]) -> str:
    """`name` with the sign of these stand-ins."""
    return f"{name} {stand_in_signs(results).get(stand_ins, '')}".rstrip()


def stand_in_notes(results: ExperimentResults) -> list[str]:
    """What each sign means."""
    return [f"{sign} stand-in: {listed(stand_ins)}; not compared with the report" for stand_ins, sign in stand_in_signs(results).items()]


def interval_meaning(results: ExperimentResults) -> str:
    """What the interval around an accuracy covers."""
    over_seeds = "the mean over the seeds (Student's t: what other seeds would change)"
    over_images = "the share of the test images (Wilson: what other test images would change)"
    return f"95 % interval of {over_seeds if any(len(row.runs) > 1 for row in results.rows) else over_images}"
