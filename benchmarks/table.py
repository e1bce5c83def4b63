"""Writes the measurements as one table: to the terminal, as Markdown, and as JSON."""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Measured, Spread
from benchmarks.registry import OURS

LOG_WIDTH = 180
EMPTY_CELL = "-"
SMALLEST_SHARE = 0.02  # of the time of a step that a profile shows


@dataclass(frozen=True)
class Results:
    """The measurements of one call.

    Attributes:
        machine: see `hardware.describe`; and `import_seconds`, side -> seconds that whole jobs include.
        images: their origin.
    """

    profile: str
    date: str
    machine: Mapping[str, Any]
    images: str
    measurements: Sequence[Measured]

    def lines(self) -> list[tuple[Measured, str]]:
        """Return every measurement with every side that ours is compared with."""
        return [(measured, side) for measured in self.measurements for side in measured.sides if side != OURS and OURS in measured.sides]

    def profiles(self) -> list[tuple[Measured, str]]:
        """Return the lines whose step was profiled."""
        return [(measured, side) for measured, side in self.lines() if measured.shares]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(spread: Spread) -> str:
    """Return `median [minimum, maximum]`, or the median alone after one round."""
    return _number(spread.median) + (f" [{_number(spread.low)}, {_number(spread.high)}]" if spread.low < spread.high else "")


def _value(measured: Measured, side: str) -> str:
    return f"{_spread(measured.value(side))} {'images/s' if measured.benchmark.num_images else 's'}"


def _target(measured: Measured, side: str) -> str:
    benchmark, least = measured.benchmark, measured.target(side)
    ratio = [f"{least:.3g} {_reached(measured.ratio(side).median >= least)}"] if least else []
    limit = [f"in {benchmark.seconds:.3g} s {_reached(measured.value(OURS).median <= benchmark.seconds)}"] if benchmark.seconds else []
    return ", ".join(ratio + limit) or EMPTY_CELL


def _reached(holds: bool) -> str:
    return "reached" if holds else "MISSED"


def _accuracy(measured: Measured, side: str) -> str:
    found = measured.accuracy(side)
    return _spread(found) if found else EMPTY_CELL


def _memory(measured: Measured, side: str) -> str:
    num_bytes = measured.sides[side].num_bytes
    return f"{num_bytes / 2**20:,.0f}" if num_bytes else EMPTY_CELL


def _fraction(measured: Measured, side: str) -> str:
    return f"{100 * measured.peak_fraction[side]:.0f} %" if side in measured.peak_fraction else EMPTY_CELL


def _shares(measured: Measured) -> str:
    return ", ".join(f"{kind} {100 * share:.0f}" for kind, share in measured.shares.items() if share >= SMALLEST_SHARE)


def _both(cell: Callable[[Measured, str], str]) -> Callable[[Measured, str], str]:
    return lambda measured, side: f"{cell(measured, OURS)} / {cell(measured, side)}"


Columns = Mapping[str, Callable[[Measured, str], str]]  # heading -> the cell for a measurement and the side that ours is compared with
Lines = Sequence[tuple[Measured, str]]
COLUMNS: Columns = {
    "row": lambda measured, side: measured.benchmark.name,
    "work": lambda measured, side: measured.benchmark.title,
    "precision": lambda measured, side: measured.precision.removeprefix("mixed_"),
    "ours": lambda measured, side: _value(measured, OURS),
    "against": lambda measured, side: side,
    "theirs": _value,
    "times faster": lambda measured, side: _spread(measured.ratio(side)),
    "to be reached": _target,
    "memory, MiB": _both(_memory),
    "of peak": _both(_fraction),
    "accuracy, %": _both(_accuracy),
}


PROFILE_COLUMNS: Columns = {
    "row": COLUMNS["row"],
    "precision": COLUMNS["precision"],
    "time of our step, %": lambda measured, side: _shares(measured),
    "of peak": lambda measured, side: _fraction(measured, OURS),
    "against": COLUMNS["against"],
    "times faster": COLUMNS["times faster"],
    "with a perfect rest": lambda measured, side: _number(measured.ratio_of_products(side)),
}
PROFILE_MEANING = (
    "Time of our step: of its operations, as TensorFlow's profiler times them after the rounds; kinds below "
    f"{100 * SMALLEST_SHARE:.0f} % are left out. With a perfect rest: how many times faster ours would be if the step consisted of its "
    "convolutions and matrix products alone."
)
MEANING = (
    "Medians [least, largest] of rounds in which the sides take turns in one process; a ratio is that of the same round. "
    "Memory: the most that the process grew while a side was prepared or at work, pages of files left out, sampled every 10 ms; "
    "ours / theirs. Precision: of ours; plain scripts have float32. Targets depend on it. "
    "Of peak: multiply-adds a second, as a fraction of the library's product of matrices in the same precision; a training step counts "
    "as three forward passes, less one of the first stage. Accuracy: on the test images, of whole jobs with no epoch scaled, whose "
    "networks begin with other random weights on each side."
)


