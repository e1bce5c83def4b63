"""The command line: verbs, from flags to one call each. TensorFlow loads after every flag is checked."""

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tl_keras.cli.flags import CommandFlags, as_flags, dispatch
from tl_keras.config import SETTINGS, RunConfig
from tl_keras.errors import ConfigError, MissingError, UserError, unknown
from tl_keras.runs.fallbacks import EMBEDDED_NOTICE, EMBEDDED_SETTINGS
from tl_keras.utils import tensorflow_import

ON_MISSING = ("error", "embedded")
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
ON_MISSING_FLAG = ("error", "<error|embedded>: where data or weights are missing, stop, or run on what the package carries")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    return guarded(lambda: dispatch(arguments, VERBS, USAGE, "verb"))


def guarded(function: Callable[[], None]) -> int:
    """Call `function`; an error that the user can mend becomes one message and an exit code. Defects keep their traceback."""
    try:
        function()
    except UserError as error:
        return _fail(as_flags(str(error)), error.exit_code)
    except BrokenPipeError:  # the reader of a pipe, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _fail("interrupted. Nothing that was finished is lost: the same command goes on from the last checkpoint.", INTERRUPTED)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        return _fail(
            f"{error.strerror}: {error.filename or 'while writing'}. Free space or choose another directory, then run the command again.", 1
        )
    except Exception as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != "ResourceExhaustedError":
            raise
        return _fail("out of memory. Try a smaller --batch_size or --image_size, or a smaller backbone.", 1)
    return 0


def _fail(message: str, exit_code: int) -> int:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    return exit_code


def choice(command: CommandFlags, name: str, choices: Sequence[str]) -> str:
    """The value of a flag that is one of `choices`; ConfigError where it is not."""
    value = command.value(name)
    if value not in choices:
        raise ConfigError(f"expected one of {', '.join(choices)}.", setting=name, value=value)
    return value


def verbosity() -> int:
    """A progress bar on a terminal, a line each epoch elsewhere."""
    return 1 if sys.stdout.isatty() else 2


def train(arguments: Sequence[str]) -> None:
    """Train and test one configuration."""
    command = CommandFlags(
        "tl-keras train --flags\n\nTrain and test one configuration in one directory; the same command resumes it.",
        settings=list(SETTINGS),
        extra={
            "run_dir": ("", "directory of the run; empty: runs/train/ and a name made of the settings"),
            "on_missing": ON_MISSING_FLAG,
            "explain": (False, "say what would be trained, at which rates and costs, and what could be cached, and run nothing"),
        },
    )
    given = command.parse(arguments)
    if given is None:
        return
    config = RunConfig().replace(**{name: value for name, value in given.items() if name in SETTINGS})
    on_missing = choice(command, "on_missing", ON_MISSING)
    if command.value("explain"):
        from tl_keras.runs.explain import explain

        print(explain(config))
        return
    from tl_keras import report
    from tl_keras.runs.run import run
    from tl_keras.runs.setup import plan, require

    plan(config)
    try:
        require(config)
    except MissingError as error:
        if on_missing == "error":
            raise
        print(EMBEDDED_NOTICE.format(error=error), flush=True)
        config = config.replace(**EMBEDDED_SETTINGS)
        plan(config)
    directory = Path(command.value("run_dir") or _default_directory(config))
    result = run(config, directory, verbose=verbosity())
    report.print_result(result, directory)


def _default_directory(config: RunConfig) -> Path:
    dataset = Path(config.data.dataset.replace("folder:", "")).name
    strategy = config.train.strategy.replace(":", "-")
    return Path("runs") / "train" / f"{dataset}-{config.model.backbone}-{strategy}-seed{config.seed}-{config.digest()}"


def evaluate(arguments: Sequence[str]) -> None:
    """Score the model of a finished run on a test split: its own, or that of other data with the same classes."""
    data_flags = ("dataset", "data_dir", "label", "limit_test", "on_corrupt", "batch_size")
    command = CommandFlags(
        f"tl-keras evaluate --run_dir=DIR --flags\n\n{evaluate.__doc__}",
        settings=data_flags,
        extra={"run_dir": ("", "directory of the finished run")},
    )
    given = command.parse(arguments)
    if given is None:
        return
    run_dir = _required(command, "run_dir")
    from tl_keras.runs.run import evaluate_run

    metrics = evaluate_run(run_dir, {name: given[name] for name in data_flags if name in given})
    low, high = metrics["interval"]
    print(
        f"test accuracy {100 * metrics['accuracy']:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}, n = {metrics['num_examples']})"
    )
    print(f"balanced accuracy {100 * metrics['balanced_accuracy']:.2f} %, cross-entropy {metrics['loss']:.4f} nats")


