"""The report of an experiment: tables, figures, and all that is needed to judge and repeat it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tl_keras.report import plots
from tl_keras.report.document import Block, Bullets, Code, Heading, Image, Mark, Paragraph, Table, to_html, to_markdown
from tl_keras.report.experiment_results import ExperimentResults, Run
from tl_keras.report.sections import best_row_blocks, comparison_blocks
from tl_keras.report.tables import COLUMNS, FURTHER_COLUMNS, caption, results_csv, table
from tl_keras.report.text import NOTHING, device, duration, label, listed, plain
from tl_keras.utils.files import write_text

PAGE, WEB_PAGE, RUNS_TABLE = "report.md", "report.html", "results.csv"


def write_report(results: ExperimentResults, directory: Path) -> list[Path]:
    """Write the figures, `results.csv`, `report.md` and `report.html` to `directory`; the same results give the same files.

    Returns:
        The files, the pages first.

    Raises:
        DamagedError: predictions of a run are absent or damaged.
        UserError: a file cannot be written.
    """
    drawn = plots.draw_all(results, directory)
    write_text(directory / RUNS_TABLE, results_csv(results))
    blocks = [*experiment_blocks(results, Path(), {path.name for path in drawn}), *_details(results)]
    return [*write_pages(blocks, directory), directory / RUNS_TABLE, *drawn]


def write_pages(blocks: list[Block], directory: Path) -> list[Path]:
    """Write `report.md` and `report.html`."""
    write_text(directory / PAGE, to_markdown(blocks, directory))
    write_text(directory / WEB_PAGE, to_html(blocks, directory))
    return [directory / PAGE, directory / WEB_PAGE]


def experiment_blocks(results: ExperimentResults, place: Path, drawn: set[str], level: int = 1) -> list[Block]:
    """What an experiment found: the part of its report that the joint one repeats.

    Args:
        place: the directory of the figures, relative to that of the page.
        drawn: files of the figures that there are.
        level: of the heading.
    """
    return [
        Heading(level, results.title),
        *([Mark(results.mark)] if results.mark else []),
        Paragraph(results.question),
        Code(results.command),
        table(results, COLUMNS),
        Paragraph(caption(results)),
        table(results, FURTHER_COLUMNS),
        *_images(plots.OF_ROWS, place, drawn),
        *comparison_blocks(results, level + 1),
        *best_row_blocks(results, level + 1),
        *_images(plots.OF_BEST_ROW, place, drawn),
    ]


def _images(drawings: Iterable[plots.Drawing], place: Path, drawn: set[str]) -> list[Block]:
    return [Image(place / drawing.file, drawing.caption) for drawing in drawings if drawing.file in drawn]


def _details(results: ExperimentResults) -> list[Block]:
    """What is needed to judge and repeat it."""
    return [
        Heading(2, "How to read it"),
        Bullets(_how_to_read(results)),
        Heading(2, "Settings"),
        Bullets(_settings(results)),
        Heading(2, "Runtime"),
        Bullets(_runtime(results)),
        Heading(2, "Runs"),
        _runs(results),
        Heading(2, "Notes"),
        Bullets(_notes(results)),
    ]


def _how_to_read(results: ExperimentResults) -> list[str]:
    rules = listed(run.result["selection"]["rule"] for run in results.runs)
    lines = [
        "The test split was scored once a run, after training; every image counts once.",
        f"Tested epoch: {rules}. The best is the best on the validation split, the last is the last one whatever it scored.",
        "The validation split, where there is one, is held out of the train split; the test split had no part in any choice.",
        "Reported figures are those of the report that the experiment repeats; its seeds and intervals are not known.",
        "Balanced accuracy: the mean over the classes of the share of their images that was recognised.",
        "Calibration error: how far confidence and accuracy are apart, on average over 15 bins of confidence (Guo et al. 2017).",
        "Times are of this machine; the reported ones are of others, so no difference is given.",
    ]
    if results.mark:
        return [f"{results.mark}. They stand in brackets, without a difference.", *lines]
    return [*lines, "Difference: ours less the reported one. One that lies within the interval says nothing."]


def _settings(results: ExperimentResults) -> list[str]:
    """The settings that all runs share, then those in which they differ."""
    configs = [run.result["config"] for run in results.runs]
    values = {name: [config.get(name, NOTHING) for config in configs] for name in configs[0]}
    shared = {name: found[0] for name, found in values.items() if all(value == found[0] for value in found)}
    lines = [f"{name}: {value}" for name, value in shared.items() if value != ""]
    return lines + [f"{name}: {listed(found)} (differs by run)" for name, found in values.items() if name not in shared]


def _runtime(results: ExperimentResults) -> list[str]:
    """What the runs ran on; several values where runs differ."""
    runtimes = [run.result["runtime"] for run in results.runs]
    versions = [runtime["versions"] for runtime in runtimes]
    packages = dict.fromkeys(name for found in versions for name in found)
    lines = [
        f"device: {listed(device(run) for run in results.runs)}",
        *(f"{name}: {listed(runtime[name] for runtime in runtimes)}" for name in ("precision", "xla", "replicas")),
        *(f"{name}: {listed(found.get(name, NOTHING) for found in versions)}" for name in packages),
    ]
    revisions = listed(runtime["git_revision"] for runtime in runtimes if runtime["git_revision"])
    return [*lines, f"source revision: {revisions}"] if revisions else lines


def _runs(results: ExperimentResults) -> Table:
    headings = ["row", "seed", "test accuracy (%)", "validation accuracy (%)", "tested epoch", "training time", "directory"]
    return Table(headings, [[label(results, row), *_run(run)] for row in results.rows for run in row.runs])


def _run(run: Run) -> list[str]:
    validation = run.result["metrics"]["validation"].get("accuracy")
    shown = NOTHING if validation is None else f"{100 * validation:.2f}"
    epochs = f"{run.result['selection']['epoch']} of {run.num_epochs}"
    return [str(run.seed), f"{100 * run.test['accuracy']:.2f}", shown, epochs, duration(run.result["seconds"]["train"]), run.name]


def _notes(results: ExperimentResults) -> list[str]:
    data = [run.result["data"] for run in results.runs]
    notes = dict.fromkeys(str(note) for part in data for note in part["notes"])
    classes = dict.fromkeys(", ".join(part["class_names"]) for part in data)
    accounts = dict.fromkeys(_weights(run.result["model"]) for run in results.runs)
    fingerprints = listed(part["fingerprint"] for part in data)
    return [*accounts, f"Fingerprint of the data: {fingerprints}", *(f"Classes: {names}" for names in classes), *notes]


def _weights(model: dict[str, Any]) -> str:
    account = "; ".join(f"{name}: {value}" for name, value in model["loading_info"].items())
    return f"Weights of {plain(model['backbone'])}: {account or model['weights']}"
