"""One report of all experiments of a directory: an overview, then what each of them found."""

from dataclasses import dataclass
from pathlib import Path

from tl_keras.errors import ConfigError, DamagedError, UserError
from tl_keras.report.document import Block, Heading, Mark, Paragraph, Table
from tl_keras.report.experiment_results import ExperimentResults
from tl_keras.report.load import EXPERIMENT_FILE, load_experiment
from tl_keras.report.page import PAGE, experiment_blocks, write_pages, write_report
from tl_keras.report.tables import COLUMNS, print_table
from tl_keras.report.text import NOTHING, label, plain

HEADINGS = ("experiment", "profile", "rows", "best row", "test accuracy (%)", "best reported row", "reported (%)", "remark")


@dataclass(frozen=True)
class _Part:
    """An experiment of the joint report: its directory, its results or why there are none."""

    directory: Path
    results: ExperimentResults | None
    error: str = ""


def write_reports(runs_dir: Path) -> list[Path]:
    """Write the report of every experiment in `runs_dir` anew, print its table, and join them in one report.

    `runs_dir` is the directory of an experiment, which is then all that is reported, or of several, in the order of their names.
    An experiment that cannot be reported is named in the joint report, and raised when all others are done.

    Returns:
        The pages, the joint ones last.

    Raises:
        ConfigError: there is no experiment.
        DamagedError: the report of an experiment could not be written.
    """
    if (runs_dir / EXPERIMENT_FILE).exists():
        return _write_one(load_experiment(runs_dir / EXPERIMENT_FILE), runs_dir)
    directories = sorted(path.parent for path in runs_dir.glob(f"*/{EXPERIMENT_FILE}"))
    if not directories:
        expected = f"expected {EXPERIMENT_FILE} in it or one directory below"
        raise ConfigError(f"{expected}. Run an experiment first, e.g. make exp-part-a.", setting="runs_dir", value=runs_dir)
    files, blocks, parts = [], [], []
    for directory in directories:
        part, pages, found = _part(directory)
        parts.append(part)
        files += pages
        blocks += found
    files += write_pages([Heading(1, "All experiments"), _overview(parts), *blocks], runs_dir)
    if broken := [part for part in parts if part.results is None]:
        reasons = "\n".join(f"{part.directory}: {part.error}" for part in broken)
        raise DamagedError(f"{files[-2]} joins {len(parts) - len(broken)} of {len(parts)} experiments. Not reported:\n{reasons}")
    return files


def _write_one(results: ExperimentResults, directory: Path) -> list[Path]:
    print_table(results)
    return write_report(results, directory)


def _part(directory: Path) -> tuple[_Part, list[Path], list[Block]]:
    """An experiment with its pages and its blocks of the joint one."""
    name = Path(directory.name)
    try:
        results = load_experiment(directory / EXPERIMENT_FILE)
        files = _write_one(results, directory)
        drawn = {path.name for path in files}
        blocks = experiment_blocks(results, name, drawn, level=2)
    except UserError as error:
        return _Part(directory, None, str(error)), [], [Heading(2, directory.name), Mark(f"Not reported: {error}")]
    details = Paragraph(f"Settings, runtime, runs and notes: {(name / PAGE).as_posix()}")
    return _Part(directory, results), files[:2], [*blocks, details]


def _overview(parts: list[_Part]) -> Table:
    return Table(HEADINGS, [_line(part) for part in parts])


def _line(part: _Part) -> list[str]:
    results = part.results
    if results is None:
        return [part.directory.name, *[NOTHING] * (len(HEADINGS) - 2), "not reported; see below"]
    best = results.best_row
    reported = [row for row in results.rows if row.reported_accuracy is not None]
    highest = max(reported, key=lambda row: row.reported_accuracy, default=None)
    theirs = [NOTHING, NOTHING] if highest is None else [plain(highest.label), COLUMNS["reported (%)"](results, highest)]
    num_stand_ins = sum(bool(row.stand_ins) for row in results.rows)
    remark = "; ".join(filter(None, [results.mark, f"{num_stand_ins} rows with stand-ins" if num_stand_ins else ""]))
    accuracy = COLUMNS["test accuracy (%)"](results, best)
    return [part.directory.name, results.profile, str(len(results.rows)), label(results, best), accuracy, *theirs, remark or NOTHING]
