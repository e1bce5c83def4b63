"""Checks of the extensions in docs/extending.md. tests/test_extending.py runs them in a copy of the package that has all of them.

Prints a JSON object: extension -> traceback of its check, or an empty string if the check passed.
"""

import csv
import json
import subprocess
import tempfile
import traceback
from pathlib import Path

import numpy as np
from report_builder import make_experiment, make_row
from test_data_tfds import pixels, write_set

import tl_keras
from experiments.all import experiments
from tl_keras import report
from tl_keras.backbones import build_classifier, stage_layers
from tl_keras.cli.flags import CommandFlags
from tl_keras.cli.list_tables import read_table
from tl_keras.config import DataConfig, RunConfig, TrainConfig
from tl_keras.data import get_augmentation, load_source
from tl_keras.data.augmentation import augment_fn
from tl_keras.data.geometry import Geometry
from tl_keras.data.registry import find_dataset
from tl_keras.errors import ConfigError
from tl_keras.report import tables
from tl_keras.results.predictions import read_predictions
from tl_keras.results.run_directory import RESULT
from tl_keras.runs.experiment import PROFILES
from tl_keras.runs.resolve import resolve
from tl_keras.training.evaluation import compute_metrics
from tl_keras.training.schedules import Schedule


def error_of(function, *arguments):
    """Return the message of the ConfigError that `function` raises."""
    try:
        function(*arguments)
    except ConfigError as error:
        return str(error)
    raise AssertionError(f"{function.__name__}{arguments} raises no ConfigError")


def backbone(directory):
    """ViT-Ti/16 has the parameters of timm's vit_tiny_patch16_224, every stage, and finite logits at another image size."""
    model = build_classifier("vit_ti16", 1000)
    assert model.count_params() == 5_717_416
    blocks = [f"block{number}" for number in range(1, 13)]
    stages = stage_layers(model, "vit_ti16")
    assert list(stages) == ["embed", *blocks, "norm", "head"]
    assert sum(layer.count_params() for stage in stages.values() for layer in stage) == model.count_params()
    logits = np.asarray(build_classifier("vit_ti16", 3, image_size=32)(np.zeros((2, 32, 32, 3), np.float32)))
    assert logits.shape == (2, 3) and np.isfinite(logits).all()
    assert "vit_ti16" in read_table("backbones")


def dataset(directory):
    """A prepared directory of the data set is read, with the crop of the entry; its labels are checked without opening it."""
    write_set(directory, name="oxford_flowers102")
    source = load_source(DataConfig(dataset="oxford_flowers102", data_dir=str(directory)))
    assert (len(source.train), len(source.test), source.class_names) == (9, 6, ("ant", "bee", "cat"))
    np.testing.assert_array_equal(source.test.image(5), pixels(5, (4, 5)))
    assert "oxford_flowers102 has label" in error_of(find_dataset, DataConfig(dataset="oxford_flowers102", label="kind"))
    assert "102 species" in read_table("datasets")["oxford_flowers102"]


def strategy(directory):
    """`first:2` trains the first two stages and the head in one phase; a backbone with fewer stages refuses it."""
    config = RunConfig().replace(dataset="digits", backbone="tiny", weights="none", epochs=3)
    (phase,) = resolve(config.replace(strategy="first:1")).phases
    assert (dict(phase.trainable), phase.epochs) == ({"stem": "all", "head": "all"}, 3)
    (phase,) = resolve(config.replace(strategy="first:2", backbone="resnet18")).phases
    assert list(phase.trainable) == ["stem", "layer1", "head"]
    assert "stem, body" in error_of(resolve, config.replace(strategy="first:3"))
    assert "first" in read_table("strategies")


def augmentation(directory):
    """`flip_vertical` mirrors some images top to bottom, leaves the others, and can be combined."""
    images = np.random.default_rng(0).integers(0, 256, (32, 5, 7, 3), np.uint8)
    seeds = np.stack([np.zeros(32, np.int64), np.arange(32)], axis=1)
    augmented = np.asarray(augment_fn("flip_vertical", Geometry(5, 1.0))(images, seeds))
    is_mirrored = (augmented == images[:, ::-1]).all(axis=(1, 2, 3))
    is_unchanged = (augmented == images).all(axis=(1, 2, 3))
    assert (is_mirrored ^ is_unchanged).all() and 8 < is_mirrored.sum() < 24
    assert get_augmentation("flip_vertical+mixup").mixer
    assert "flip_vertical" in read_table("augmentations")


def schedule(directory):
    """`linear` is accepted as a setting and as a flag, and falls from 1 towards 0 after the warm-up."""
    linear = Schedule(TrainConfig(schedule="linear", epochs=3, warmup_epochs=1.0), updates_per_epoch=10)
    np.testing.assert_allclose([linear.factor(step) for step in (0, 10, 15, 20, 29)], [1 / 11, 1, 0.75, 0.5, 0.05])
    assert CommandFlags("train", settings=["schedule"]).parse(["--schedule=linear"]) == {"schedule": "linear"}


def metric(directory):
    """The Brier score is computed, in the result, and a column of the report; without it, a run that finished before is still read."""
    labels = np.array([0, 1, 2, 3])
    assert abs(compute_metrics(np.zeros((4, 4), np.float32), labels)["brier_score"] - 0.75) < 1e-6
    assert compute_metrics(50 * np.eye(4, dtype=np.float32), labels)["brier_score"] < 1e-6

    results = make_experiment(directory, rows=[make_row("pre-trained", 0.1)], num_test=200)
    logits, labels = read_predictions(directory / "run0-seed0")
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.mean(np.sum((probabilities - np.eye(10)[labels]) ** 2, axis=1))
    table = tables.make_table(results, tables.FURTHER_COLUMNS)
    assert table.rows[0][table.headings.index("Brier score")] == f"{expected:.4f}"
    (line,) = csv.DictReader(tables.results_csv(results).splitlines())
    assert abs(float(line["brier_score"]) - expected) < 1e-5

    path = directory / "run0-seed0" / RESULT
    result = json.loads(path.read_text())
    del result["metrics"]["test"]["brier_score"]
    path.write_text(json.dumps(result))
    older = report.load_experiment(directory / report.EXPERIMENT_FILE)
    assert "Brier score" not in tables.make_table(older, tables.FURTHER_COLUMNS).headings


def experiment(directory):
    """`label_smoothing` is found by name, has two rows that resolve in every profile, and has a make target."""
    assert read_table("experiments")["label_smoothing"].startswith("Label smoothing of ResNet18")
    added = {entry.name: entry for entry in experiments()}["label_smoothing"]
    for profile in PROFILES:
        rows = added.configure({}, profile)
        assert [row.config.train.label_smoothing for row in rows] == [0.0, 0.1]
        assert all(resolve(row.config).backbone.name == "resnet18" for row in rows)
    settings = added.settings_of(added.configure({}))
    assert [each["label_smoothing"] for each in settings] == [(0.0, "chosen"), (0.1, "chosen")]
    done = subprocess.run(["make", "--dry-run", "exp-label-smoothing"], capture_output=True, text=True)
    assert "-m experiments.label_smoothing " in done.stdout, done.stderr


def failure(check):
    """Return the traceback of a check, or an empty string if it passed."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            check(Path(directory))
        except Exception:
            return traceback.format_exc()
    return ""


if __name__ == "__main__":
    assert Path(tl_keras.__file__).is_relative_to(Path.cwd()), "the checks are for the copy"
    checks = (backbone, dataset, strategy, augmentation, schedule, metric, experiment)
    print(json.dumps({check.__name__: failure(check) for check in checks}))
