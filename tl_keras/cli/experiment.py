"""Command lines of one experiment and of all experiments. The modules in `experiments/` call them."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_keras.cli.flags import CommandFlags, as_flags
from tl_keras.cli.run_command import run_command
from tl_keras.cli.running_page import RunningPage
from tl_keras.cli.verbs import ON_MISSING, ON_MISSING_FLAG, parse_choice, report, verbosity
from tl_keras.config import SETTINGS
from tl_keras.errors import ConfigError, UserError
from tl_keras.runs.experiment import PROFILES, Experiment, ExperimentOptions, explain_experiment, resolve_rows, run_experiment
from tl_keras.runs.origins import Settings
from tl_keras.utils.tensorflow_import import quiet_tensorflow

EXPERIMENT_FLAGS = {
    "profile": ("paper", f"<{'|'.join(PROFILES)}>: paper: published settings; quick: half an hour on two cores; smoke: seconds per row"),
    "rows": ("", "labels of the rows to run, separated by commas; empty: all"),
    "seeds": ("0", "seeds, separated by commas; every row runs with each"),
    "runs_dir": ("runs", "directory of all results"),
    "on_missing": ON_MISSING_FLAG,
    "explain": (False, "describe what each row would train and cost, and run nothing"),
    "refresh": (0, "seconds after which a browser loads the page of a running experiment again, e.g. 30; 0: never"),
}


def experiment_main(experiment: Experiment, usage: str | None, arguments: Sequence[str] | None = None) -> int:
    """Run the command line of an experiment and return the exit code. `usage` is printed before the flags by `--help`."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    return run_command(lambda: _run_experiment(experiment, usage or experiment.title, arguments))


def _run_experiment(experiment: Experiment, usage: str, arguments: Sequence[str]) -> None:
    command = _command_flags(usage, experiment)
    given = command.parse(arguments)
    if given is None:
        return
    options = _options(command, given, f"experiments.{experiment.name}", arguments)
    refresh = _refresh(command)
    resolve_rows(experiment, options)  # Wrong settings are reported before TensorFlow is imported.
    quiet_tensorflow()
    if command.value("explain"):
        for description in explain_experiment(experiment, options):
            print(as_flags(description), flush=True)
        return
    page = RunningPage(refresh)
    try:
        _write_report(experiment, run_experiment(experiment, options, on_run=page.update))
    except BaseException:
        page.stop()
        raise


def _write_report(experiment: Experiment, directory: Path) -> None:
    """Print the table of the experiment in `directory`, write its report, and list the files."""
    from tl_keras import report

    results = report.load_experiment(directory / report.EXPERIMENT_FILE)
    report.print_table(results)
    print("\n".join(str(file) for file in [*report.write_report(results, directory), *experiment.write_files(directory)]))


def all_experiments_main(experiments: Sequence[Experiment], usage: str, arguments: Sequence[str] | None = None) -> int:
    """Run the command line of all experiments, one after the other, and write their combined report. Return the exit code.

    After a failed experiment the others still run. The failed ones are named at the end.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    return run_command(lambda: _run_all(experiments, usage, arguments))


def _run_all(experiments: Sequence[Experiment], usage: str, arguments: Sequence[str]) -> None:
    command = _command_flags(usage)
    given = command.parse(arguments)
    if given is None:
        return
    options = _options(command, given, "experiments.all", arguments)  # raises for a wrong flag before the first experiment
    failed = []
    for experiment in experiments:
        print(f"\n=== {experiment.name}: {experiment.title}", flush=True)
        # One process per experiment: a crash or a lack of memory ends that one alone.
        if subprocess.run([sys.executable, "-m", f"experiments.{experiment.name}", *arguments]).returncode:
            failed.append(experiment.name)
    if not command.value("explain"):
        report([f"--runs_dir={options.runs_dir}"])
    if failed:
        raise UserError(f"{len(failed)} of {len(experiments)} experiments failed, each with its error above: {', '.join(failed)}.")


def _command_flags(usage: str, experiment: Experiment | None = None) -> CommandFlags:
    """Return the flags of `experiment`, or those that all experiments have."""
    extra = dict(EXPERIMENT_FLAGS)
    if experiment and experiment.fractions:
        fractions = ",".join(f"{fraction:g}" for fraction in experiment.fractions)
        extra = {"fractions": (fractions, "fractions of the train split, separated by commas; one row each"), **extra}
    settings = [name for name in SETTINGS if name != "seed"]
    defaults = experiment.settings if experiment else Settings({}, {})
    module = f"experiments.{experiment.name if experiment else 'all'}"
    examples = (f"python -m {module} --profile=smoke --on_missing=embedded", f"python -m {module} --explain")
    return CommandFlags(usage, settings=settings, defaults=defaults, origins=defaults.origins, extra=extra, examples=examples)


def _options(command: CommandFlags, given: Mapping[str, Any], module: str, arguments: Sequence[str]) -> ExperimentOptions:
    """Return the options of parsed flags.

    Args:
        command: the flags.
        given: name -> value of the flags in `arguments`.
        module: the module that `arguments` are for.
    """
    return ExperimentOptions(
        runs_dir=Path(command.value("runs_dir")),
        overrides={name: value for name, value in given.items() if name in SETTINGS},
        profile=parse_choice(command, "profile", PROFILES),
        fractions=_numbers(command, "fractions", float) if "fractions" in given else (),
        labels=[label.strip() for label in command.value("rows").split(",") if label.strip()],
        seeds=_numbers(command, "seeds", int),
        on_missing=parse_choice(command, "on_missing", ON_MISSING),
        command=shlex.join(["python", "-m", module, *arguments]),
        verbose=verbosity(),
        log=lambda message: print(as_flags(message), flush=True),
    )


def _refresh(command: CommandFlags) -> int:
    if (seconds := int(command.value("refresh"))) < 0:
        raise ConfigError("expected a number of seconds, or 0.", setting="refresh", value=seconds)
    return seconds


def _numbers(command: CommandFlags, name: str, number: Callable[[str], Any]) -> list[Any]:
    text = command.value(name)
    try:
        numbers = [number(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError("expected numbers separated by commas.", setting=name, value=text) from None
    if len(set(numbers)) < len(numbers):
        raise ConfigError("expected different numbers.", setting=name, value=text)
    return numbers
