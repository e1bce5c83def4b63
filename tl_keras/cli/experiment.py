"""The command line of an experiment, and of all of them; `experiments/*.py` call it."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tl_keras.cli.flags import CommandFlags
from tl_keras.cli.verbs import ON_MISSING, ON_MISSING_FLAG, choice, guarded, report, verbosity
from tl_keras.config import SETTINGS
from tl_keras.errors import ConfigError, UserError
from tl_keras.runs import experiment as experiments


def experiment_main(experiment: experiments.Experiment, usage: str | None, arguments: Sequence[str] | None = None) -> int:
    """The command line of an experiment; the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    return guarded(lambda: _run_experiment(experiment, usage or experiment.title, arguments))


def _run_experiment(experiment: experiments.Experiment, usage: str, arguments: Sequence[str]) -> None:
    order = _order(experiment, usage, arguments, f"experiments.{experiment.name}")
    if order is not None:
        print("\n".join(str(file) for file in experiments.execute(experiment, order)))


def all_experiments_main(found: Sequence[experiments.Experiment], usage: str, arguments: Sequence[str] | None = None) -> int:
    """The command line of all experiments one after the other, and their joined report; the exit code.

    An experiment that fails does not keep the others from running; it is named at the end.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    return guarded(lambda: _run_all(found, usage, arguments))


def _run_all(found: Sequence[experiments.Experiment], usage: str, arguments: Sequence[str]) -> None:
    order = _order(None, usage, arguments, "experiments.all")
    if order is None:
        return
    failed = []
    for experiment in found:
        print(f"\n=== {experiment.name}: {experiment.title}", flush=True)
        # A process of its own: TensorFlow keeps memory of every model that a process has trained.
        if subprocess.run([sys.executable, "-m", f"experiments.{experiment.name}", *arguments]).returncode:
            failed.append(experiment.name)
    if not order.explain:
        report([f"--runs_dir={order.runs_dir}"])
    if failed:
        raise UserError(f"{len(failed)} of {len(found)} experiments failed, each with its error above: {', '.join(failed)}.")


EXPERIMENT_FLAGS = {
    "profile": ("paper", f"<{'|'.join(experiments.PROFILES)}>: the report's size, half an hour on two cores, or seconds a row"),
    "rows": ("", "labels of the rows to run, separated by commas; empty: all"),
    "seeds": ("0", "seeds; every row is run with each"),
    "runs_dir": ("runs", "directory of all results"),
    "on_missing": ON_MISSING_FLAG,
    "explain": (False, "say what each row would train and cost, and run nothing"),
}


def _order(experiment: experiments.Experiment | None, usage: str, arguments: Sequence[str], module: str) -> experiments.Order | None:
    """What the flags of an experiment ask for; None where they ask for help, which is printed."""
    fractions = ",".join(f"{fraction:g}" for fraction in experiment.fractions) if experiment else ""
    command = CommandFlags(
        usage,
        settings=[name for name in SETTINGS if name != "seed"],
        defaults=experiment.settings if experiment else None,
        extra=({"fractions": (fractions, "shares of the train split, one row each")} if fractions else {}) | EXPERIMENT_FLAGS,
    )
    given = command.parse(arguments)
    if given is None:
        return None
    return experiments.Order(
        runs_dir=Path(command.value("runs_dir")),
        overrides={name: value for name, value in given.items() if name in SETTINGS},
        profile=choice(command, "profile", experiments.PROFILES),
        fractions=_numbers(command, "fractions", float) if fractions else (),
        labels=[label.strip() for label in command.value("rows").split(",") if label.strip()],
        seeds=_numbers(command, "seeds", int),
        on_missing=choice(command, "on_missing", ON_MISSING),
        command=shlex.join(["python", "-m", module, *arguments]),
        verbose=verbosity(),
        explain=command.value("explain"),
    )


def _numbers(command: CommandFlags, name: str, kind: Callable[[str], Any]) -> list[Any]:
    text = command.value(name)
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError("expected numbers separated by commas.", setting=name, value=text) from None
    if len(set(numbers)) < len(numbers):
        raise ConfigError("expected different numbers.", setting=name, value=text)
    return numbers
