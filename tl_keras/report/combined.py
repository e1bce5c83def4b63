"""One combined report of all experiments in a directory: an overview, then the results of each experiment."""

from dataclasses import dataclass, field
from pathlib import Path

from tl_keras.errors import ConfigError, DamagedError, UserError
from tl_keras.report.document import Block, Caveat, Heading, Paragraph, Table
from tl_keras.report.experiment_results import ACCURACY, ExperimentResults
from tl_keras.report.load import load_experiment
from tl_keras.report.page import PAGE, experiment_blocks, write_pages, write_report
from tl_keras.report.tables import COLUMNS, print_table
from tl_keras.report.text import EMPTY_CELL, pending_note, row_label
from tl_keras.results.experiment_file import EXPERIMENT_FILE
from tl_keras.utils.text import to_one_line

HEADINGS = ("experiment", "profile", "rows", "best row", "test accuracy (%)", "best published row", "published (%)", "remark")


@dataclass(frozen=True)
class _Experiment:
    """An experiment of the combined report.

    Attributes:
        results: None if its report could not be written.
        pages: files of its own report.
        blocks: its section of the combined report.
        error: reason why there are no results.
    """

    directory: Path
    results: ExperimentResults | None
    pages: list[Path] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    error: str = ""


def write_reports(runs_dir: Path) -> list[Path]:
    """Rewrite the report of every experiment in `runs_dir`, print its table, and combine them in one report.

    `runs_dir` is the directory of one experiment, and then only its report is written, or a directory of experiments. Experiments
    are sorted by directory name. One whose report fails is named in the combined report, and raised after all others are done.

    Returns:
        The pages, those of the combined report last.

    Raises:
        ConfigError: There is no experiment.
        DamagedError: The report of an experiment could not be written.
    """
    if (runs_dir / EXPERIMENT_FILE).exists():
        return _write_one(load_experiment(runs_dir / EXPERIMENT_FILE, allow_pending=True), runs_dir)
    directories = sorted(path.parent for path in runs_dir.glob(f"*/{EXPERIMENT_FILE}"))
    if not directories:
        expected = f"expected {EXPERIMENT_FILE} in it or one directory below"
        raise ConfigError(f"{expected}. Run an experiment first, e.g. make exp-part-a.", setting="runs_dir", value=runs_dir)
    experiments = [_try_write(directory) for directory in directories]
    overview = Table(HEADINGS, [_overview_cells(experiment) for experiment in experiments])
    sections = [block for experiment in experiments for block in experiment.blocks]
    combined = write_pages([Heading(1, "All experiments"), overview, *sections], runs_dir)
    if failed := [experiment for experiment in experiments if experiment.results is None]:
        reasons = "\n".join(f"{experiment.directory}: {experiment.error}" for experiment in failed)
        num_written = len(experiments) - len(failed)
        raise DamagedError(f"{combined[0]} combines {num_written} of {len(experiments)} experiments. Without a report:\n{reasons}")
    return [*(page for experiment in experiments for page in experiment.pages), *combined]


def _write_one(results: ExperimentResults, directory: Path) -> list[Path]:
    if results.rows:
        print_table(results)
    return write_report(results, directory)


def _try_write(directory: Path) -> _Experiment:
    """Write the report of one experiment; an error becomes its section of the combined report."""
    name = Path(directory.name)
    try:
        results = load_experiment(directory / EXPERIMENT_FILE, allow_pending=True)
        files = _write_one(results, directory)
        blocks = experiment_blocks(results, name, {path.name for path in files}, level=2)
    except UserError as error:
        blocks = [Heading(2, directory.name), Caveat(f"No report: {error}")]
        return _Experiment(directory, None, blocks=blocks, error=str(error))
    details = Paragraph(f"Settings, runtime, runs and notes: {(name / PAGE).as_posix()}")
    return _Experiment(directory, results, pages=files[:2], blocks=[*blocks, details])


def _overview_cells(experiment: _Experiment) -> list[str]:
    """Return the cells of an experiment's line in the overview."""
    name, results = experiment.directory.name, experiment.results
    if results is None:
        return [name, *[EMPTY_CELL] * (len(HEADINGS) - 2), "no report; see below"]
    if not results.rows:
        return [name, results.profile, *[EMPTY_CELL] * (len(HEADINGS) - 3), pending_note(results)]
    best = results.best_row
    accuracy = COLUMNS["test accuracy (%)"](results, best)
    num_fallbacks = sum(bool(row.fallbacks) for row in results.rows)
    remarks = [pending_note(results), results.caveat, f"rows with fallbacks: {num_fallbacks}" if num_fallbacks else ""]
    remark = "; ".join(filter(None, remarks)) or EMPTY_CELL
    return [name, results.profile, str(len(results.rows)), row_label(results, best), accuracy, *_best_published(results), remark]


def _best_published(results: ExperimentResults) -> list[str]:
    """Return the label and the accuracy of the row with the highest published accuracy."""
    rows = [row for row in results.rows if ACCURACY in row.published]
    if not rows:
        return [EMPTY_CELL, EMPTY_CELL]
    best = max(rows, key=lambda row: row.published[ACCURACY])
    return [to_one_line(best.label), COLUMNS["published (%)"](results, best)]
