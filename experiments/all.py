"""Every experiment, one after the other, and a page that combines their reports.

Command: `make exp-all`, or `python -m experiments.all`; `make exp-all ARGS=--profile=smoke` runs every row in seconds.

All experiments take the flags of `tl-keras train`. An experiment refuses a flag if its rows set that setting themselves. The other
experiments still run, and the refusals are listed at the end.
"""

import sys

from tl_keras.cli.experiment import all_experiments_main
from tl_keras.cli.list_tables import experiments

if __name__ == "__main__":
    sys.exit(all_experiments_main(experiments(), __doc__))
