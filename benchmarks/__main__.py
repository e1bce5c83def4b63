"""python -m benchmarks --flags

Measure ours beside a plain Keras script and, where torch is installed, a plain torch script. Prints one table, and writes it to
--results_dir as Markdown and as JSON.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import arrays
from benchmarks.rows import FULL, MODULES, PROFILES, Row, rows
from tl_keras.cli.flags import CommandFlags
from tl_keras.cli.verbs import run_command
from tl_keras.errors import ConfigError
from tl_keras.utils import tensorflow_import

if TYPE_CHECKING:
    from benchmarks.table import Report

FLAGS = {
    "profile": (FULL, f"<{'|'.join(PROFILES)}>: the task's own sizes (two hours on two cores), five minutes, or whether it runs"),
    "rows": ("", "names of the rows to measure, separated by commas; empty: all of the profile"),
    "data_dir": ("", "directory of prepared TFDS data sets, for the images of CIFAR-10; empty: random images"),
    "results_dir": ("benchmarks/results", "where the table is written"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the flags ask for; the exit code."""
    return run_command(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> None:
    command = CommandFlags(__doc__, extra=FLAGS)
    if command.parse(arguments) is None:
        return
    profile = command.value("profile")
    if profile not in PROFILES:
        raise ConfigError(f"flag --profile={profile}: expected one of {', '.join(PROFILES)}.")
    chosen = rows(profile, [name.strip() for name in command.value("rows").split(",") if name.strip()])
    tensorflow_import.quiet_tensorflow()
    from benchmarks import table

    report = benchmark(profile, chosen, _images(chosen, command.value("data_dir")))
    table.print_table(report)
    print("\n".join(str(path) for path in table.write(report, Path(command.value("results_dir")))))


def _images(chosen: Sequence[Row], data_dir: str) -> arrays.Arrays:
    """As many images as the largest row needs: CIFAR-10's from `data_dir`, or random ones where it is not given."""
    num_train, num_test = (max(getattr(row.work, name) for row in chosen) for name in ("num_train", "num_test"))
    return arrays.cifar10(data_dir, num_train, num_test) if data_dir else arrays.random(num_train, num_test)


def benchmark(profile: str, chosen: Sequence[Row], images: arrays.Arrays) -> "Report":
    """Measure the rows one after the other, and the machine before them."""
    from benchmarks.machine import describe, peak_shares
    from benchmarks.measure import measure
    from benchmarks.startup import import_seconds
    from benchmarks.table import Report, summary

    machine = describe()
    measured = []
    for number, row in enumerate(chosen, start=1):
        print(f"[{number}/{len(chosen)}] {row.name}: {row.title}", flush=True)
        found = measure(row, images)
        print(f"    ours is as fast as {summary(found)}", flush=True)
        measured.append(replace(found, peak_share=peak_shares(found, machine["peaks"])))
    whole = {side for found in measured if found.row.whole_command for side in found.sides}
    machine["import_seconds"] = {side: import_seconds(module) for side, module in MODULES.items() if side in whole}
    return Report(profile, datetime.now(UTC).isoformat(timespec="minutes"), machine, images.origin, measured)


if __name__ == "__main__":
    sys.exit(main())
