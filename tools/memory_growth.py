"""Trains several runs in one process and prints the memory that it holds after each.

    python -m tools.memory_growth --backbone=alexnet --strategy=full --runs=6

Every run has a seed and a directory of its own and trains on the bundled digits, as the rows of an experiment do. `resident` is the memory
of the process in MB, `model` that of the weights of one run. The other columns count the objects of Keras and TensorFlow that Python's
garbage collector knows.
"""

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tl_keras.config import RunConfig
from tl_keras.runs.run import run
from tl_keras.utils.tensorflow_import import quiet_tensorflow

COUNTED = ("Functional", "Variable", "ResourceVariable", "EagerTensor", "FuncGraph", "AtomicFunction")
MB = 2**20


def resident_bytes() -> int:
    """Return the resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def live_objects() -> Mapping[str, int]:
    """Return the number of live objects of each class in COUNTED, by the name of the class."""
    gc.collect()
    names = [type(item).__name__ for item in gc.get_objects()]
    return {name: names.count(name) for name in COUNTED}


def train_runs(base: RunConfig, runs: int, directory: Path) -> Iterator[dict[str, Any]]:
    """Train `runs` runs that differ in the seed. Yield the parameters, the seconds and the resident bytes of each."""
    for seed in range(runs):
        started = time.perf_counter()
        result = run(base.replace(seed=seed), directory / str(seed))
        gc.collect()
        yield {
            "parameters": result["model"]["parameters"],
            "seconds": time.perf_counter() - started,
            "resident": resident_bytes(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="alexnet")
    parser.add_argument("--strategy", default="full")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--runs", type=int, default=6)
    given = parser.parse_args()
    quiet_tensorflow()
    base = RunConfig().replace(
        dataset="digits",
        weights="none",
        backbone=given.backbone,
        strategy=given.strategy,
        image_size=given.image_size,
        epochs=1,
        limit_train=64,
        limit_test=32,
        save_model=False,
    )
    print("run  seconds  resident  model  " + "  ".join(COUNTED))
    with tempfile.TemporaryDirectory() as directory:
        for number, row in enumerate(train_runs(base, given.runs, Path(directory)), start=1):
            counts = "  ".join(f"{count:{len(name)}d}" for name, count in live_objects().items())
            model = 4 * row["parameters"] / MB
            print(f"{number:3d}  {row['seconds']:7.1f}  {row['resident'] / MB:8.0f}  {model:5.0f}  {counts}", flush=True)


if __name__ == "__main__":
    main()