def export(arguments: Sequence[str]) -> None:
    """Make the model of a finished run fit for reuse: uint8 RGB of any size in, probabilities out, checked by reloading."""
    command = CommandFlags(
        f"tl-keras export --run_dir=DIR --format=keras --output=DIR\n\n{export.__doc__}",
        settings=("data_dir",),
        extra={
            "run_dir": ("", "directory of the finished run"),
            "format": ("keras", "<keras|saved_model>: what to write"),
            "output": ("", "directory to make"),
        },
    )
    given = command.parse(arguments)
    if given is None:
        return
    run_dir, output = _required(command, "run_dir"), _required(command, "output")
    tensorflow_import.quiet_tensorflow()
    from tl_keras.runs.export import export_run

    record = export_run(run_dir, command.value("format"), output, data_dir=given.get("data_dir", ""))
    print(f"{record['model']}: reloaded in a fresh process and compared on {record['num_images']} test images, ", end="")
    print(f"largest difference in probability {record['max_difference']:.2g}")


def report(arguments: Sequence[str]) -> None:
    """Write the reports of all experiments anew from the results of their runs, and join them in one."""
    command = CommandFlags(
        f"tl-keras report --runs_dir=DIR\n\n{report.__doc__}",
        extra={"runs_dir": ("runs", "directory of an experiment, or of several")},
    )
    if command.parse(arguments) is None:
        return
    from tl_keras import report as reports

    print("\n".join(str(file) for file in reports.write_reports(Path(command.value("runs_dir")))))


def sheet(arguments: Sequence[str]) -> None:
    """Draw what an augmentation does to training images, as the model will see them, epoch by epoch."""
    settings = ("dataset", "data_dir", "label", "on_corrupt", "augmentation", "crop_fraction", "backbone", "image_size", "seed")
    command = CommandFlags(
        f"tl-keras sheet --dataset=NAME --augmentation=NAME --output=FILE.png\n\n{sheet.__doc__}",
        settings=settings,
        extra={"output": ("", "PNG file to write")},
    )
    given = command.parse(arguments)
    if given is None:
        return
    config = RunConfig().replace(**{name: given[name] for name in settings if name in given})
    output = _required(command, "output")
    from tl_keras.runs.setup import load_source, plan

    image_size = plan(config).image_size
    source = load_source(config.data)
    from tl_keras.data.augmentation_sheet import write_sheet

    print(write_sheet(source, config.data, output, image_size=image_size, seed=config.seed))


def lr_find(arguments: Sequence[str]) -> None:
    """Find a learning rate for a configuration: raise it step by step on training images and see where the loss falls."""
    command = CommandFlags(
        f"tl-keras lr_find --output=DIR --flags of train\n\n{lr_find.__doc__}",
        settings=list(SETTINGS),
        extra={"output": ("", "directory for lr_find.png and lr_find.csv")},
    )
    given = command.parse(arguments)
    if given is None:
        return
    config = RunConfig().replace(**{name: value for name, value in given.items() if name in SETTINGS})
    output = _required(command, "output")
    from tl_keras.runs.setup import plan, require

    plan(config)
    require(config)
    from tl_keras.runs import lr_find as finder

    curve = finder.find(config)
    for file in finder.write(curve, output):
        print(file)
    for name, rate in finder.suggestions(curve).items():
        print(f"--learning_rate={rate:.1e}   {name}")


def list_tables(arguments: Sequence[str]) -> None:
    """List what the flags accept: datasets, backbones, strategies, augmentations, experiments."""
    from tl_keras.cli.list_tables import TABLES

    if {"--help", "-h"} & set(arguments):
        print(f"tl-keras list [{'|'.join(TABLES)}]\n\n{list_tables.__doc__}")
        return
    for name in arguments or TABLES:
        if name not in TABLES:
            raise unknown("table", name, TABLES)
        print(f"{name}:")
        for entry, help in TABLES[name]():
            print(f"  {entry:<24} {help}")


def weights(arguments: Sequence[str]) -> None:
    """List, fetch, verify, convert and inspect files of pre-trained weights."""
    from tl_keras.cli.weights import weights as run_weights

    run_weights(arguments)


def _required(command: CommandFlags, name: str) -> Path:
    if not command.value(name):
        raise ConfigError(f"`{name}` is required. See --help.")
    return Path(command.value(name))


VERBS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "train": train,
    "evaluate": evaluate,
    "export": export,
    "report": report,
    "sheet": sheet,
    "lr_find": lr_find,
    "list": list_tables,
    "weights": weights,
}

USAGE = "tl-keras VERB --flags\n\n" + "\n".join(f"  {name:<10}{verb.__doc__}" for name, verb in VERBS.items())
USAGE += "\n\n`tl-keras VERB --help` lists the flags of a verb; `python -m experiments.part_a --help` those of an experiment."
