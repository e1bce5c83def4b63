"""Section on the data: classes, remarks of the runs, and the findings of an inspection before training."""

import re
from collections.abc import Sequence

from tl_keras.report.document import Block, Bullets, Gallery, Heading, Paragraph, Picture, Table
from tl_keras.report.experiment_results import ExperimentResults
from tl_keras.results.inspection_record import Inspection, SuspectedLabel, read_inspection
from tl_keras.utils.text import join_names, to_one_line

MAX_CLASS_NAMES = 120
MAX_SUSPECTS, MAX_LISTED = 24, 20
SKIPPED_NOTE = re.compile(r"skipped \d+ unreadable files:")  # of a run
SUSPECTS_TEXT = "The other images contradict these labels. Nothing was changed: look at them, and correct the folder where it is wrong."
NEAR_DUPLICATES_TEXT = (
    "Images in different splits that look alike, by the cosine of their features. A model that has seen one of a pair in training finds "
    "the other one easy, so scores may be too high."
)


def data_blocks(results: ExperimentResults, level: int) -> list[Block]:
    """Return the names of the classes, the remarks of the runs, and the findings of the first inspection beside a run.

    The findings list more of the skipped files than the remarks, so these do not list them too.

    Raises:
        DamagedError: The file of an inspection is damaged.
    """
    data = [run.result["data"] for run in results.runs]
    notes = dict.fromkeys(to_one_line(note) for part in data for note in part["notes"])
    classes = dict.fromkeys(join_names(map(to_one_line, part["class_names"]), MAX_CLASS_NAMES) for part in data)
    found = next(filter(None, (read_inspection(run.path) for run in results.runs)), Inspection())
    remarks = [note for note in notes if not (found.corrupt and SKIPPED_NOTE.match(note))]
    lines = [*(f"Classes: {names}" for names in classes), *remarks, *_lines(found.notes)]
    return [Heading(level, "Data"), Bullets(lines), *_inspection_blocks(found, level + 1)]


def _inspection_blocks(found: Inspection, level: int) -> list[Block]:
    """Return the findings of which there are some; each kind has a heading."""
    blocks: list[Block] = []
    if found.suspected_labels:
        shown = found.suspected_labels[:MAX_SUSPECTS]
        title = f"Suspected labels: {len(found.suspected_labels):,}"
        blocks += [Heading(level, title), Paragraph(SUSPECTS_TEXT), Gallery(list(map(_suspect, shown)))]
        blocks += _more(found.suspected_labels, MAX_SUSPECTS)
    if found.near_duplicates:
        pairs = [[to_one_line(first), to_one_line(second), f"{cosine:.3f}"] for first, second, cosine in found.near_duplicates[:MAX_LISTED]]
        blocks += [Heading(level, f"Near duplicates in different splits: {len(found.near_duplicates):,} pairs")]
        blocks += [Paragraph(NEAR_DUPLICATES_TEXT), Table(("image", "other image", "cosine"), pairs, is_text=True)]
        blocks += _more(found.near_duplicates, MAX_LISTED)
    if found.copies:
        lines = _lines([" = ".join(files) for files in found.copies])
        blocks += [Heading(level, f"Copies: {len(found.copies):,} images are there more than once"), Bullets(lines)]
    if found.corrupt:
        lines = _lines([f"{file}: {reason}" for file, reason in found.corrupt])
        blocks += [Heading(level, f"Skipped files, which cannot be read: {len(found.corrupt):,}"), Bullets(lines)]
    return blocks


def _suspect(suspect: SuspectedLabel) -> Picture:
    label, suggested, file = map(to_one_line, (suspect.label, suspect.suggested, suspect.file))
    lines = [f"{label}, or {suggested}?", f"{100 * suspect.confidence:.1f} % for {suggested}", file]
    return Picture(suspect.thumbnail, f"labelled {label}, looks like {suggested}", lines)


def _lines(lines: Sequence[str]) -> list[str]:
    """Return the first lines, and a last one with the number of the others."""
    hidden = len(lines) - MAX_LISTED
    return [*map(to_one_line, lines[:MAX_LISTED]), *([f"and {hidden:,} more"] if hidden > 0 else [])]


def _more(found: Sequence[object], shown: int) -> list[Block]:
    return [Paragraph(f"And {len(found) - shown:,} more.")] if len(found) > shown else []
