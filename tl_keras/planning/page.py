"""The report of a single run: the pages of an experiment of one row."""

from pathlib import Path

from tl_keras.config import SETTINGS
from tl_keras.report import ExperimentResults, TableRow, write_report
from tl_keras.report import Run as FinishedRun
from tl_keras.results.experiment_file import CHOSEN
from tl_keras.results.run_directory import load_result, read_history
from tl_keras.utils.text import to_one_line

DIRECTORY = "report"


def write_run_report(run_dir: Path, title: str, question: str, command: str) -> list[Path]:
    """Write the report of the finished run in `run_dir` to its directory `report`, and return the files, the pages first.

    Args:
        title, question, command: headline, question and command line of the report.
    """
    result = load_result(run_dir)
    label = to_one_line(result["name"])
    row = TableRow(
        label=label,
        line=label,
        train_fraction=None,
        published={},
        published_curve={},
        settings={name: (value, CHOSEN) for name, value in result["config"].items() if value != SETTINGS[name].default},
        fallbacks=(),
        runs=(FinishedRun(run_dir, result, read_history(run_dir)),),
    )
    embedded = result["data"]["embedded"]
    return write_report(ExperimentResults("fit", title, question, command, embedded, (row,)), run_dir / DIRECTORY)
