"""Measures start-up in fresh processes: from command to the end of the first training step, and imports alone."""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from statistics import median

from benchmarks import arrays
from benchmarks.work import Once, Outcome, Work
from tl_keras.utils import tensorflow_import

ROOT = Path(__file__).parents[1]
IMPORTS = 3  # how many times the imports are measured


def _seconds(arguments: Sequence[str]) -> float:
    """Return the seconds from the start of `python -m benchmarks.startup ARGUMENTS` to the time that it prints."""
    started = time.time()
    command = [sys.executable, "-m", "benchmarks.startup", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1]) - started


@contextmanager
def _fresh(side: str, work: Work, images: arrays.Arrays) -> Iterator[Once]:
    importlib.import_module(f"benchmarks.{side}")
    yield lambda: Outcome(_seconds([side, json.dumps(asdict(work))]))


ours, plain_keras, plain_torch = (partial(_fresh, side) for side in ("ours", "plain_keras", "plain_torch"))


@cache
def import_seconds(side: str) -> float:
    """Return the seconds of a fresh process to import the packages of a side."""
    return median(_seconds([side]) for _ in range(IMPORTS))


def main(side: str, work: str = "") -> None:
    """Print the time after the imports, and after the first step of `work` if it is given."""
    if side != "plain_torch":
        tensorflow_import.quiet_tensorflow()
    module = importlib.import_module(f"benchmarks.{side}")
    if work:
        parsed = Work(**json.loads(work))
        module.first_step(parsed, arrays.random(parsed.num_train, parsed.num_test))
    print(time.time())


if __name__ == "__main__":
    main(*sys.argv[1:])
