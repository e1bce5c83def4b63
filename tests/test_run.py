"""Whole runs and a whole experiment on the embedded data: exact files, no repeated work, resuming, and the gain of pre-training."""

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from plain_config import PLAIN

from experiments import part_a
from tl_keras.cli import experiment, verbs
from tl_keras.errors import ConfigError, MissingError
from tl_keras.feature_cache import store
from tl_keras.results import run_directory
from tl_keras.runs.evaluate import evaluate_run
from tl_keras.runs.resolve import check_available, resolve
from tl_keras.runs.run import run
from tl_keras.runs.setup import build_setup
from tl_keras.training import evaluation

ROOT = Path(__file__).parents[1]
FINISHED = {
    ".lock", "config.json", "history.csv", "mistakes.npz", "model.keras", "predictions.npz", "result.json", "split.npz", "test_images.npz",
}  # fmt: skip


def test_a_run_leaves_exactly_its_files(finished_run, tiny_config):
    directory, result = finished_run.directory, finished_run.result
    assert {path.name for path in directory.iterdir()} == FINISHED
    assert json.loads((directory / "config.json").read_text())["identity"] == tiny_config.identity()
    assert [row["epoch"] for row in run_directory.read_history(directory)] == [1, 2, 3]
    assert result == run_directory.load_result(directory)
    assert result["data"]["num_test"] == 99 and result["data"]["limited"] and result["data"]["embedded"]
    assert result["selection"]["rule"] == "best" and result["phases"][0]["audit"]["unchanged"] == 0


def test_the_metrics_are_those_of_the_predictions_and_of_the_saved_model(finished_run):
    directory, result = finished_run.directory, finished_run.result
    with np.load(directory / "predictions.npz") as predictions:
        correct = predictions["logits"].argmax(axis=1) == predictions["labels"]
    assert correct.mean() == result["metrics"]["test"]["accuracy"] and len(correct) == 99
    again = evaluate_run(directory, {}).metrics
    assert again["accuracy"] == result["metrics"]["test"]["accuracy"]
    assert again["loss"] == pytest.approx(result["metrics"]["test"]["loss"], rel=1e-6)
    assert evaluate_run(directory, {"limit_test": 0}).metrics["num_examples"] == 500


@pytest.mark.parametrize(
    "settings", [{}, pytest.param({"xla": "on"}, marks=pytest.mark.slow), {"strategy": "head", "cache": "memory"}], ids=str
)
def test_resizing_on_the_device_gives_the_results_of_the_pipeline(tiny_config, tmp_path, monkeypatch, settings):
    config = tiny_config.replace(**{"epochs": 2, "augmentation": "flip", "cache_views": 2, **settings})
    spec = build_setup(resolve(config)).batches.training(0).element_spec[0]
    assert spec.dtype == "uint8" and spec.shape[1:] == (8, 8, 3)  # digits as they are, for the device to enlarge
    found = []
    for resized_by in ("device", "pipeline"):
        run(config, tmp_path / resized_by)
        with np.load(tmp_path / resized_by / "predictions.npz") as predictions:
            found.append(predictions["logits"])
        store.shared_store.cache_clear()
        monkeypatch.setattr("tl_keras.data.geometry.Geometry.resizes_on_device", False)
    np.testing.assert_allclose(*found, rtol=0, atol=1e-5)


def test_a_finished_run_is_not_trained_again(finished_run, tiny_config, monkeypatch):
    directory, result = finished_run.directory, finished_run.result
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    monkeypatch.setattr("tl_keras.runs.run._run", lambda *arguments: pytest.fail("trained again"))
    assert run(tiny_config, directory) == result
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_the_test_split_is_scored_once_and_last(tiny_config, tmp_path, monkeypatch):
    """Validation is scored after each epoch, and once more for the temperature."""
    scored = []
    predict_logits = evaluation.predict_logits

    def count(*arguments):
        logits, labels = predict_logits(*arguments)
        scored.append(len(labels))
        return logits, labels

    for module in ("tl_keras.training.trainer", "tl_keras.training.evaluation"):
        monkeypatch.setattr(f"{module}.predict_logits", count)
    data = run(tiny_config.replace(epochs=2, fraction=0.1), tmp_path / "run")["data"]
    assert data["num_validation"] != data["num_test"]
    assert scored == [data["num_validation"]] * 3 + [data["num_test"]]


def test_another_configuration_is_refused_in_the_same_directory(finished_run, tiny_config):
    directory = finished_run.directory
    with pytest.raises(ConfigError, match="learning_rate"):
        run(tiny_config.replace(learning_rate=0.1), directory)


