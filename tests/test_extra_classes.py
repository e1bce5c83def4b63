"""Classes without images: their names, a run with 990 of them, and its report."""

import dataclasses
import json
import time

import numpy as np
import pytest
from plain_config import PLAIN
from report_builder import make_experiment, make_row

from tl_keras import data, report
from tl_keras.config import DataConfig
from tl_keras.data.registry import load_source
from tl_keras.errors import ConfigError
from tl_keras.exports import export_run
from tl_keras.results.predictions import read_confident_errors, read_predictions
from tl_keras.runs import resolve
from tl_keras.runs.evaluate import evaluate_run
from tl_keras.runs.run import run

CONFIG = PLAIN.replace(
    dataset="digits", backbone="tiny", weights="none", extra_classes=990, epochs=2, batch_size=32, learning_rate=0.02,
    limit_train=128, limit_test=99, validation_fraction=0.05, precision="float32",
)  # fmt: skip


def test_their_names_are_numbered_and_unique():
    source = load_source(CONFIG.data)
    assert source.class_names[:12] == (*"0123456789", "unused_11", "unused_12") and source.class_names[-1] == "unused_1000"
    assert source.train.class_counts.keys() == set(range(10))
    named = dataclasses.replace(source, class_names=("a", "unused_3", "unused_5"))
    assert named.with_extra_classes(3).class_names == ("a", "unused_3", "unused_5", "unused_4", "unused_6", "unused_7")
    assert named.with_extra_classes(0) is named


def test_rows_with_and_without_them_share_the_images():
    with_extra, plain = (resolve.load_source(dataclasses.replace(CONFIG.data, extra_classes=count)) for count in (990, 0))
    assert with_extra.train.images is plain.train.images and with_extra.fingerprint == plain.fingerprint
    assert (len(with_extra.class_names), len(plain.class_names)) == (1000, 10)
    with pytest.raises(ConfigError, match="extra_classes=-1"):
        DataConfig(extra_classes=-1)


@pytest.fixture(scope="module")
def wide_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "wide"
    return directory, run(CONFIG, directory)


def test_a_run_trains_and_tests_a_head_of_all_classes(wide_run):
    directory, result = wide_run
    logits, labels = read_predictions(directory)
    assert logits.shape == (99, 1000) and labels.max() == 9 and len(result["data"]["class_names"]) == 1000
    assert result["data"]["notes"][-1].startswith("990 of 1000 classes have no images: unused_11, ") and "and 985 more" in str(
        result["data"]
    )
    test = result["metrics"]["test"]
    assert len(test["recall"]) == 1000 and test["recall"][10:] == [None] * 990
    recalls = [np.mean(logits[labels == label].argmax(axis=1) == label) for label in range(10)]
    assert test["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert len(read_confident_errors(directory, 1000).labels)


def test_a_finished_run_is_evaluated_and_exported(wide_run, tmp_path):
    directory, result = wide_run
    assert evaluate_run(directory, {}).metrics["accuracy"] == result["metrics"]["test"]["accuracy"]
    with pytest.raises(ConfigError, match="has the classes 0, 1, .* and 995 more; digits also has even, odd. Leave"):
        evaluate_run(directory, {"label": "parity"})
    record = export_run(directory, "keras", tmp_path / "exported")["keras"]
    assert len(json.loads((tmp_path / "exported" / "labels.json").read_text())["class_names"]) == 1000
    assert record["output"] == "float32 probabilities (batch, 1000), in the order of class_names"


def test_the_settings_of_the_data_apply_to_them(wide_run):
    splits = data.make_splits(load_source(CONFIG.data), dataclasses.replace(CONFIG.data, keep="unused_11:0.5"), 0)
    assert splits.train.class_counts == data.make_splits(load_source(CONFIG.data), CONFIG.data, 0).train.class_counts


def test_a_report_leaves_out_classes_that_do_not_occur(tmp_path, low_resolution):
    names = [*(f"class{number}" for number in range(10)), *(f"unused_{number}" for number in range(11, 1001))]
    results = make_experiment(tmp_path, [make_row("a", None, "a")], num_test=10, class_names=names, accuracies=[0.5])
    predicted = {int(label) for label in read_predictions(results.runs[0].path)[0].argmax(axis=1)} | set(range(10))
    started = time.perf_counter()
    report.write_report(results, tmp_path)
    assert time.perf_counter() - started < 20  # about 3 s; the numbers of a thousand classes in each of its cells would take minutes
    text = (tmp_path / "report.md").read_text()
    assert f"{1000 - len(predicted)} classes without test images that were never predicted are left out." in text
    lines = [line for line in text.splitlines() if line.startswith(("| class", "| unused")) and line.count("|") == 7][1:]
    assert len(lines) == len(predicted) and "unused_150" not in text and "and 880 more" in text
    assert "mean recall over the classes with test images" in text
