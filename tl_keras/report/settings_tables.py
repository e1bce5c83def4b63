"""Section of a page: the settings of an experiment with their origins, first those of most rows, then what each row changes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tl_keras.report.document import Block, Bullets, Heading, Paragraph, Table
from tl_keras.report.experiment_results import ExperimentResults, Run, TableRow
from tl_keras.report.text import EMPTY_CELL, row_label
from tl_keras.results.experiment_file import ORIGINS
from tl_keras.utils.text import to_one_line

HEADINGS = ("setting", "value", "origin")
EXPLANATION = (
    "In brackets: the value in effect, if the setting leaves it to the weights, the backbone, the data set or the device. Settings that "
    "are not listed have their defaults."
)
ORIGINS_TEXT = "The origin of a setting is one of these:"
Cells = tuple[str, str]  # value and origin
NO_CELLS = (EMPTY_CELL, EMPTY_CELL)
EMPTY_TEXT = "(empty)"
# Setting that may leave its value to something else -> the value in effect in a run.
IN_EFFECT: Mapping[str, Callable[[Run], Any]] = {
    "image_size": lambda run: run.result["model"]["image_size"],
    "crop_fraction": lambda run: round(run.result["model"]["crop_fraction"], 4),
    "interpolation": lambda run: run.result["model"]["interpolation"],
    "normalization": lambda run: run.result["model"]["normalization"],
    "precision": lambda run: run.result["runtime"]["precision"],
}


def settings_blocks(results: ExperimentResults, level: int) -> list[Block]:
    """Return a table of the settings that more than half of the rows have, and a table of what the other rows have instead."""
    rows = [_cells(row) for row in results.rows]
    common = _common(rows)
    meanings = [f"{origin}: {meaning}" for origin, meaning in ORIGINS.items()]
    origins: list[Block] = [Paragraph(ORIGINS_TEXT), Bullets(meanings)] if results.has_source else []
    blocks: list[Block] = [
        Heading(level, "Settings"),
        Paragraph(EXPLANATION),
        *origins,
        _table(HEADINGS, [(to_one_line(name), *cells) for name, cells in common.items()], results),
    ]
    changes = [_changes(row_label(results, row), cells, common) for row, cells in zip(results.rows, rows, strict=True)]
    if any(cells != common for cells in rows):
        blocks += [
            Paragraph(f"Settings of each row, where they differ from the table above. {EMPTY_CELL}: none does."),
            _table(("row", *HEADINGS), [line for lines in changes for line in lines], results),
        ]
    return blocks


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], results: ExperimentResults) -> Table:
    """Return a table whose last column, the origins, is left out if there is no source report."""
    end = None if results.has_source else -1
    return Table(headings[:end], [row[:end] for row in rows], is_text=True, is_sortable=headings is HEADINGS)


def _cells(row: TableRow) -> dict[str, Cells]:
    """Return setting -> its value, with the value in effect if that is another one, and its origin."""
    return {name: (_value(row.runs[0], name, value), origin) for name, (value, origin) in row.settings.items()}


def _value(run: Run, name: str, value: Any) -> str:
    effective = IN_EFFECT[name](run) if name in IN_EFFECT else value
    text = to_one_line(value) or EMPTY_TEXT
    return text if effective == value else f"{text} ({to_one_line(effective)})"


def _common(rows: Sequence[Mapping[str, Cells]]) -> dict[str, Cells]:
    """Return the settings whose value and origin more than half of the rows share."""
    names = dict.fromkeys(name for cells in rows for name in cells)
    counts = {name: Counter(cells.get(name, NO_CELLS) for cells in rows).most_common(1)[0] for name in names}
    return {name: cells for name, (cells, count) in counts.items() if 2 * count > len(rows)}


def _changes(label: str, cells: Mapping[str, Cells], common: Mapping[str, Cells]) -> list[Sequence[str]]:
    """Return a line for each setting that differs from `common`; the first has the label of the row."""
    changed = [name for name in dict.fromkeys([*cells, *common]) if cells.get(name, NO_CELLS) != common.get(name)]
    lines = [(to_one_line(name), *cells.get(name, NO_CELLS)) for name in changed] or [(EMPTY_CELL, *NO_CELLS)]
    return [("" if index else label, *line) for index, line in enumerate(lines)]
