"""The report of an experiment: tables, plots, and the details needed to judge and repeat it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tl_keras.report import plots
from tl_keras.report.document import Block, Bullets, Caveat, Code, Heading, Image, Paragraph, Table, to_html, to_markdown
from tl_keras.report.experiment_results import PARAMETERS, ExperimentResults, Run
from tl_keras.report.sections import best_row_blocks, calibration_blocks, comparison_blocks, reference_blocks
from tl_keras.report.settings_tables import settings_blocks
from tl_keras.report.tables import COLUMNS, FURTHER_COLUMNS, make_table, results_csv, table_caption
from tl_keras.report.text import EMPTY_CELL, device_name, format_duration, join_unique, pending_note, row_label
from tl_keras.results.metrics import NUM_BINS
from tl_keras.utils.files import write_text
from tl_keras.utils.text import join_names, to_one_line

PAGE, WEB_PAGE, RUNS_TABLE = "report.md", "report.html", "results.csv"
MAX_CLASS_NAMES = 120


def write_report(results: ExperimentResults, directory: Path, *, refresh_seconds: int = 0) -> list[Path]:
    """Write the plots, `results.csv`, `report.md` and `report.html` to `directory`. The same results give identical files.

    An experiment without a finished run gets pages that name the runs to come, and nothing else.

    Args:
        refresh_seconds: seconds after which a browser loads `report.html` again, for an experiment that runs; 0: never.

    Returns:
        The files, the pages first.

    Raises:
        DamagedError: The predictions of a run are absent or damaged.
        UserError: A file cannot be written.
    """
    if not results.rows:
        return write_pages(_introduction(results, 1), directory, refresh_seconds=refresh_seconds)
    plot_files = plots.write_plots(results, directory)
    write_text(directory / RUNS_TABLE, results_csv(results))
    blocks = [*experiment_blocks(results, Path(), {path.name for path in plot_files}), *_details(results)]
    return [*write_pages(blocks, directory, refresh_seconds=refresh_seconds), directory / RUNS_TABLE, *plot_files]


def write_pages(blocks: list[Block], directory: Path, *, refresh_seconds: int = 0) -> list[Path]:
    """Write `report.md` and `report.html` to `directory` and return their paths."""
    write_text(directory / PAGE, to_markdown(blocks, directory))
    write_text(directory / WEB_PAGE, to_html(blocks, directory, refresh_seconds=refresh_seconds))
    return [directory / PAGE, directory / WEB_PAGE]


def experiment_blocks(results: ExperimentResults, plot_dir: Path, plot_files: set[str], level: int = 1) -> list[Block]:
    """Return the results of an experiment: the part of its report that the combined report repeats.

    Args:
        plot_dir: directory of the plots, relative to that of the page.
        plot_files: names of the plots that exist.
        level: level of the heading.
    """
    if not results.rows:
        return _introduction(results, level)
    return [
        *_introduction(results, level),
        make_table(results, COLUMNS),
        Paragraph(table_caption(results)),
        make_table(results, FURTHER_COLUMNS),
        *reference_blocks(results, level + 1),
        *_images(plots.ROW_PLOTS, plot_dir, plot_files),
        *comparison_blocks(results, level + 1),
        *calibration_blocks(results, level + 1),
        *best_row_blocks(results, level + 1),
        *_images(plots.BEST_ROW_PLOTS, plot_dir, plot_files),
    ]


def _introduction(results: ExperimentResults, level: int) -> list[Block]:
    """Return what is known before the first run is finished."""
    return [
        Heading(level, results.title),
        *([Caveat(results.caveat)] if results.caveat else []),
        *([Paragraph(f"{note}.")] if (note := pending_note(results)) else []),
        Paragraph(results.question),
        Code(results.command),
    ]


def _images(candidates: Iterable[plots.Plot], plot_dir: Path, plot_files: set[str]) -> list[Block]:
    return [Image(plot_dir / plot.file, plot.caption) for plot in candidates if plot.file in plot_files]


def _details(results: ExperimentResults) -> list[Block]:
    """Return the details needed to judge and repeat the experiment."""
    return [
        Heading(2, "How to read this report"),
        Bullets(_how_to_read(results)),
        *settings_blocks(results, 2),
        Heading(2, "Runtime"),
        Bullets(_runtime(results)),
        Heading(2, "Runs"),
        _runs(results),
        Heading(2, "Notes"),
        Bullets(_notes(results)),
    ]


def _how_to_read(results: ExperimentResults) -> list[str]:
    rules = join_unique(run.result["selection"]["rule"] for run in results.runs)
    lines = [
        "The test split was evaluated once per run, after training. Every image counts once.",
        f"Tested epoch: {rules}. Best is the epoch with the best result on the validation split; last is the last epoch of training.",
        "A validation split, if there is one, is held out of the training split. No choice during training depends on the test split.",
        "Published values are those of the source report. It gives neither seeds nor intervals.",
        "Balanced accuracy: mean recall over the classes with test images.",
        f"Calibration error: expected calibration error with {NUM_BINS} bins of confidence (Guo et al. 2017).",
        "Times depend on the hardware, which differs from the source report's. Therefore no difference is given.",
    ]
    if any(PARAMETERS in row.published for row in results.rows):
        lines.append("Published numbers of parameters are rounded, and may include a head for 1,000 classes. No difference is given.")
    if results.caveat:
        return [f"{results.caveat}. Published values are in brackets, without a difference.", *lines]
    return [*lines, "Difference: our value minus the published one. A difference within the interval is not significant."]


def _runtime(results: ExperimentResults) -> list[str]:
    """Return the hardware, precision and package versions; several values if runs differ."""
    runtimes = [run.result["runtime"] for run in results.runs]
    versions = [runtime["versions"] for runtime in runtimes]
    packages = dict.fromkeys(name for found in versions for name in found)
    lines = [
        f"device: {join_unique(device_name(run) for run in results.runs)}",
        *(f"{name}: {join_unique(runtime[name] for runtime in runtimes)}" for name in ("precision", "xla", "replicas")),
        *(f"{name}: {join_unique(found.get(name, EMPTY_CELL) for found in versions)}" for name in packages),
    ]
    revisions = join_unique(runtime["git_revision"] for runtime in runtimes if runtime["git_revision"])
    return [*lines, f"source revision: {revisions}"] if revisions else lines


def _runs(results: ExperimentResults) -> Table:
    """Return a table with one line per run."""
    headings = ["row", "seed", "test accuracy (%)", "validation accuracy (%)", "tested epoch", "training time", "directory"]
    return Table(headings, [[row_label(results, row), *_run(run)] for row in results.rows for run in row.runs])


def _run(run: Run) -> list[str]:
    validation = run.result["metrics"]["validation"].get("accuracy")
    shown = EMPTY_CELL if validation is None else f"{100 * validation:.2f}"
    epochs = f"{run.result['selection']['epoch']} of {run.num_epochs}"
    return [str(run.seed), f"{100 * run.test['accuracy']:.2f}", shown, epochs, format_duration(run.result["seconds"]["train"]), run.name]


def _notes(results: ExperimentResults) -> list[str]:
    data = [run.result["data"] for run in results.runs]
    notes = dict.fromkeys(str(note) for part in data for note in part["notes"])
    classes = dict.fromkeys(join_names(part["class_names"], MAX_CLASS_NAMES) for part in data)
    weights = dict.fromkeys(_weights(run.result["model"]) for run in results.runs)
    fingerprints = join_unique(part["fingerprint"] for part in data)
    return [*weights, f"Fingerprint of the data: {fingerprints}", *(f"Classes: {names}" for names in classes), *notes]


def _weights(model: Mapping[str, Any]) -> str:
    """Return the origin of the model's weights, e.g. the file, and which variables it does not have."""
    info = "; ".join(f"{name}: {_describe(value)}" for name, value in model["loading_info"].items() if value)
    return f"Weights of {to_one_line(model['backbone'])}: {info or model['weights']}"


def _describe(value: Any) -> str:
    """Return a value of `loading_info` as text, e.g. `logits/kernel (not in the file)` for an entry of a mapping."""
    return ", ".join(f"{name} ({text})" for name, text in value.items()) if isinstance(value, Mapping) else str(value)
