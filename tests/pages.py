"""Runs the code blocks of Markdown pages in order, as a reader would type them. README.md and the tutorial are tested with it.

A comment at the end of a shell line may mark it:

    # long        run by `make test-slow`
    # needs ...   not run, since data, weights or a network are missing; its flags are parsed
    # setup       not run: creates the environment that the tests run in

All other lines of a page run in one scratch directory, in this process, without a network. Later lines use the files of earlier ones.
The fixtures `reader` and `namespace` are in conftest.py.
"""

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tl_keras.cli.flags import CommandFlags

ROOT = Path(__file__).parents[1]
MARKERS = ("long", "needs", "setup")
SETUP_COMMANDS = ("git", "cd", "make", "source")
RUNNERS = ("make", "python", "pytest", "tl-keras")
BUNDLED_MODEL = ("--backbone=alexnet_narrow", "--weights=glyphs", "--image_size=64")


@dataclass(frozen=True)
class Step:
    """One shell command, or one Python block.

    Attributes:
        line: its first line on the page, from 1.
        language: `sh` or `python`, or that of a block that is not run.
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
    """Yield the commands and the other blocks of a Markdown text in order."""
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


def parameters(text: str) -> list[Any]:
    """Return the commands and Python blocks of a page as parameters of a test; long ones are slow."""
    return [
        pytest.param(step, id=f"{step.line}: {step.text.splitlines()[0][:60]}", marks=pytest.mark.slow if step.marker == "long" else ())
        for step in steps(text)
        if step.language in ("sh", "python")
    ]


def without_blocks(text: str) -> str:
    """Return a Markdown text without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def code_spans(text: str) -> list[str]:
    """Return the code spans of a Markdown text outside its code blocks."""
    return re.findall(r"`([^`\n]+)`", without_blocks(text))


def check_step(
    step: Step, reader: pytest.MonkeyPatch, namespace: dict[str, Any], adapt: Callable[[list[str]], list[str]] = lambda arguments: arguments
) -> None:
    """Run a step, or parse the flags of one that needs what is absent. Fail if it fails.

    Args:
        adapt: changes the arguments of each program that is run, to a model that is available or small.
    """
    if step.language == "python":
        run_python(step.text, namespace)
    elif step.marker == "setup":
        assert step.text.split()[0] in SETUP_COMMANDS
    else:
        programs = program(step.text)
        assert programs
        for module, arguments in programs:
            if step.marker == "needs":
                parse(module, arguments, reader)
            else:
                assert run(module, adapt(arguments), reader) == 0


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


def run_python(code: str, namespace: dict[str, Any]) -> None:
    """Run a block. An expression with a comment after it, e.g. `len(names)  # 2`, must have that value."""
    exec(compile(code, "page", "exec"), namespace)
    lines = code.splitlines()
    for node in ast.parse(code).body:
        comment = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")[2].strip()
        if isinstance(node, ast.Expr) and comment:
            assert repr(eval(ast.unparse(node), namespace)) == comment


def with_bundled_model(arguments: list[str]) -> list[str]:
    """Replace EfficientNet-Lite by the bundled model, which is small."""
    return [*arguments, *BUNDLED_MODEL] if "--backbone=efficientnet_lite0" in arguments else arguments


def write_pictures(directory: Path) -> None:
    """Write a folder of 24 pictures: dark ones of cats, bright ones of dogs."""
    rng = np.random.default_rng(0)
    for name, brightness in (("cat", 60), ("dog", 180)):
        folder = directory / name
        folder.mkdir(parents=True)
        for index in range(12):
            pixels = rng.normal(brightness, 30, (48 + index, 64, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.jpg")