def test_a_run_with_a_damaged_result_is_unfinished(finished_run, tmp_path):
    directory = finished_run.directory
    (tmp_path / "result.json").write_text((directory / "result.json").read_text()[:200])
    (tmp_path / "config.json").write_text((directory / "config.json").read_text())
    with pytest.raises(ConfigError, match="unfinished"):
        run_directory.load_result(tmp_path)


def test_the_split_is_nested_and_the_same_for_every_strategy(finished_run, tiny_config, tmp_path):
    """The test images and their order are those of the source, so that runs can be compared image by image."""
    directory = finished_run.directory
    other = run(tiny_config.replace(strategy="head", epochs=1, fraction=0.1), tmp_path / "head")
    with np.load(directory / "predictions.npz") as one, np.load(tmp_path / "head" / "predictions.npz") as two:
        np.testing.assert_array_equal(one["labels"], two["labels"])
    assert other["phases"][0]["trainable_parameters"] == 16 * 10 + 10
    assert other["phases"][0]["audit"] == {"changed": 2, "unchanged": 12, "below_resolution": 0}


KILLED = """
import os, signal, sys
from pathlib import Path
import keras
from tl_keras.config import RunConfig
from tl_keras.runs.run import run
import json
class Kill(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
run(RunConfig.from_dict(json.loads(sys.argv[1])), Path(sys.argv[2]), callbacks=[Kill()])
"""


def test_a_killed_process_loses_at_most_an_epoch(finished_run, tiny_config, tmp_path):
    """After SIGKILL in the second epoch there is no result, and the same command ends with the weights of the uninterrupted run."""
    directory, expected = finished_run.directory, finished_run.result
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(tiny_config.to_dict()), str(tmp_path / "killed")], cwd=ROOT, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {".lock", "config.json", "history.csv", "split.npz", "checkpoint"}
    assert len(run_directory.read_history(tmp_path / "killed")) == 1
    result = run(tiny_config, tmp_path / "killed")
    assert {path.name for path in (tmp_path / "killed").iterdir()} == FINISHED
    # Two processes now and then add up in another order; within one, tests/test_trainer.py asks for equality to the bit.
    assert result["metrics"]["test"]["loss"] == pytest.approx(expected["metrics"]["test"]["loss"], rel=1e-3)
    with np.load(directory / "predictions.npz") as one, np.load(tmp_path / "killed" / "predictions.npz") as two:
        np.testing.assert_allclose(one["logits"], two["logits"], atol=1e-2)


def test_two_logical_devices_give_a_result(tiny_config, tmp_path):
    result = run(tiny_config.replace(distribution="mirrored", epochs=1, validation_fraction=0.1), tmp_path / "mirrored")
    assert result["runtime"]["replicas"] == 2 and result["metrics"]["test"]["num_examples"] == 99
    assert np.load(tmp_path / "mirrored" / "predictions.npz")["logits"].shape == (99, 10)


def test_the_last_epoch_is_selected_on_request(tiny_config, tmp_path):
    result = run(tiny_config.replace(selection="last", epochs=2), tmp_path / "last")
    assert result["selection"] == {"rule": "last", "epoch": 2}


def test_one_error_lists_everything_that_is_missing(offline, tmp_path):
    with pytest.raises(MissingError) as caught:
        config = PLAIN.replace(dataset="cifar10", data_dir=str(tmp_path), backbone="resnet50", weights_dir=str(tmp_path))
        check_available(resolve(config))
    assert "cifar10" in str(caught.value) and "resnet50_weights" in str(caught.value)


def quick(experiment):
    """Return `experiment` with its smallest fraction alone."""
    return dataclasses.replace(experiment, fractions=(0.1,))


def test_part_a_runs_on_the_bundled_data_and_weights(offline, low_resolution, tmp_path, capsys):
    """The whole job without data or a network: marked results, exact files, pre-training ahead, and no repeated work."""
    arguments = ["--on_missing=embedded", f"--data_dir={tmp_path}", f"--runs_dir={tmp_path / 'runs'}"]
    assert experiment.experiment_main(quick(part_a.EXPERIMENT), part_a.__doc__, arguments) == 0
    printed = capsys.readouterr().out
    assert "*** FALLBACKS ***" in printed and "EMBEDDED data and weights" in printed
    directory = tmp_path / "runs" / "part_a-embedded"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["part_a-embedded"]
    runs = sorted(path for path in directory.iterdir() if path.is_dir())
    assert {path.name for path in directory.iterdir()} - {path.name for path in runs} == {
        "accuracy_against_cost.png", "accuracy_against_fraction.png", "confusion_matrix.png", "experiment.json", "learning_curves.png",
        "mistakes.jpg", "reliability.png", "report.html", "report.md", "results.csv",
    }  # fmt: skip
    assert [path.name.rpartition("-")[0] for path in runs] == ["from-scratch-10-seed0", "pre-trained-10-seed0"]
    scratch, pretrained = (run_directory.load_result(path)["metrics"]["test"]["accuracy"] for path in runs)
    assert pretrained >= scratch + 0.10
    assert all({path.name for path in run.iterdir()} == FINISHED for run in runs)
    before = {path: path.stat().st_mtime_ns for run in runs for path in run.iterdir()}
    assert experiment.experiment_main(quick(part_a.EXPERIMENT), part_a.__doc__, arguments) == 0
    assert {path: path.stat().st_mtime_ns for run in runs for path in run.iterdir()} == before
    assert verbs.main(["report", f"--runs_dir={tmp_path / 'runs'}"]) == 0


