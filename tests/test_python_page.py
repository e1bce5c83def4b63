"""docs/python.md: its blocks run in order, as a reader would type them, with a small model instead of those that they name."""

import ast
import re
from itertools import dropwhile, takewhile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tl_keras
from tl_keras.interface import fitting
from tl_keras.strategies import Lora

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
SMALL = {"backbone": "tiny", "image_size": 16, "batch_size": 8, "precision": "float32"}


def write_photos(directory):
    for label, name in enumerate(("cat", "dog")):
        (directory / name).mkdir(parents=True)
        for index in range(12):
            pixels = np.random.default_rng(24 * label + index).integers(0, 100, (12, 10, 3)) + 150 * label
            Image.fromarray(pixels.astype(np.uint8)).save(directory / name / f"{index}.jpg")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The folders and the table that the page names."""
    for name in ("photos", "hospital_b"):
        write_photos(tmp_path / name)
    (tmp_path / "inbox").symlink_to(tmp_path / "photos" / "dog")
    rows = [f"photos/{name}/{index}.jpg,{name},{name}{index // 2}" for name in ("cat", "dog") for index in range(12)]
    (tmp_path / "photos.csv").write_text("\n".join(["file,diagnosis,patient", *rows]))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small_models(monkeypatch):
    """Let every call train `SMALL` from random weights, or from the run that it names; adapters have other targets in it."""
    resolve = fitting._resolve

    def resolve_small(images, config, settings):
        if config is not None:
            return resolve(images, config, settings)
        strategy = settings.get("strategy", "full")
        own = {"strategy": Lora(rank=2, targets=("all",)) if isinstance(strategy, Lora) else strategy}
        return resolve(images, config, {"weights": "none", "epochs": 1, **settings, **SMALL, **own})

    monkeypatch.setattr(fitting, "_resolve", resolve_small)


def expected_values(code):
    """Yield the expressions of a block that a comment gives the value of, with that value."""
    for line in code.splitlines():
        expression, mark, value = line.partition("  # ")
        if mark and re.fullmatch(r"'[^']*'", value):
            yield expression, ast.literal_eval(value)


def test_the_examples_run_in_order(files, small_models, capsys):
    names = {}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(code, "docs/python.md", "exec"), names)
        for expression, value in expected_values(code):
            assert eval(expression, names) == value
    printed = capsys.readouterr().out
    assert "95 % Wilson" in printed and "reference head; sign-flip permutation over groups" in printed
    assert Path("predictions.csv").read_text().startswith("file,label,confidence,cat,dog\n")
    assert names["full"].config.train.learning_rate == 1e-4 and str(names["head"].path) == names["full"].config.model.weights


def test_every_public_name_is_on_the_page():
    shown = set(re.findall(r"\btl\.(\w+)", PAGE)) | set(re.findall(r"`(\w+)`", PAGE))
    classes = {"Comparison", "Evaluation", "Predictions"}  # what functions return
    assert set(tl_keras.PUBLIC) - classes <= shown | {"RunConfig", "write_report", "Run"}
    headings = list(takewhile(lambda line: line != "## Behaviour", dropwhile(lambda line: not line.startswith("## "), PAGE.splitlines())))
    assert sum(line.startswith("## ") for line in headings) == 8
