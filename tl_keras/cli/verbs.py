"""The verbs of the command line: flags to one call each, results to text. TensorFlow is loaded after all flags are checked."""

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

import tl_keras
from tl_keras.cli.export import export
from tl_keras.cli.fit import fit
from tl_keras.cli.flags import CommandFlags, as_flags, dispatch
from tl_keras.cli.given_data import DATA_FLAGS, given_data
from tl_keras.cli.predict import embed, predict
from tl_keras.cli.run_command import run_command
from tl_keras.config import SETTINGS, RunConfig
from tl_keras.errors import ConfigError, MissingError, unknown
from tl_keras.runs.fallbacks import EMBEDDED_NOTICE, EMBEDDED_SETTINGS
from tl_keras.utils.tensorflow_import import quiet_tensorflow
from tl_keras.utils.text import align_columns

ON_MISSING = ("error", "embedded")
ON_MISSING_FLAG = ("error", "<error|embedded>: if data or weights are missing, stop, or run on the bundled ones")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb named by the first argument, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    return run_command(lambda: dispatch(arguments, VERBS, USAGE, "verb") if arguments else print(FIRST_STEPS))


def parse_choice(command: CommandFlags, name: str, choices: Sequence[str]) -> str:
    """Return the value of a flag; ConfigError if it is not one of `choices`."""
    value = command.value(name)
    if value not in choices:
        raise unknown("value", value, choices, setting=name, value=value)
    return value


def verbosity() -> int:
    """Return 1, a progress bar, on a terminal, and 2, a line per epoch, elsewhere."""
    return 1 if sys.stdout.isatty() else 2


def train(arguments: Sequence[str]) -> None:
    """Train and test one configuration."""
    command = CommandFlags(
        "tl-keras train --flags\n\nTrain and test one configuration in one directory; the same command resumes it.",
        settings=list(SETTINGS),
        examples=(
            "tl-keras train --dataset=folder:photos --run_dir=runs/photos",
            "tl-keras train --dataset=folder:photos --strategy=head --image_size=128 --epochs=20 --dry_run",
            "tl-keras train --dataset=digits --backbone=alexnet_narrow --weights=glyphs --strategy=full --epochs=2",
        ),
        extra={
            "run_dir": ("", "directory of the run; empty: runs/train/ and a name made from the settings"),
            "on_missing": ON_MISSING_FLAG,
            "explain": (False, "describe what would be trained, at which learning rates and cost, and what would be cached; run nothing"),
            "dry_run": (False, "the same as explain"),
        },
    )
    given = command.parse(arguments)
    if given is None:
        return
    config = RunConfig().replace(**{name: value for name, value in given.items() if name in SETTINGS})
    on_missing = parse_choice(command, "on_missing", ON_MISSING)
    if command.value("explain") or command.value("dry_run"):
        print(as_flags(tl_keras.dry_run(tl_keras.ImageData(config.data), config=config)))
        return
    try:
        run = _fit(config, command.value("run_dir"))
    except MissingError as error:
        if on_missing == "error":
            raise
        print(as_flags(EMBEDDED_NOTICE.format(error=error)), flush=True)
        run = _fit(config.replace(**EMBEDDED_SETTINGS), command.value("run_dir"))
    print(run)


def _fit(config: RunConfig, run_dir: str) -> "tl_keras.Run":
    return tl_keras.fit(tl_keras.ImageData(config.data), run_dir or _default_run_dir(config), config=config)


def _default_run_dir(config: RunConfig) -> Path:
    dataset = Path(config.data.dataset.partition(":")[2] or config.data.dataset).stem
    strategy = config.train.strategy.replace(":", "-").replace("/", "-")
    return Path("runs") / "train" / f"{dataset}-{config.model.backbone}-{strategy}-seed{config.seed}-{config.config_id()}"


def evaluate(arguments: Sequence[str]) -> None:
    """Score the model of a finished run on its test split, or on another data set with the same classes."""
    settings = (*DATA_FLAGS, "limit_test", "batch_size")
    command = CommandFlags(
        f"tl-keras evaluate --run_dir=DIR --flags\n\n{evaluate.__doc__}\nWithout a flag, the setting of the run applies.",
        settings=settings,
        defaults=dict.fromkeys(settings),
        examples=(
            "tl-keras evaluate --run_dir=runs/photos",
            "tl-keras evaluate --run_dir=runs/photos --dataset=folder:new_photos",
        ),
        extra={"run_dir": ("", "directory of the finished run")},
    )
    given = command.parse(arguments)
    if given is None:
        return
    run = tl_keras.load_run(_required(command, "run_dir"))
    print(as_flags(str(run.evaluate(given_data(run, given), batch_size=given.get("batch_size"), limit_test=given.get("limit_test")))))


