"""Every experiment, one after the other, and a page that combines their reports.

Command: `make exp-all`, or `python -m experiments.all`; `make exp-all ARGS=--profile=smoke` runs every row in seconds.

All experiments take the flags of `tl-keras train`. An experiment refuses a flag if its rows set that setting themselves. The other
experiments still run, and the refusals are listed at the end.
"""

import importlib
import sys

from tl_keras.cli.experiment import all_experiments_main
from tl_keras.cli.list_tables import experiment_files
from tl_keras.runs.experiment import Experiment


def experiments() -> list[Experiment]:
    """Return all experiments of this directory, by name."""
    return [importlib.import_module(f"experiments.{path.stem}").EXPERIMENT for path in experiment_files() if path.stem != "all"]


if __name__ == "__main__":
    sys.exit(all_experiments_main(experiments(), __doc__))