def notes(results: Results) -> list[str]:
    """Return the notes under the table: the meaning of the numbers, their origin, and the rows that were not run."""
    machine = results.machine
    peaks = [f"{library} {dtype} {2e-9 * rate:,.0f}" for library, rates in machine["peaks"].items() for dtype, rate in rates.items()]
    whole = [f"{side} {seconds:.1f} s" for side, seconds in machine["import_seconds"].items()]
    skipped = dict.fromkeys(f"{side}: {reason}" for measured in results.measurements for side, reason in measured.skipped.items())
    return [
        MEANING,
        *([PROFILE_MEANING] if results.profiles() else []),
        f"{machine['device']}, {machine['cpu']}; {', '.join(f'{name} {version}' for name, version in machine['versions'].items())}; "
        f"torch threads {machine['torch_threads']}; {results.date}.",
        f"Products of matrices of side {machine['matrix_size']}, in 10^9 operations a second: {', '.join(peaks)}.",
        f"Images: {results.images}; weights: random; those of the row of views: embedded. Speed depends on neither.",
        f"Whole jobs include the imports of a fresh process: {', '.join(whole)}."
        if whole
        else "Imports are not in the seconds of whole jobs.",
        *(f"Not run: {text}." for text in skipped),
    ]


def summary(measured: Measured) -> str:
    """Return one line for a finished benchmark."""
    ratios = [f"{_spread(measured.ratio(side))} x {side}" for side in measured.sides if side != OURS and OURS in measured.sides]
    return ", ".join([*ratios, *(f"{side} not run: {reason}" for side, reason in measured.skipped.items())])


def print_table(results: Results) -> None:
    """Print the table and its notes to standard output."""
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH, highlight=False, markup=False)
    console.print(_terminal_table(f"benchmarks, profile {results.profile}", COLUMNS, results.lines()))
    if results.profiles():
        console.print(_terminal_table("where the time of a step goes", PROFILE_COLUMNS, results.profiles()))
    console.print("\n".join(notes(results)))


def _terminal_table(title: str, columns: Columns, lines: Lines) -> Table:
    shown = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in columns:
        shown.add_column(heading, overflow="fold")
    for line in lines:
        shown.add_row(*(cell(*line) for cell in columns.values()))
    return shown


def markdown(results: Results) -> str:
    """Return the tables and their notes as Markdown."""
    parts = [f"# Benchmarks, profile {results.profile}", _markdown_table(COLUMNS, results.lines())]
    if results.profiles():
        parts += ["## Where the time of a step goes", _markdown_table(PROFILE_COLUMNS, results.profiles())]
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes(results))]) + "\n"


def _markdown_table(columns: Columns, lines: Lines) -> str:
    rows = [list(columns), ["---"] * len(columns), *([cell(*line) for cell in columns.values()] for line in lines)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def record(results: Results) -> dict[str, Any]:
    """Return all values as JSON-able data: seconds of every round, bytes, ratios with their targets."""
    return {
        **{name: getattr(results, name) for name in ("profile", "date", "machine", "images")},
        "rows": [_record(measured) for measured in results.measurements],
    }


def _record(measured: Measured) -> dict[str, Any]:
    benchmark = measured.benchmark
    others = [side for side in measured.sides if side != OURS]
    return {
        "name": benchmark.name,
        "title": benchmark.title,
        "work": asdict(benchmark.work),
        "images_per_sample": benchmark.num_images,
        "includes_imports": benchmark.whole_command,
        "precision": measured.precision,
        "shares": dict(measured.shares),
        "sides": {side: asdict(found) | {"peak_share": measured.peak_fraction.get(side)} for side, found in measured.sides.items()},
        "ratios": {side: asdict(measured.ratio(side)) | {"target": measured.target(side)} for side in others},
        "skipped": dict(measured.skipped),
    }


def write(results: Results, directory: Path) -> list[Path]:
    """Write `<processor>-<profile>.md` and `.json` to `directory`. Return the two paths."""
    directory.mkdir(parents=True, exist_ok=True)
    machine = re.sub(r"[^a-z0-9]+", "-", results.machine["cpu"].lower()).strip("-")
    files = {".md": markdown(results), ".json": json.dumps(record(results), indent=1) + "\n"}
    paths = [directory / f"{machine}-{results.profile}{ending}" for ending in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.write_text(text)
    return paths
