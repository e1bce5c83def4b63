"""The page of an experiment while its runs go on."""

import sys
import time
from pathlib import Path

MAX_FRACTION = 0.1  # of the time of the runs, for writing pages
MIN_SECONDS = 5.0  # that a page is expected to take: those before the first result are written faster than the others


class RunningPage:
    """Writes the report of an experiment between its runs. A page that cannot be written is named, and the runs go on.

    Args:
        refresh_seconds: seconds after which a browser loads the page again; 0: never.
    """

    def __init__(self, refresh_seconds: int):
        self._refresh_seconds = refresh_seconds
        self._directory: Path | None = None
        self._written_at, self._seconds = 0.0, MIN_SECONDS

    def update(self, directory: Path) -> None:
        """Write the page, unless that takes too large a part of the time since the page before.

        Args:
            directory: directory of the experiment, with its `experiment.json`.
        """
        started = time.perf_counter()
        if self._directory and self._seconds > MAX_FRACTION * (started - self._written_at):
            return
        self._directory = directory
        _write(directory, self._refresh_seconds)
        self._written_at = time.perf_counter()
        self._seconds = max(MIN_SECONDS, self._written_at - started)

    def stop(self) -> None:
        """Write the page of an experiment that has been interrupted. Browsers load it no more."""
        if self._directory:
            _write(self._directory, 0)


def _write(directory: Path, refresh_seconds: int) -> None:
    from tl_keras import report

    try:
        results = report.load_experiment(directory / report.EXPERIMENT_FILE, allow_pending=True)
        report.write_report(results, directory, refresh_seconds=refresh_seconds)
    except Exception as error:
        print(f"the page of the runs so far cannot be written: {error}", file=sys.stderr, flush=True)
