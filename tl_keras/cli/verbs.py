"""The verbs of the command line: flags to one call each, results to text. TensorFlow is loaded after all flags are checked."""

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from tl_keras.cli.flags import CommandFlags, as_flags, dispatch
from tl_keras.cli.predict import embed, predict
from tl_keras.cli.run_command import run_command
from tl_keras.config import SETTINGS, RunConfig
from tl_keras.errors import ConfigError, MissingError, unknown
from tl_keras.runs.fallbacks import EMBEDDED_NOTICE, EMBEDDED_SETTINGS
from tl_keras.utils.tensorflow_import import quiet_tensorflow

CHECK_SETTINGS = ("dataset", "data_dir", "label", "on_corrupt", "links", "rehash")  # of the images that an export is checked on
ON_MISSING = ("error", "embedded")
ON_MISSING_FLAG = ("error", "<error|embedded>: if data or weights are missing, stop, or run on the bundled ones")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb named by the first argument, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    return run_command(lambda: dispatch(arguments, VERBS, USAGE, "verb"))


def parse_choice(command: CommandFlags, name: str, choices: Sequence[str]) -> str:
    """Return the value of a flag; ConfigError if it is not one of `choices`."""
    value = command.value(name)
    if value not in choices:
        raise ConfigError(f"expected one of {', '.join(choices)}.", setting=name, value=value)
    return value


def verbosity() -> int:
    """Return 1, a progress bar, on a terminal, and 2, a line per epoch, elsewhere."""
    return 1 if sys.stdout.isatty() else 2


def train(arguments: Sequence[str]) -> None:
    """Train and test one configuration."""
    command = CommandFlags(
        "tl-keras train --flags\n\nTrain and test one configuration in one directory; the same command resumes it.",
        settings=list(SETTINGS),
        extra={
            "run_dir": ("", "directory of the run; empty: runs/train/ and a name made from the settings"),
            "on_missing": ON_MISSING_FLAG,
            "explain": (False, "describe what would be trained, at which learning rates and cost, and what would be cached; run nothing"),
        },
    )
    given = command.parse(arguments)
    if given is None:
        return
    config = RunConfig().replace(**{name: value for name, value in given.items() if name in SETTINGS})
    on_missing = parse_choice(command, "on_missing", ON_MISSING)
    if command.value("explain"):
        quiet_tensorflow()
        from tl_keras.runs.explain import explain

        print(as_flags(explain(config)))
        return
    from tl_keras import report
    from tl_keras.runs.resolve import check_available, resolve
    from tl_keras.runs.run import run_resolved

    resolved = resolve(config)
    quiet_tensorflow()
    try:
        check_available(resolved)
    except MissingError as error:
        if on_missing == "error":
            raise
        print(as_flags(EMBEDDED_NOTICE.format(error=error)), flush=True)
        resolved = resolve(config.replace(**EMBEDDED_SETTINGS))
    run_dir = Path(command.value("run_dir") or _default_run_dir(resolved.config))
    result = run_resolved(resolved, run_dir, verbose=verbosity())
    print(report.describe_result(result, run_dir))


def _default_run_dir(config: RunConfig) -> Path:
    dataset = Path(config.data.dataset.replace("folder:", "")).name
    strategy = config.train.strategy.replace(":", "-")
    return Path("runs") / "train" / f"{dataset}-{config.model.backbone}-{strategy}-seed{config.seed}-{config.config_id()}"


def evaluate(arguments: Sequence[str]) -> None:
    """Score the model of a finished run on its test split, or on that of another data set with the same classes."""
    data_flags = ("dataset", "data_dir", "label", "limit_test", "on_corrupt", "links", "rehash", "batch_size")
    command = CommandFlags(
        f"tl-keras evaluate --run_dir=DIR --flags\n\n{evaluate.__doc__}\nWithout a flag, the setting of the run applies, not the default.",
        settings=data_flags,
        extra={"run_dir": ("", "directory of the finished run")},
    )
    given = command.parse(arguments)
    if given is None:
        return
    run_dir = _required(command, "run_dir")
    quiet_tensorflow()
    from tl_keras.runs.evaluate import evaluate_run

    metrics = evaluate_run(run_dir, {name: given[name] for name in data_flags if name in given})
    low, high = metrics["interval"]
    interval = f"95 % interval {100 * low:.2f} to {100 * high:.2f}, n = {metrics['num_examples']}"
    print(f"test accuracy {100 * metrics['accuracy']:.2f} % ({interval})")
    print("\n".join(f"note: {as_flags(note)}" for note in metrics["notes"]), end="\n" if metrics["notes"] else "")
    print(f"balanced accuracy {100 * metrics['balanced_accuracy']:.2f} %, cross-entropy {metrics['loss']:.4f} nats")


def export(arguments: Sequence[str]) -> None:
    """Export the model of a finished run: uint8 RGB images of any size in, probabilities out, checked by reloading."""
    command = CommandFlags(
        f"tl-keras export --run_dir=DIR --format=keras --output=DIR\n\n{export.__doc__}",
        settings=CHECK_SETTINGS,
        extra={
            "run_dir": ("", "directory of the finished run"),
            "format": ("keras", "<keras|saved_model>: format of the model"),
            "output": ("", "directory to create"),
        },
    )
    given = command.parse(arguments)
    if given is None:
        return
    run_dir, output = _required(command, "run_dir"), _required(command, "output")
    quiet_tensorflow()
    from tl_keras.runs.export import export_run

    record = export_run(
        run_dir, command.value("format"), output, {name: given[name] for name in CHECK_SETTINGS if "dataset" in given and name in given}
    )
    print(f"{record['model']}: reloaded in a fresh process and compared on {record['num_images']} test images, ", end="")
    print(f"largest difference in probability {record['max_difference']:.2g}")


