"""The help of every command: first steps, examples that parse, and flags under headings."""

import importlib
import re
import shlex

import pytest

from benchmarks.__main__ import main as benchmarks_main
from experiments.all import experiments
from tl_keras.cli import experiment, verbs
from tl_keras.cli.flags import HEADINGS, CommandFlags
from tl_keras.cli.weights import ACTIONS
from tl_keras.config import SETTINGS

EXPERIMENTS = {found.name: found for found in experiments()}


def call(command):
    """Call what a command line calls, by its first words."""
    words = shlex.split(command)
    if words[0] == "tl-keras":
        return verbs.main(words[1:])
    assert words[:2] == ["python", "-m"]
    if words[2] == "benchmarks":
        return benchmarks_main(words[3:])
    name = words[2].removeprefix("experiments.")
    if name == "all":
        return experiment.all_experiments_main(list(EXPERIMENTS.values()), "all", words[3:])
    return experiment.experiment_main(EXPERIMENTS[name], importlib.import_module(words[2]).__doc__, words[3:])


COMMANDS = [
    *(f"tl-keras {verb}" for verb in verbs.VERBS),
    *(f"tl-keras weights {action}" for action in ACTIONS),
    *(f"python -m experiments.{name}" for name in [*EXPERIMENTS, "all"]),
    "python -m benchmarks",
]


def examples_in(printed):
    block = re.search(r"^examples:\n((?:  .*\n)+)", printed, re.MULTILINE)
    assert block, printed
    return [line.strip() for line in block[1].splitlines()]


@pytest.fixture
def parsed(monkeypatch):
    """The flags and operands of every command line that is parsed. The command then ends."""
    found, parse = [], CommandFlags.parse

    def stop(self, arguments):
        if (given := parse(self, arguments)) is not None:
            found.append((given, self.operands))

    monkeypatch.setattr(CommandFlags, "parse", stop)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_examples_that_parse(command, parsed, capsys):
    assert call(f"{command} --help") == 0 and not parsed
    examples = examples_in(capsys.readouterr().out)
    for example in examples:
        assert example == command or example.startswith(f"{command} ") or command == "tl-keras weights"
        assert call(example) == 0, capsys.readouterr().err
    assert len(parsed) == len(examples)


@pytest.mark.parametrize("name", [*EXPERIMENTS, "all"])
def test_the_command_in_the_text_of_an_experiment_parses(name, parsed):
    text = importlib.import_module(f"experiments.{name}").__doc__
    (command,) = re.findall(r"^Command: .*?`(python -m [^`]+)`", text, re.MULTILINE)
    assert call(command) == 0 and len(parsed) == 1


def test_without_arguments_five_lines_lead_to_a_result(parsed, capsys):
    assert verbs.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [re.split(r"\s{2,}", line.strip())[0] for line in lines if line.startswith("  tl-keras")]
    assert len(lines) == 5 and [command.split()[1] for command in commands] == ["fit", "fit", "predict"]
    assert all(call(command) == 0 for command in commands) and len(parsed) == 3
    assert "tl-keras --help" in lines[-1] and not set(verbs.VERBS) <= set(" ".join(lines).split())


def test_help_without_a_verb_lists_every_verb(capsys):
    assert verbs.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^  (\w+) ", printed, re.MULTILINE) == list(verbs.VERBS)


def test_flags_are_listed_once_under_headings_and_the_most_used_come_first(capsys):
    assert sorted({name for names in HEADINGS.values() for name in names}) == sorted(SETTINGS)
    verbs.main(["train", "--help"])
    printed = capsys.readouterr().out
    headings = re.findall(r"^(\S.*):$", printed, re.MULTILINE)
    assert headings == ["examples", "flags", *HEADINGS]
    flags = re.findall(r"^  --(\w+)", printed, re.MULTILINE)
    assert len(set(flags)) == len(flags) and set(SETTINGS) < set(flags)
    assert flags[4:6] == ["dataset", "backbone"]


@pytest.mark.parametrize("verb", ["evaluate", "export"])
def test_settings_of_a_finished_run_have_no_default_in_the_help(verb, capsys):
    verbs.main([verb, "--help"])
    lines = dict(re.findall(r"^  --(\w+)(.*)$", capsys.readouterr().out, re.MULTILINE))
    assert "label_column" in lines and all(lines[name].startswith(": ") for name in lines if name in SETTINGS)


def test_help_is_wrapped_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "70")
    verbs.main(["train", "--help"])
    flags = capsys.readouterr().out.partition("flags:")[2].splitlines()
    assert max(map(len, flags)) <= 70 and any(line.startswith("      ") for line in flags)
