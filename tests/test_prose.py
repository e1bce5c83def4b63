"""The language of the package, as far as a machine can hold it: how docstrings begin, and how messages name settings."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# A docstring names a thing or says what it does; it does not begin with a headless clause ("What frozen layers make of an image ...").
BANNED_FIRST_WORDS = {"What", "Whether", "Where", "Which", "How", "Who", "Why", "Of", "Those"}


def sources(*tops: str) -> list[Path]:
    return sorted(path for top in tops for path in (ROOT / top).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield the constants that are docstrings, of the module and of everything in it."""
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            yield node.body[0].value


def bad_beginnings(text: str) -> list[str]:
    """Return "line: beginning" of the docstrings that begin with a banned word."""
    found = [(constant.lineno, constant.value.strip()) for constant in docstrings(ast.parse(text))]
    return [f"{line}: {content[:60]}" for line, content in found if re.split(r"\W", content, maxsplit=1)[0] in BANNED_FIRST_WORDS]


@pytest.mark.parametrize("path", sources("tl_keras", "experiments", "benchmarks", "tools", "tests"), ids=name_of)
def test_docstrings_begin_with_their_subject_or_verb(path):
    assert not bad_beginnings(path.read_text())


def command_line_words(text: str) -> list[str]:
    """Return "line: text" of the strings that contain "--name" or "flag --", docstrings and whole options of commands aside."""
    tree = ast.parse(text)
    documentation = {id(constant) for constant in docstrings(tree)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [
        f"{node.lineno}: {node.value.strip()[:100]}"
        for node in strings
        if id(node) not in documentation
        and not re.fullmatch(r"--[a-z][\w-]*(=\S*)?", node.value)
        and re.search(r"(?<![\w-])--[a-z]|flag --", node.value)
    ]


@pytest.mark.parametrize("path", [path for path in sources("tl_keras") if "cli" not in path.parts], ids=name_of)
def test_messages_name_settings_as_python_does(path):
    """Messages below the command line say `cache=disk`; cli/flags.py turns that into --cache=disk."""
    assert not command_line_words(path.read_text())


def test_offences_are_found():
    assert bad_beginnings('def f():\n    """What f does."""\n') == ["2: What f does."]
    assert bad_beginnings('"""Whatever f does."""\n') == []
    assert command_line_words('"""See --cache."""\nraise ValueError(f"Raise the flag --{name}, or use --cache=off.")') == [
        "2: Raise the flag --",
        "2: , or use --cache=off.",
    ]
    assert command_line_words('run("git", "describe", "--abbrev=12", "a -- b, a--b", "-----", "| --- |")') == []
