"""Every experiment, one after the other, and a page that joins them.

Command: `make exp-all`, or `python -m experiments.all`; `make exp-all ARGS=--profile=smoke` runs every row in seconds.

Flags are those of `tl-keras train`, for all experiments alike. An experiment whose rows set what a flag would set refuses it,
says so at the end, and does not keep the others from running.
"""

import importlib
import sys

from tl_keras.cli.experiment import all_experiments_main
from tl_keras.cli.list_tables import experiment_files
from tl_keras.runs.experiment import Experiment


def experiments() -> list[Experiment]:
    """All experiments of this directory, by name."""
    return [importlib.import_module(f"experiments.{path.stem}").EXPERIMENT for path in experiment_files() if path.stem != "all"]


if __name__ == "__main__":
    sys.exit(all_experiments_main(experiments(), __doc__))
