"""The public names: what they are, that they stay it, and that their examples run; and what a wheel of the package contains."""

import ast
import configparser
import doctest
import importlib
import pkgutil
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tl_keras

ROOT = Path(tl_keras.__file__).parents[1]


def submodules() -> list[str]:
    return [module.name for module in pkgutil.walk_packages(tl_keras.__path__, "tl_keras.") if not module.name.endswith("__main__")]


def python(code: str, directory: Path = ROOT) -> str:
    """Return what a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=directory, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("name", tl_keras.PUBLIC)
def test_a_public_name_stays_the_same_object(name):
    first = getattr(tl_keras, name)
    assert getattr(tl_keras, name) is first
    for module in submodules():
        importlib.import_module(module)
    assert getattr(tl_keras, name) is first is getattr(importlib.import_module(tl_keras.PUBLIC[name]), name)


FRESH = """
import importlib, types
import tl_keras
names = {order}
first = {{name: getattr(tl_keras, name) for name in names}}
for name, value in first.items():
    assert not isinstance(value, types.ModuleType), name
    assert getattr(tl_keras, name) is value is getattr(importlib.import_module(tl_keras.PUBLIC[name]), name), name
print(len(first))
"""


@pytest.mark.parametrize("order", ["list(tl_keras.PUBLIC)", "list(tl_keras.PUBLIC)[::-1]"], ids=["forwards", "backwards"])
def test_public_names_stay_the_same_in_a_fresh_process(order):
    """The order of the first accesses is the order in which the submodules are imported."""
    assert int(python(FRESH.format(order=order))) == len(tl_keras.PUBLIC)


def test_public_names_are_listed():
    assert set(tl_keras.PUBLIC) == set(tl_keras.__all__) <= set(dir(tl_keras))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = tl_keras.absent


def test_public_names_are_documented():
    for name in tl_keras.PUBLIC:
        assert getattr(tl_keras, name).__doc__, name


def test_the_stub_has_the_public_names_from_their_modules():
    stub = ast.parse((ROOT / "tl_keras" / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    found = {alias.asname: node.module for node in imports for alias in node.names}
    assert found == tl_keras.PUBLIC | dict.fromkeys(tl_keras.NAMESPACES, "tl_keras")


@pytest.mark.parametrize("name", tl_keras.NAMESPACES)
def test_the_public_namespaces_are_modules(name):
    assert getattr(tl_keras, name) is importlib.import_module(f"tl_keras.{name}")


def test_no_public_name_equals_a_submodule():
    for name in ["tl_keras", *submodules()]:
        package = importlib.import_module(name)
        if hasattr(package, "__path__"):
            names = {module.name for module in pkgutil.iter_modules(package.__path__)}
            assert not names & set(getattr(package, "__all__", ())), name


def test_the_import_loads_neither_tensorflow_nor_keras():
    code = "import sys, tl_keras; dir(tl_keras); tl_keras.RunConfig, tl_keras.UserError; print({'keras', 'tensorflow'} & set(sys.modules))"
    assert python(code).strip() == "set()"


@pytest.mark.parametrize("name", ["tl_keras", *submodules()])
def test_examples_in_docstrings_give_what_they_show(name, request, tmp_path):
    """Examples may use `finished_run`, the directory of a run on ten digits, and `new_directory`."""
    module = importlib.import_module(name)
    uses_run = any("finished_run" in example.source for found in doctest.DocTestFinder().find(module) for example in found.examples)
    names = {"tl_keras": tl_keras, "new_directory": tmp_path / "new"}
    if uses_run:
        names["finished_run"] = request.getfixturevalue("finished_run").directory
    failed, _ = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert not failed


@pytest.mark.parametrize("name", tl_keras.PUBLIC)
def test_every_public_name_has_an_example(name):
    """`test_examples_in_docstrings_give_what_they_show` runs them."""
    assert any(test.examples for test in doctest.DocTestFinder(recurse=False).find(getattr(tl_keras, name), name))


def test_a_wheel_has_every_module_the_embedded_files_and_the_mark_of_type_hints(tmp_path):
    """`py.typed` tells type checkers to use the package's annotations (PEP 561)."""
    copy = tmp_path / "source"
    for directory in ("tl_keras", "experiments"):
        shutil.copytree(ROOT / directory, copy / directory, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, copy)
    python(f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})", copy)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    sources = {path.relative_to(ROOT).as_posix() for top in ("tl_keras", "experiments") for path in (ROOT / top).rglob("*.py")}
    package = ROOT / "tl_keras"
    embedded = {path.relative_to(ROOT).as_posix() for path in (*package.glob("*/embedded/*"), *package.glob("report/page.*[sj]s"))}
    assert embedded and sources | embedded | {"tl_keras/py.typed", "tl_keras/__init__.pyi"} <= names
    assert not any(name.startswith(("tests", "tools", "benchmarks")) for name in names)


def test_the_command_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    module, _, name = setup["options.entry_points"]["console_scripts"].partition("=")[2].strip().partition(":")
    assert callable(getattr(importlib.import_module(module), name))