def test_missing_data_are_an_error_unless_fallbacks_are_allowed(offline, tmp_path, capsys):
    arguments = [f"--data_dir={tmp_path}", f"--runs_dir={tmp_path / 'runs'}"]
    assert experiment.experiment_main(part_a.EXPERIMENT, part_a.__doc__, arguments) == MissingError.exit_code
    message = capsys.readouterr().err
    assert "cifar10" in message and "alexnet" in message and "--on_missing=embedded" in message
    assert not (tmp_path / "runs").exists()


def test_rows_of_part_a_are_those_of_the_source_report():
    rows = part_a.EXPERIMENT.configure({})
    assert [(row.line, row.train_fraction, row.published["test accuracy"]) for row in rows] == [
        ("pre-trained", 0.1, 82.99), ("from scratch", 0.1, 12.89), ("pre-trained", 0.2, 87.18),
        ("from scratch", 0.2, 37.41), ("pre-trained", 0.5, 89.68), ("from scratch", 0.5, 51.06),
    ]  # fmt: skip
    assert {row.config.model.weights for row in rows if row.line == "from scratch"} == {"none"}
    assert {row.config.train.epochs for row in rows} == {10} and {row.config.train.batch_size for row in rows} == {64}


def test_overrides_reach_every_row():
    rows = part_a.EXPERIMENT.configure({"epochs": 3, "backbone": "mobilenet_0.75"}, fractions=(0.1, 0.25))
    assert {(row.config.train.epochs, row.config.model.backbone) for row in rows} == {(3, "mobilenet_0.75")}
    assert [row.config.data.fraction for row in rows] == [0.1, 0.1, 0.25, 0.25] and rows[2].published == {}


def test_a_run_may_leave_its_model_out(tiny_config, tmp_path):
    run(tiny_config.replace(save_model=False, epochs=1), tmp_path / "bare")
    assert {path.name for path in (tmp_path / "bare").iterdir()} == FINISHED - {"model.keras", "test_images.npz"}
    with pytest.raises(ConfigError, match="save_model"):
        evaluate_run(tmp_path / "bare", {})


@pytest.mark.parametrize(
    ("backbone", "weights", "normalization"),
    [
        ("vgg16", "imagenet", "caffe"),
        ("vgg16", "torchvision", "imagenet"),
        ("vgg16", "none", "caffe"),
        ("vit_b16", "augreg_21k", "half"),
        ("efficientnet_b0", "imagenet", "internal"),
        ("efficientnet_lite0", "imagenet", "efficientnet_lite"),
    ],
)
def test_the_weights_decide_the_normalization(backbone, weights, normalization):
    settings = PLAIN.replace(dataset="digits", backbone=backbone, weights=weights)
    assert resolve(settings).normalization == normalization
    if normalization != "internal":
        assert resolve(settings.replace(normalization="cifar10")).normalization == "cifar10"


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_leaves_global_state_as_it_was(tiny_config, tmp_path, monkeypatch, fails):
    def fail(*arguments):
        raise RuntimeError("no predictions")

    if fails:
        monkeypatch.setattr("tl_keras.runs.run.write_predictions", fail)
    keras.config.set_dtype_policy("mixed_float16")
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), warnings.filters[:], dict(os.environ), os.getcwd()
    with pytest.raises(RuntimeError, match="no predictions") if fails else contextlib.nullcontext():
        run(tiny_config.replace(precision="mixed_bfloat16", epochs=1, fraction=0.1), tmp_path / "run")
    after = random.getstate(), np.random.get_state()[1].tolist(), warnings.filters[:], dict(os.environ), os.getcwd()
    assert keras.config.dtype_policy().name == "mixed_float16" and after == before
