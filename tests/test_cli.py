"""The command line as a user sees it: help without TensorFlow, one message per mistake, a flag for every setting."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tl_keras
from experiments import part_a
from experiments.all import experiments
from tl_keras.cli import experiment, verbs
from tl_keras.cli.flags import CommandFlags
from tl_keras.config import SETTINGS
from tl_keras.errors import ConfigError, TrainingError

ROOT = Path(__file__).parents[1]

# What is asked for, and words of the one message that comes.
MISTAKES = [
    (["--backbone=resnet8"], ["Unknown backbone 'resnet8'", "resnet18"]),
    (["--fraction=0"], ["--fraction=0", "(0, 1]"]),
    (["--fraction=0.3"], ["--fraction", "use --fractions"]),
    (["--fractions=0.1,x"], ["--fractions=0.1,x", "numbers separated by commas"]),
    (["--fractions=0.1,0.1"], ["different numbers"]),
    (["--seeds=1.5"], ["--seeds=1.5"]),
    (["--strategy=train:layer9"], ["layer9", "conv1", "fc7"]),
    (["--data_dir=/nonexistent"], ["/nonexistent", "cifar10", "--on_missing=embedded"]),
    (["--image_size=32"], ["63"]),
    (["--stem=cifar"], ["resnet18"]),
    (["--learning_rate=fast"], ["learning_rate"]),
    (["--optimizer=lamb"], ["sgd", "adamw"]),
    (["--epoch=3"], ["epoch", "Did you mean"]),
    (["--on_missing=guess"], ["embedded, error"]),
    (["--profile=huge"], ["paper, quick, smoke"]),
    (["--rows=pre-trained 30 %"], ["pre-trained 30 %", "pre-trained 10 %"]),
    (["--strategy=last:9"], ["conv1", "fc7"]),
    (["--ema=1"], ["--ema=1", "[0, 1)"]),
    (["--clip_norm=-1"], ["--clip_norm=-1", "0 or more"]),
    (["--label_smoothing=1"], ["--label_smoothing=1", "[0, 1)"]),
    (["--accumulate_steps=0"], ["--accumulate_steps=0", "at least 1"]),
    (["--augmentation=mosaic"], ["mosaic", "crop_flip"]),
    (["--augmentation=mixup+flip"], ["mixup", "last"]),
    (["--keep=cat:2"], ["--keep=cat:2", "(0, 1]"]),
    (["--strategy=lora:rank=0"], ["--strategy=lora:rank=0", "rank"]),
    (["--strategy=batchnorm"], ["batchnorm", "no batchnorm weights"]),
    (["--strategy=`rm`"], ["--strategy=`rm`: ", "strategy '`rm`'"]),
    (["--normalization=zscore"], ["zscore", "imagenet"]),
    (["cifar10"], ["'cifar10'", "--name=value"]),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=lambda value: value[0])
def test_each_mistake_is_one_message_before_anything_runs(arguments, words, tmp_path, capsys, offline):
    code = experiment.experiment_main(part_a.EXPERIMENT, part_a.__doc__, [*arguments, f"--runs_dir={tmp_path / 'runs'}"])
    message = capsys.readouterr().err
    assert code not in (0, None) and message.startswith("error: ") and "Traceback" not in message
    assert all(word in message for word in words), message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("verb", [[], *([verb] for verb in verbs.VERBS)], ids=lambda verb: verb[0] if verb else "none")
def test_help_of_every_verb(verb, capsys):
    assert verbs.main([*verb, "--help"]) == 0
    assert "tl-keras" in capsys.readouterr().out


def test_help_of_an_experiment_shows_the_origins_of_its_settings(capsys):
    assert experiment.experiment_main(part_a.EXPERIMENT, part_a.__doc__, ["--help"]) == 0
    printed = capsys.readouterr().out
    assert "\n  --batch_size [64, said]: " in printed and "\n  --learning_rate [0.001, chosen]: " in printed
    assert "\n  --limit_train [0]: " in printed and "\n  --profile [paper]: " in printed


def test_unknown_verb_lists_the_verbs(capsys):
    assert verbs.main(["learn"]) == 2
    assert ", ".join(sorted(verbs.VERBS)) in capsys.readouterr().err


@pytest.mark.parametrize("table", ["datasets", "backbones", "strategies", "schedules", "augmentations", "experiments"])
def test_list(table, capsys):
    assert verbs.main(["list", table]) == 0
    names = {
        "datasets": "cifar10", "backbones": "vit_b16", "strategies": "last", "schedules": "plateau:patience", "augmentations": "flip",
        "experiments": "part_a",
    }  # fmt: skip
    assert names[table] in capsys.readouterr().out


def test_settings_of_all_experiments_are_lines_of_five_columns(capsys):
    assert verbs.main(["list", "experiments", "--settings"]) == 0
    heading, *lines, last = capsys.readouterr().out.splitlines()
    assert heading.split("\t") == ["experiment", "row", "setting", "value", "origin"]
    cells = [line.split("\t") for line in lines]
    assert {len(line) for line in cells} == {5} and {line[-1] for line in cells} == {"said", "shown", "chosen"}
    assert ["part_a", "from scratch 10 %", "weights", "none", "said"] in cells
    rows = [row for experiment in experiments() for row in experiment.configure({})]
    num_published = sum(bool(row.published or row.published_curve) for row in rows)
    assert len({tuple(line[:2]) for line in cells}) == len(rows)
    assert last == f"# {len(rows)} rows in {len(experiments())} experiments, {num_published} with published values"


def test_settings_of_one_experiment_are_aligned_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert verbs.main(["list", "experiments", "--settings", "--experiment=part_b"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "# 2 rows in 1 experiment, 2 with published values"
    starts = {line.rindex(origin) for line in lines for origin in ("said", "chosen", "origin") if line.endswith(origin)}
    assert len(starts) == 1 and not any("\t" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--settings"], "tl-keras list experiments --settings"),
        (["datasets", "--settings"], "tl-keras list experiments --settings"),
        (["experiments", "--experiment=part_a"], "tl-keras list experiments --settings"),
        (["experiments", "--settings", "--experiment=part_z"], "Unknown experiment 'part_z'"),
        (["experiment"], "Unknown table 'experiment'"),
        (["datasets", "--verbose"], "verbose"),
    ],
)
def test_wrong_arguments_of_list_are_one_message(arguments, words, capsys):
    assert verbs.main(["list", *arguments]) == ConfigError.exit_code
    printed = capsys.readouterr()
    assert words in printed.err and not printed.out


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_a_flag_of_train(name):
    command = CommandFlags("test", settings=list(SETTINGS))
    kind, choices = SETTINGS[name].type, SETTINGS[name].metadata["choices"]
    text = choices[-1] if choices else {str: "x", int: "7", float: "0.25", bool: "true"}[kind]
    assert command.parse([f"--{name}={text}"]) == {name: kind(text) if kind is not bool else True}
    assert f"--{name}" in command.help()


# The verbs call the public names. Other packages are for text, errors and settings, and for what has no public name.
ALLOWED = ("tl_keras.cli", "tl_keras.config", "tl_keras.errors", "tl_keras.utils")
EXCEPTIONS = {
    "given_data.py": {"tl_keras.runs.resolve"},  # names of settings
    "verbs.py": {"tl_keras.runs.fallbacks", "tl_keras.runs.resolve", "tl_keras.data.augmentation_sheet"},  # --on_missing; `sheet`
    "fit.py": {"tl_keras.planning"},  # the plan is part of the command
    "list_tables.py": {"tl_keras.runs.experiment"},  # experiments are not public
    "experiment.py": {"tl_keras.runs.experiment", "tl_keras.runs.origins", "tl_keras.report"},
    "predict.py": {
        "tl_keras.exports.predictor",
        "tl_keras.runs",
        "tl_keras.data.image_inputs",
        "tl_keras.results",
    },  # a model file or an export is no run
    "weights.py": {"tl_keras.backbones", "tl_keras.weights"},
}


def modules_imported_by(path: Path) -> set[str]:
    """Return the modules of tl_keras that a file imports at any depth, apart from those for type annotations alone."""
    tree = ast.parse(path.read_text())
    guarded = {id(node) for block in ast.walk(tree) if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
               for node in ast.walk(block)}  # fmt: skip
    nodes = [node for node in ast.walk(tree) if id(node) not in guarded]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name for name in names if name.split(".")[0] == "tl_keras"}


@pytest.mark.parametrize("path", sorted(Path(verbs.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_the_command_line_is_a_thin_caller_of_the_public_names(path):
    allowed = [*ALLOWED, *EXCEPTIONS.get(path.name, ())]
    internal = modules_imported_by(path) - {"tl_keras"}
    assert [name for name in internal if not any(f"{name}.".startswith(f"{known}.") for known in allowed)] == []


# Verb -> the public function or method that it calls, and its flags that are neither a setting nor an argument of that.
CALLS = {
    "fit": (tl_keras.fit, {"budget", "dry_run"}),
    "train": (tl_keras.fit, {"on_missing", "explain", "dry_run"}),
    "evaluate": (tl_keras.Run.evaluate, {"run_dir"}),
    "predict": (tl_keras.Run.predict, {"run_dir", "model", "top", "json", "csv", "output", "threshold", "saliency"}),
    "embed": (tl_keras.Run.embed, {"run_dir", "model", "output"}),
    "export": (tl_keras.Run.export, {"run_dir", "output"}),
    "compare": (tl_keras.compare, set()),
    "lr_find": (tl_keras.lr_find, set()),
    "report": (tl_keras.write_report, set()),
}


@pytest.mark.parametrize("verb", CALLS)
def test_every_flag_is_a_setting_or_an_argument(verb, capsys):
    verbs.main([verb, "--help"])
    flags = set(re.findall(r"^  --(\w+)", capsys.readouterr().out, re.MULTILINE))
    call, presentation = CALLS[verb]
    assert flags <= {*SETTINGS, *inspect.signature(call).parameters, *presentation}
    assert presentation <= flags


def without_times(result):
    """Return a result without times, and without the name of the run, which is that of its directory."""
    if isinstance(result, dict):
        return {key: without_times(value) for key, value in result.items() if key not in ("seconds", "finished", "name")}
    return [without_times(value) for value in result] if isinstance(result, list) else result


def test_the_verbs_give_what_python_gives(tmp_path, capsys):
    settings = {
        "backbone": "tiny",
        "weights": "none",
        "epochs": 1,
        "fraction": 0.2,
        "limit_test": 60,
        "precision": "float32",
        "batch_size": 32,
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    assert verbs.main(["train", "--dataset=digits", *flags, f"--run_dir={tmp_path / 'verb'}"]) == 0
    run = tl_keras.fit("digits", tmp_path / "python", verbose=0, **settings)
    verb = tl_keras.load_run(tmp_path / "verb")
    assert without_times(verb.result) == without_times(run.result)
    capsys.readouterr()
    assert verbs.main(["evaluate", f"--run_dir={verb.path}"]) == 0
    assert capsys.readouterr().out.strip() == str(run.evaluate())
    assert verbs.main(["compare", f"verb={verb.path}", f"python={run.path}", "--reference=verb"]) == 0
    assert capsys.readouterr().out == str(tl_keras.compare({"verb": [verb], "python": [run]}, reference="verb")) + "\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "`reference`"),
        (["--reference=a", "runs/a"], "Expected NAME=DIR,DIR, received 'runs/a'"),
        (["--reference=a", "a=nowhere"], "There is no directory nowhere"),
    ],
)
def test_wrong_comparisons_are_one_message(arguments, words, capsys):
    assert verbs.main(["compare", *arguments]) != 0
    assert words.replace("`reference`", "--reference") in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "experiments.part_a", "--help"),
        ("-m", "tl_keras", "train", "--help"),
        ("-m", "tl_keras", "list", "experiments", "--settings"),
        ("-c", "import tl_keras"),
    ],
)
def test_start_up_loads_no_tensorflow(arguments):
    """Imports decide how fast the start is. Unlike a time, they do not depend on how busy the machine is."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "tl_keras" in imported and not imported & {"tensorflow", "keras", "keras_cv", "tensorflow_datasets", "matplotlib"}


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (TrainingError("diverged"), 5, "diverged"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "--batch_size"),
        (OSError(28, "No space left on device", "model.keras"), 1, "No space left on device: model.keras"),
    ],
)
def test_an_error_that_the_user_can_fix_is_one_message(error, code, words, capsys):
    def fail():
        raise error

    assert verbs.run_command(fail) == code
    assert words in capsys.readouterr().err


def test_defects_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        verbs.run_command(lambda: 1 / 0)
