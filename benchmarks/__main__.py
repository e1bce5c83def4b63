"""python -m benchmarks --flags

Compare tl_keras with a plain Keras script and, if torch is installed, a plain torch script. Prints one table, and writes it to
--results_dir as Markdown and as JSON.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import arrays
from benchmarks.registry import FULL, MODULES, PROFILES, Benchmark, select_benchmarks
from tl_keras.cli.flags import CommandFlags
from tl_keras.cli.run_command import run_command
from tl_keras.errors import unknown
from tl_keras.utils import tensorflow_import

if TYPE_CHECKING:
    from benchmarks.table import Results

FLAGS = {
    "profile": (
        FULL,
        f"<{'|'.join(PROFILES)}>: the task's own sizes (two hours on two cores), its training steps (twenty minutes), less of everything "
        "(five minutes), or a trial run",
    ),
    "rounds": (0, "rounds of each benchmark; 0: those of the profile"),
    "rows": ("", "names of the benchmarks to run, separated by commas; empty: all of the profile"),
    "data_dir": ("", "directory of prepared TFDS data sets, for the images of CIFAR-10; empty: random images"),
    "results_dir": ("benchmarks/results", "where the table is written"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the flags select. Return the exit code."""
    return run_command(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> None:
    command = CommandFlags(__doc__, extra=FLAGS, examples=("python -m benchmarks --profile=quick",))
    if command.parse(arguments) is None:
        return
    profile = command.value("profile")
    if profile not in PROFILES:
        raise unknown("value", profile, PROFILES, setting="profile", value=profile)
    benchmarks = select_benchmarks(profile, [name.strip() for name in command.value("rows").split(",") if name.strip()])
    if rounds := command.value("rounds"):
        benchmarks = [replace(benchmark, rounds=rounds) for benchmark in benchmarks]
    tensorflow_import.quiet_tensorflow()
    from benchmarks import table

    results = run_benchmarks(profile, benchmarks, _images(benchmarks, command.value("data_dir")))
    table.print_table(results)
    print("\n".join(str(path) for path in table.write(results, Path(command.value("results_dir")))))


def _images(benchmarks: Sequence[Benchmark], data_dir: str) -> arrays.Arrays:
    """Return the images for the largest benchmark: of CIFAR-10 from `data_dir`, or random ones if it is not given."""
    num_train, num_test = (max(getattr(benchmark.work, name) for benchmark in benchmarks) for name in ("num_train", "num_test"))
    return arrays.cifar10(data_dir, num_train, num_test) if data_dir else arrays.random(num_train, num_test)


def run_benchmarks(profile: str, benchmarks: Sequence[Benchmark], images: arrays.Arrays) -> "Results":
    """Describe the machine, then run the benchmarks one after the other."""
    from benchmarks.hardware import describe, explain
    from benchmarks.measure import measure
    from benchmarks.startup import import_seconds
    from benchmarks.table import Results, summary

    machine = describe()
    measured = []
    for number, benchmark in enumerate(benchmarks, start=1):
        print(f"[{number}/{len(benchmarks)}] {benchmark.name}: {benchmark.title}", flush=True)
        found = measure(benchmark, images)
        print(f"    ours is as fast as {summary(found)}", flush=True)
        measured.append(explain(found, machine["peaks"]))
    whole = {side for found in measured if found.benchmark.whole_command for side in found.sides}
    machine["import_seconds"] = {side: import_seconds(module) for side, module in MODULES.items() if side in whole}
    return Results(profile, datetime.now(UTC).isoformat(timespec="minutes"), machine, images.origin, measured)


if __name__ == "__main__":
    sys.exit(main())
