"""Folders at scale: ten thousand classes and a million files are opened, or refused, in bounded time and memory."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tl_keras import data
from tl_keras.cli import verbs
from tl_keras.config import DataConfig
from tl_keras.data.folder_layout import read_layout
from tl_keras.errors import ConfigError
from tl_keras.results import metrics

ROOT = Path(__file__).parents[1]
# Prints a JSON object: seconds of the processor and megabytes at the peak beyond those after the imports.
MEASURE = """
import json, resource, sys, time
from tl_keras.config import DataConfig
from tl_keras.data import load_source, make_splits
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
config, seconds = DataConfig(dataset=f"folder:{sys.argv[1]}"), []
for _ in range(2):  # the second time by the kept checks
    start = time.process_time()
    source = load_source(config)
    seconds.append(time.process_time() - start)
splits = make_splits(source, config, 0)
print(json.dumps({
    "first": seconds[0], "second": seconds[1], "classes": len(source.class_names),
    "images": sum(len(part) for part in source.splits.values()), "train": len(splits.train),
    "mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
}))
"""


def png(*pixel):
    file = io.BytesIO()
    Image.fromarray(np.array([[pixel]], np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_classes(root, number, images=lambda label: 1 + label % 3):
    """Write images of one pixel, all different, in `number` classes."""
    for label in range(number):
        (root / f"class {label:05d}").mkdir(parents=True)
        for index in range(images(label)):
            (root / f"class {label:05d}" / f"{index}.png").write_bytes(png(label >> 8, label & 255, index))


def write_links(root, number, num_classes=10, copies=30_000):
    """Write `number` files that are hard links to some images, at most `copies` to each: file systems allow about 65,000."""
    for label in range(num_classes):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for index in range(number // num_classes):
            path = folder / f"{index:07d}.png"
            if index % copies:
                os.link(folder / f"{index - index % copies:07d}.png", path)
            else:
                path.write_bytes(png(label, index // copies, 7))


def measure(root, cache):
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", MEASURE, str(root)], capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_ten_thousand_classes(tmp_path):
    write_classes(tmp_path / "images", 10_000)
    found = measure(tmp_path / "images", tmp_path / "cache")
    assert (found["classes"], found["images"]) == (10_000, 19_999) and found["train"] >= 10_000
    assert found["first"] < 30 and found["second"] < 15 and found["mb"] < 200, found


@pytest.mark.slow
def test_a_million_files(tmp_path):
    write_links(tmp_path / "images", 1_000_000)
    found = measure(tmp_path / "images", tmp_path / "cache")
    assert (found["classes"], found["images"]) == (10, 1_000_000)
    assert found["first"] < 300 and found["second"] < 120 and found["mb"] < 3000, found


def test_time_and_memory_grow_with_the_number_of_files(tmp_path):
    """Ten times the files of one class, and ten times the classes, take about ten times the time: nothing is quadratic."""
    write_links(tmp_path / "files", 20_000)
    write_classes(tmp_path / "classes", 2_000, images=lambda label: 2)
    files, classes = (measure(tmp_path / name, tmp_path / "cache") for name in ("files", "classes"))
    assert files["images"] == 20_000 and classes["classes"] == 2_000
    assert files["first"] < 15 and files["second"] < 5 and files["mb"] < 100, files
    assert classes["first"] < 8 and classes["second"] < 4 and classes["mb"] < 50, classes


def test_too_few_training_images_for_all_classes_is_one_message(tmp_path, capsys, monkeypatch):
    write_classes(tmp_path / "images", 300)
    monkeypatch.setattr("tl_keras.runs.setup.build_model", lambda *_: pytest.fail("a model is built"))
    flags = [f"--dataset=folder:{tmp_path / 'images'}", "--backbone=tiny", "--weights=none", f"--run_dir={tmp_path / 'run'}"]
    assert verbs.main(["train", *flags, "--limit_train=20"]) == ConfigError.exit_code
    message = capsys.readouterr().err
    assert "include none of 280 of the 300 classes" in message and "and 270 more" in message and len(message) < 1000


def test_a_class_of_many_folders_and_links_is_read_once(tmp_path, monkeypatch):
    write_classes(tmp_path / "images", 20, images=lambda label: 4)
    (tmp_path / "images" / "class 00003" / "link.png").symlink_to("0.png")
    scanned, scandir = [], os.scandir

    def counted(path):
        scanned.append(Path(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", counted)
    layout = read_layout(tmp_path / "images")
    assert len(layout.files) == 81 and scanned.count(tmp_path / "images" / "class 00003") == 1


def test_blocks_do_not_change_an_interval_over_groups(monkeypatch):
    generator = np.random.default_rng(1)
    correct, groups = generator.random(400) < 0.8, generator.integers(0, 90, 400)
    whole = metrics.group_interval(correct, groups, num_resamples=500)
    monkeypatch.setattr(metrics, "MAX_DRAWS", 1000)
    assert metrics.group_interval(correct, groups, num_resamples=500) == whole


def test_a_wrong_class_among_many_has_a_short_message(tmp_path):
    write_classes(tmp_path / "images", 200)
    source = data.load_source(DataConfig(dataset=f"folder:{tmp_path / 'images'}"))
    with pytest.raises(ConfigError, match=r"Did you mean 'class 00017'\? 200 are known, e.g. ") as error:
        data.make_splits(source, DataConfig(keep="class 0017:0.5"), 0)
    assert len(str(error.value)) < 300
