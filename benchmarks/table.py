"""The measured rows as one table: for the terminal, as Markdown, and as JSON."""

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
from benchmarks.rows import OURS

LOG_WIDTH = 180
NOTHING = "-"


@dataclass(frozen=True)
class Report:
    """All that was measured at once.

    Attributes:
        machine: see `machine.describe`; and `import_seconds`, side -> seconds that whole jobs include.
        images: where they are from.
    """

    profile: str
    date: str
    machine: Mapping[str, Any]
    images: str
    rows: Sequence[Measured]

    def lines(self) -> list[tuple[Measured, str]]:
        """Every row with every side that ours was held against."""
        return [(measured, side) for measured in self.rows for side in measured.sides if side != OURS and OURS in measured.sides]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(figure: Spread) -> str:
    """Median [least, largest], without the brackets where there was one round."""
    return _number(figure.median) + (f" [{_number(figure.low)}, {_number(figure.high)}]" if figure.low < figure.high else "")


def _figure(measured: Measured, side: str) -> str:
    return f"{_spread(measured.figure(side))} {'images/s' if measured.row.num_images else 's'}"


def _target(measured: Measured, side: str) -> str:
    row, least = measured.row, measured.row.targets.get(side)
    ratio = [f"{least:.3g} {_reached(measured.ratio(side).median >= least)}"] if least else []
    limit = [f"in {row.seconds:.3g} s {_reached(measured.figure(OURS).median <= row.seconds)}"] if row.seconds else []
    return ", ".join(ratio + limit) or NOTHING


def _reached(holds: bool) -> str:
    return "reached" if holds else "MISSED"


def _accuracy(measured: Measured, side: str) -> str:
    found = measured.accuracy(side)
    return _spread(found) if found else NOTHING


def _memory(measured: Measured, side: str) -> str:
    num_bytes = measured.sides[side].num_bytes
    return f"{num_bytes / 2**20:,.0f}" if num_bytes else NOTHING


def _share(measured: Measured, side: str) -> str:
    return f"{100 * measured.peak_share[side]:.0f} %" if side in measured.peak_share else NOTHING


def _both(cell: Callable[[Measured, str], str]) -> Callable[[Measured, str], str]:
    return lambda measured, side: f"{cell(measured, OURS)} / {cell(measured, side)}"


# Heading -> the cell of a row and the side that ours is held against.
COLUMNS: Mapping[str, Callable[[Measured, str], str]] = {
    "row": lambda measured, side: measured.row.name,
    "work": lambda measured, side: measured.row.title,
    "ours": lambda measured, side: _figure(measured, OURS),
    "against": lambda measured, side: side,
    "theirs": _figure,
    "times faster": lambda measured, side: _spread(measured.ratio(side)),
    "to be reached": _target,
    "memory, MiB": _both(_memory),
    "of peak": _both(_share),
    "accuracy, %": _both(_accuracy),
}

MEANING = (
    "Medians [least, largest] of rounds in which the sides take turns in one process; a ratio is that of the same round. "
    "Memory: the most that the process grew while a side was prepared or at work, pages of files left out, sampled every 10 ms; "
    "ours / theirs. "
    "Of peak: multiply-adds a second, as a share of the library's product of matrices in the same precision; a training step counts "
    "as three forward passes, less one of the first stage. Accuracy: on the test images, of whole jobs with no epoch scaled, whose "
    "networks begin with other random weights on each side."
)


def notes(report: Report) -> list[str]:
    """Return the notes under the table: the meaning of the numbers, their origin, and the rows that were not run."""
    machine = report.machine
    peaks = [f"{library} {dtype} {2e-9 * rate:,.0f}" for library, rates in machine["peaks"].items() for dtype, rate in rates.items()]
    whole = [f"{side} {seconds:.1f} s" for side, seconds in machine["import_seconds"].items()]
    skipped = dict.fromkeys(f"{side}: {reason}" for measured in report.rows for side, reason in measured.skipped.items())
    return [
        MEANING,
        f"{machine['device']}, {machine['cpu']}; {', '.join(f'{name} {version}' for name, version in machine['versions'].items())}; "
        f"torch threads {machine['torch_threads']}; {report.date}.",
        f"Products of matrices of side {machine['matrix_size']}, in 10^9 operations a second: {', '.join(peaks)}.",
        f"Images: {report.images}; weights: random; those of the row of views: embedded. Speed depends on neither.",
        f"Whole jobs include the imports of a fresh process: {', '.join(whole)}."
        if whole
        else "Imports are not in the seconds of whole jobs.",
        *(f"Not run: {text}." for text in skipped),
    ]


def summary(measured: Measured) -> str:
    """One line for a row that is done."""
    ratios = [f"{_spread(measured.ratio(side))} x {side}" for side in measured.sides if side != OURS and OURS in measured.sides]
    return ", ".join([*ratios, *(f"{side} not run: {reason}" for side, reason in measured.skipped.items())])


def print_table(report: Report) -> None:
    """Print the table and its notes to standard output."""
    shown = Table(title=f"benchmarks, profile {report.profile}", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in COLUMNS:
        shown.add_column(heading, overflow="fold")
    for line in report.lines():
        shown.add_row(*(cell(*line) for cell in COLUMNS.values()))
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH, highlight=False, markup=False)
    console.print(shown)
    console.print("\n".join(notes(report)))


def markdown(report: Report) -> str:
    """The table and its notes."""
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *([cell(*line) for cell in COLUMNS.values()] for line in report.lines())]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return f"# Benchmarks, profile {report.profile}\n\n{table}\n\n" + "\n".join(f"- {note}" for note in notes(report)) + "\n"


def record(report: Report) -> dict[str, Any]:
    """All figures, for machines: seconds of every round, bytes, ratios with their targets."""
    return {
        **{name: getattr(report, name) for name in ("profile", "date", "machine", "images")},
        "rows": [_record(row) for row in report.rows],
    }


def _record(measured: Measured) -> dict[str, Any]:
    row = measured.row
    others = [side for side in measured.sides if side != OURS]
    return {
        "name": row.name,
        "title": row.title,
        "work": asdict(row.work),
        "images_per_sample": row.num_images,
        "includes_imports": row.whole_command,
        "sides": {side: asdict(found) | {"peak_share": measured.peak_share.get(side)} for side, found in measured.sides.items()},
        "ratios": {side: asdict(measured.ratio(side)) | {"target": row.targets.get(side)} for side in others},
        "skipped": dict(measured.skipped),
    }


def write(report: Report, directory: Path) -> list[Path]:
    """Write the table and its figures to `<processor>-<profile>.md` and `.json`; the two files."""
    directory.mkdir(parents=True, exist_ok=True)
    machine = re.sub(r"[^a-z0-9]+", "-", report.machine["cpu"].lower()).strip("-")
    files = {".md": markdown(report), ".json": json.dumps(record(report), indent=1) + "\n"}
    paths = [directory / f"{machine}-{report.profile}{ending}" for ending in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.write_text(text)
    return paths
