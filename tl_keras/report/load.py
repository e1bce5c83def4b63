"""Reads `experiment.json` and the results of its runs."""

from collections import Counter
from pathlib import Path

from tl_keras.report.experiment_results import ExperimentResults, Run, TableRow
from tl_keras.results.experiment_file import read_experiment_file
from tl_keras.results.run_directory import RESULT, load_result, read_history


def load_experiment(path: Path, *, allow_pending: bool = False) -> ExperimentResults:
    """Return the experiment whose `experiment.json` is `path`, with the results of the runs beside it.

    Args:
        allow_pending: leave out unfinished runs, and rows without a finished one, and count them in `pending`. An experiment that
            has just begun has no rows.

    Raises:
        DamagedError: The file is absent or damaged, or names runs in other directories.
        ConfigError: A run is missing or unfinished, or a file was written by another version of the package.
    """
    record = read_experiment_file(path)
    pending: Counter[str] = Counter()
    rows = []
    for row in record.rows:
        run_dirs = [path.parent / name for name in row.runs]
        loaded = [run_dir for run_dir in run_dirs if not allow_pending or (run_dir / RESULT).exists()]
        pending[row.label] += len(run_dirs) - len(loaded)
        if loaded:
            rows.append(TableRow(**vars(row) | {"runs": tuple(map(_load_run, loaded))}))
    return ExperimentResults(**vars(record) | {"rows": tuple(rows), "pending": dict(+pending)})


def _load_run(run_dir: Path) -> Run:
    return Run(run_dir, load_result(run_dir), read_history(run_dir))