def compare(arguments: Sequence[str]) -> None:
    """Compare the accuracies of runs on the same test images, image by image and seed by seed."""
    command = CommandFlags(
        "tl-keras compare --reference=NAME NAME=DIR,DIR NAME=DIR,DIR ...\n\n"
        f"{compare.__doc__}\nEach NAME has finished runs of the same seeds.",
        examples=("tl-keras compare --reference=head head=runs/h0,runs/h1 full=runs/f0,runs/f1",),
        extra={"reference": ("", "NAME that the others are compared with; choose it before looking at the results")},
        takes_operands=True,
    )
    if command.parse(arguments) is None:
        return
    runs = {name: [tl_keras.load_run(path) for path in paths] for name, paths in map(_named_directories, command.operands)}
    print(tl_keras.compare(runs, reference=str(_required(command, "reference"))))


def _named_directories(text: str) -> tuple[str, list[str]]:
    name, equals, directories = text.partition("=")
    if not (name and equals and directories):
        raise ConfigError(f"Expected NAME=DIR,DIR, received {text!r}. See --help.")
    return name, directories.split(",")


def report(arguments: Sequence[str]) -> None:
    """Write the reports of all experiments again from the results of their runs, and combine them."""
    command = CommandFlags(
        f"tl-keras report --runs_dir=DIR\n\n{report.__doc__}",
        examples=("tl-keras report --runs_dir=runs",),
        extra={"runs_dir": ("runs", "directory of one experiment or of several")},
    )
    if command.parse(arguments) is None:
        return
    print("\n".join(map(str, tl_keras.write_report(command.value("runs_dir")))))


def sheet(arguments: Sequence[str]) -> None:
    """Draw training images after augmentation, as the model sees them, for the first epochs."""
    data_settings = ("dataset", "data_dir", "label", "on_corrupt", "augmentation", "crop_fraction", "interpolation")
    settings = (*data_settings, "backbone", "weights", "image_size", "seed")
    command = CommandFlags(
        f"tl-keras sheet --dataset=NAME --augmentation=NAME --output=FILE.png\n\n{sheet.__doc__}",
        settings=settings,
        examples=("tl-keras sheet --dataset=folder:photos --augmentation=crop_flip --output=sheet.png",),
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
        examples=("tl-keras lr_find --dataset=folder:photos --strategy=full --output=rates",),
        extra={"output": ("", "directory for lr_find.png and lr_find.csv")},
    )
    given = command.parse(arguments)
    if given is None:
        return
    config = RunConfig().replace(**{name: value for name, value in given.items() if name in SETTINGS})
    output = _required(command, "output")
    found = tl_keras.lr_find(tl_keras.ImageData(config.data), output=output, config=config)
    print("\n".join(map(str, sorted(output.expanduser().iterdir()))))
    for name, learning_rate in found.items():
        print(f"--learning_rate={learning_rate:.1e}   {name}")


def list_tables(arguments: Sequence[str]) -> None:
    """List the values that flags accept: datasets, backbones, strategies, schedules, augmentations, experiments."""
    from tl_keras.cli.list_tables import TABLES, read_table

    names = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    command = CommandFlags(
        f"tl-keras list [{'|'.join(TABLES)}] --flags\n\n{list_tables.__doc__}",
        examples=("tl-keras list backbones strategies", "tl-keras list experiments --settings --experiment=part_a"),
        extra=LIST_FLAGS,
    )
    given = command.parse(arguments[len(names) :])
    if given is None:
        return
    if given:
        _list_settings(names, command)
        return
    for name in names or TABLES:
        table = read_table(name)
        print(f"{name}:")
        for entry, help in table.items():
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
    rows = [experiment.configure({}) for experiment in chosen]
    _print_columns(list(settings_table(chosen, rows)))
    print(f"# {count_rows(rows)}")


def _print_columns(lines: Sequence[Sequence[str]]) -> None:
    """Print cells aligned on a terminal, and elsewhere separated by tabs."""
    print("\n".join(align_columns(lines) if sys.stdout.isatty() else ("\t".join(line).rstrip() for line in lines)))


def weights(arguments: Sequence[str]) -> None:
    """List, download, verify, convert and inspect files of pre-trained weights."""
    from tl_keras.cli.weights import weights as run_weights

    run_weights(arguments)


def _required(command: CommandFlags, name: str) -> Path:
    if not command.value(name):
        raise ConfigError(f"`{name}` is required. See --help.")
    return Path(command.value(name))


VERBS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "fit": fit,
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "predict": predict,
    "embed": embed,
    "export": export,
    "report": report,
    "sheet": sheet,
    "lr_find": lr_find,
    "list": list_tables,
    "weights": weights,
}

FIRST_STEPS = """\
tl-keras trains, tests and exports an image classifier. photos/ holds a folder of images for each class.
  tl-keras fit photos --dry_run                              finds faults in the images and plans a training of five minutes
  tl-keras fit photos                                        trains, tests, reports and exports by that plan
  tl-keras predict --run_dir=runs/fit/photos new_photo.jpg   names the class of a new photo
All verbs: tl-keras --help. The flags of one, with examples: tl-keras fit --help."""

USAGE = "tl-keras VERB --flags\n\n" + "\n".join(f"  {name:<10}{verb.__doc__}" for name, verb in VERBS.items())
USAGE += "\n\n`tl-keras VERB --help` lists the flags of a verb, `python -m experiments.part_a --help` those of an experiment."
