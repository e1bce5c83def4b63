"""The extensions of docs/extending.md: each diff is one edit that applies to the package as it is, and all work together."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
CHECKS = Path(__file__).with_name("extension_checks.py")

# Section of the page -> its check in extension_checks.py.
SECTIONS = {
    "A backbone": "backbone",
    "A data set": "dataset",
    "A strategy": "strategy",
    "An augmentation": "augmentation",
    "A schedule": "schedule",
    "A metric of the report": "metric",
    "An experiment": "experiment",
}


def read_diffs() -> dict[str, list[str]]:
    """Return section -> its diffs."""
    _, *sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    titles_and_texts = (section.split("\n", 1) for section in sections)
    return {title: re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for title, text in titles_and_texts}


DIFFS = {title: "".join(diffs) for title, diffs in read_diffs().items()}


def copy_package(directory: Path) -> Path:
    """Copy what the diffs and their checks use into `directory`."""
    for name in ("tl_keras", "experiments"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, directory)
    return directory


def apply(title: str, directory: Path, *options: str) -> None:
    """Apply the diff of a section to a copy, without fuzz: its context lines must be those of the file."""
    # A repository around the temporary directory would make git skip files silently.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(directory.parent)}
    command = ["git", "apply", *options, "-"]
    done = subprocess.run(command, cwd=directory, input=DIFFS[title], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, (
        f"docs/extending.md, section {title!r}: the diff no longer applies. Update the page to the current code.\n{done.stderr}"
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package as it is."""
    return copy_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """Extension -> traceback of its check, in one process for all, on a copy with all extensions."""
    directory = copy_package(tmp_path_factory.mktemp("extended"))
    for title in SECTIONS:
        apply(title, directory)
    environment = os.environ | {"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, str(CHECKS)], cwd=directory, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_section_has_one_diff_and_a_check():
    assert {title: len(diffs) for title, diffs in read_diffs().items()} == dict.fromkeys(SECTIONS, 1)


@pytest.mark.parametrize("title", SECTIONS)
def test_an_extension_is_one_edit_that_removes_nothing(title):
    starts = [line[:3] for line in DIFFS[title].splitlines()]
    assert (starts.count("---"), starts.count("+++"), starts.count("@@ ")) == (1, 1, 1)
    assert not any(start.startswith("-") for start in starts if start != "---")


@pytest.mark.parametrize("title", SECTIONS)
def test_a_diff_applies_alone_to_the_package_as_it_is(title, package):
    apply(title, package, "--check")


@pytest.mark.parametrize("title", SECTIONS)
def test_an_extension_does_what_the_page_says(title, failures):
    assert not failures[SECTIONS[title]], failures[SECTIONS[title]]
