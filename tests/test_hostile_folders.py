"""Folders at scale: ten thousand classes and a million files are opened, or refused, in bounded memory."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tl_keras import ImageData
from tl_keras.cli import verbs
from tl_keras.config import DataConfig
from tl_keras.data import load_source, make_splits
from tl_keras.data.folder_layout import read_layout
from tl_keras.errors import ConfigError
from tl_keras.report import error_analysis
from tl_keras.results import metrics
from tl_keras.results.calibration import calibrated_metrics, fit_temperature
from tl_keras.results.split_record import TEST, TRAIN
from tl_keras.runs.run_data import with_recorded_splits

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
    print(found)  # with the seconds, which depend on the machine
    assert found["mb"] < 200, found


@pytest.mark.slow
def test_a_million_files(tmp_path):
    write_links(tmp_path / "images", 1_000_000)
    found = measure(tmp_path / "images", tmp_path / "cache")
    assert (found["classes"], found["images"]) == (10, 1_000_000)
    print(found)
    assert found["mb"] < 3000, found


def test_memory_grows_with_the_number_of_files(tmp_path):
    write_links(tmp_path / "files", 20_000, copies=500)
    write_classes(tmp_path / "classes", 2_000, images=lambda label: 2)
    files, classes = (measure(tmp_path / name, tmp_path / "cache") for name in ("files", "classes"))
    assert files["images"] == 20_000 and classes["classes"] == 2_000
    assert files["mb"] < 100, files
    assert classes["mb"] < 50, classes


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


def test_images_that_are_all_copies_are_one_message(tmp_path, capsys):
    write_links(tmp_path / "images", 40, num_classes=2)
    flags = ["--backbone=tiny", "--weights=none", f"--run_dir={tmp_path / 'run'}"]
    assert verbs.main(["train", f"--dataset=folder:{tmp_path / 'images'}", *flags]) == ConfigError.exit_code
    assert "is left for testing" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_copies_of_one_picture_are_found_again_by_their_paths(tmp_path):
    write_links(tmp_path / "images", 4000, num_classes=2, copies=500)
    images = ImageData.from_directory(tmp_path / "images")
    fixed = images.split(seed=3)
    start = time.process_time()
    source = with_recorded_splits(fixed.record, load_source(fixed.config))
    assert time.process_time() - start < 5
    paths = np.array(source.train.images.paths)
    recorded = {
        split: set(fixed.record.paths[fixed.record.splits == number].tolist()) for split, number in (("train", TRAIN), ("test", TEST))
    }
    assert recorded == {split: set(paths[getattr(source, split).indices].tolist()) for split in recorded}


def test_blocks_do_not_change_an_interval_over_groups(monkeypatch):
    generator = np.random.default_rng(1)
    correct, groups = generator.random(400) < 0.8, generator.integers(0, 90, 400)
    whole = metrics.group_interval(correct, groups, num_resamples=500)
    monkeypatch.setattr(metrics, "MAX_DRAWS", 1000)
    assert metrics.group_interval(correct, groups, num_resamples=500) == whole


def test_blocks_do_not_change_a_temperature_nor_what_it_gives(monkeypatch):
    generator = np.random.default_rng(2)
    logits, labels = generator.normal(size=(90, 7)).astype(np.float32), generator.integers(0, 7, 90)
    whole = fit_temperature(logits, labels)
    expected = calibrated_metrics(logits, labels, whole)
    monkeypatch.setattr(metrics, "MAX_BLOCK", 50)
    assert fit_temperature(logits, labels) == pytest.approx(whole, rel=1e-12)
    assert calibrated_metrics(logits, labels, whole) == expected


def test_a_wrong_class_among_many_has_a_short_message(tmp_path):
    write_classes(tmp_path / "images", 200)
    source = load_source(DataConfig(dataset=f"folder:{tmp_path / 'images'}"))
    with pytest.raises(ConfigError, match=r"Did you mean 'class 00017'\? 200 are known, e.g. ") as error:
        make_splits(source, DataConfig(keep="clas 00017:0.5"), 0)
    assert len(str(error.value)) < 300


def test_of_many_classes_those_with_the_most_errors_are_drawn(monkeypatch):
    confusion = np.diag([5, 5, 5, 5]) + np.array([[0, 0, 0, 1], [0, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]])
    classes = np.array([0, 1, 2, 3])
    assert error_analysis.most_confused(confusion, classes).tolist() == [0, 1, 2, 3]
    monkeypatch.setattr(error_analysis, "MAX_CLASSES_OF_MATRIX", 2)
    assert error_analysis.most_confused(confusion, classes).tolist() == [0, 2]
    assert error_analysis.most_confused(confusion, classes[1:]).tolist() == [2, 3]
