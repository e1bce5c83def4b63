"""Reads `experiment.json` and the results of its runs."""

from pathlib import Path

from tl_keras.report.experiment_results import ExperimentResults, Run, TableRow
from tl_keras.results.experiment_file import read_experiment_file
from tl_keras.results.run_directory import load_result, read_history


def load_experiment(path: Path) -> ExperimentResults:
    """Return the experiment whose `experiment.json` is `path`, with the results of the runs beside it.

    Raises:
        DamagedError: The file is absent or damaged, or names runs in other directories.
        ConfigError: A run is missing or unfinished, or a file was written by another version of the package.
    """
    record = read_experiment_file(path)
    rows = tuple(TableRow(**vars(row) | {"runs": tuple(_load_run(path.parent / name) for name in row.runs)}) for row in record.rows)
    return ExperimentResults(**vars(record) | {"rows": rows})


def _load_run(run_dir: Path) -> Run:
    return Run(run_dir, load_result(run_dir), read_history(run_dir))