def report(arguments: Sequence[str]) -> None:
    """Write the reports of all experiments again from the results of their runs, and combine them."""
    command = CommandFlags(
        f"tl-keras report --runs_dir=DIR\n\n{report.__doc__}",
        extra={"runs_dir": ("runs", "directory of one experiment or of several")},
    )
    if command.parse(arguments) is None:
        return
    from tl_keras import report as reports

    print("\n".join(str(file) for file in reports.write_reports(Path(command.value("runs_dir")))))


def sheet(arguments: Sequence[str]) -> None:
    """Draw training images after augmentation, as the model sees them, for the first epochs."""
    data_settings = ("dataset", "data_dir", "label", "on_corrupt", "augmentation", "crop_fraction", "interpolation")
    settings = (*data_settings, "backbone", "weights", "image_size", "seed")
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
    from tl_keras.runs.resolve import load_source, resolve

    geometry = resolve(config).geometry
    quiet_tensorflow()
    source = load_source(config.data)
    from tl_keras.data.augmentation_sheet import write_sheet

    print(write_sheet(source, config.data, output, geometry=geometry, seed=config.seed))


def lr_find(arguments: Sequence[str]) -> None:
    """Find a learning rate: raise it step by step on training images, and see where the loss falls."""
    command = CommandFlags(
        f"tl-keras lr_find --output=DIR --flags\n\n{lr_find.__doc__}",
        settings=list(SETTINGS),
        extra={"output": ("", "directory for lr_find.png and lr_find.csv")},
    )
    given = command.parse(arguments)
    if given is None:
        return
    config = RunConfig().replace(**{name: value for name, value in given.items() if name in SETTINGS})
    output = _required(command, "output")
    from tl_keras.runs.resolve import check_available, resolve

    resolved = resolve(config)
    quiet_tensorflow()
    check_available(resolved)
    from tl_keras.runs.lr_find import run_lr_find, suggestions, write_lr_curve

    curve = run_lr_find(resolved)
    for file in write_lr_curve(curve, output):
        print(file)
    for name, learning_rate in suggestions(curve).items():
        print(f"--learning_rate={learning_rate:.1e}   {name}")


def list_tables(arguments: Sequence[str]) -> None:
    """List the values that flags accept: datasets, backbones, strategies, schedules, augmentations, experiments."""
    from tl_keras.cli.list_tables import TABLES

    names = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    command = CommandFlags(f"tl-keras list [{'|'.join(TABLES)}] --flags\n\n{list_tables.__doc__}", extra=LIST_FLAGS)
    given = command.parse(arguments[len(names) :])
    if given is None:
        return
    if given:
        _list_settings(names, command)
        return
    for name in names or TABLES:
        if name not in TABLES:
            raise unknown("table", name, TABLES)
        print(f"{name}:")
        for entry, help in TABLES[name]():
            print(f"  {entry:<24} {help}")


LIST_FLAGS = {
    "settings": (False, "with the table experiments: all settings of all rows, with their origins; a pipe gets columns separated by tabs"),
    "experiment": ("", "with `settings`: name of one experiment; empty: all"),
}


def _list_settings(names: Sequence[str], command: CommandFlags) -> None:
    """Print the settings of experiments, and the number of rows as a last line that begins with #."""
    from tl_keras.cli.list_tables import count_rows, experiments, settings_table

    if names != ["experiments"] or not command.value("settings"):
        raise ConfigError("expected: tl-keras list experiments --settings, optionally with --experiment=NAME.")
    name, known = command.value("experiment"), {experiment.name: experiment for experiment in experiments()}
    if name and name not in known:
        raise unknown("experiment", name, known)
    chosen = [known[name]] if name else list(known.values())
    _print_columns(list(settings_table(chosen)))
    print(f"# {count_rows(chosen)}")


def _print_columns(lines: Sequence[Sequence[str]]) -> None:
    """Print cells aligned on a terminal, and elsewhere separated by tabs."""
    is_terminal = sys.stdout.isatty()
    widths = [max(map(len, column)) if is_terminal else 0 for column in zip(*lines, strict=True)]
    for line in lines:
        print(("  " if is_terminal else "\t").join(map(str.ljust, line, widths)).rstrip())


def weights(arguments: Sequence[str]) -> None:
    """List, download, verify, convert and inspect files of pre-trained weights."""
    from tl_keras.cli.weights import weights as run_weights

    run_weights(arguments)


def _required(command: CommandFlags, name: str) -> Path:
    if not command.value(name):
        raise ConfigError(f"`{name}` is required. See --help.")
    return Path(command.value(name))


VERBS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "embed": embed,
    "export": export,
    "report": report,
    "sheet": sheet,
    "lr_find": lr_find,
    "list": list_tables,
    "weights": weights,
}

USAGE = "tl-keras VERB --flags\n\n" + "\n".join(f"  {name:<10}{verb.__doc__}" for name, verb in VERBS.items())
USAGE += "\n\n`tl-keras VERB --help` lists the flags of a verb, `python -m experiments.part_a --help` those of an experiment."
