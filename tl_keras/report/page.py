"""The report of an experiment: tables, plots, and the details needed to judge and repeat it."""

from collections.abc import Iterable
from pathlib import Path

from tl_keras.report import plots
from tl_keras.report.best_row import best_row_blocks, misclassified_blocks
from tl_keras.report.data_notes import data_blocks
from tl_keras.report.document import Block, Bullets, Caveat, Code, Heading, Image, Paragraph, to_markdown
from tl_keras.report.experiment_results import PARAMETERS, ExperimentResults
from tl_keras.report.provenance import provenance_blocks
from tl_keras.report.sections import calibration_blocks, comparison_blocks, reference_blocks
from tl_keras.report.settings_tables import settings_blocks
from tl_keras.report.tables import COLUMNS, FURTHER_COLUMNS, make_table, results_csv, table_caption
from tl_keras.report.text import join_unique, pending_note
from tl_keras.report.web_page import to_html
from tl_keras.results.metrics import NUM_BINS
from tl_keras.utils.files import write_text

PAGE, WEB_PAGE, RUNS_TABLE = "report.md", "report.html", "results.csv"


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
    blocks = [
        *experiment_blocks(results, Path(), {path.name for path in plot_files}),
        *misclassified_blocks(results, 2),
        *_details(results),
    ]
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
        *data_blocks(results, 2),
        *settings_blocks(results, 2),
        *provenance_blocks(results, 2),
    ]


def _how_to_read(results: ExperimentResults) -> list[str]:
    rules = join_unique(run.result["selection"]["rule"] for run in results.runs)
    lines = [
        "The test split was evaluated once per run, after training. Every image counts once.",
        f"Tested epoch: {rules}. Best is the epoch with the best result on the validation split; last is the last epoch of training.",
        "A validation split, if there is one, is held out of the training split. No choice during training depends on the test split.",
        "Balanced accuracy: mean recall over the classes with test images.",
        f"Calibration error: expected calibration error with {NUM_BINS} bins of confidence (Guo et al. 2017).",
    ]
    if not results.has_source:
        return [*lines, "Times depend on the hardware."]
    lines += [
        "Published values are those of the source report. It gives neither seeds nor intervals.",
        "Times depend on the hardware, which differs from the source report's. Therefore no difference is given.",
    ]
    if any(PARAMETERS in row.published for row in results.rows):
        lines.append("Published numbers of parameters are rounded, and may include a head for 1,000 classes. No difference is given.")
    if results.caveat:
        return [f"{results.caveat}. Published values are in brackets, without a difference.", *lines]
    return [*lines, "Difference: our value minus the published one. A difference within the interval is not significant."]
