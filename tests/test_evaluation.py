"""Evaluation of the test split, and its most confident errors."""

import json
from datetime import datetime

import numpy as np
import pytest
from plain_config import PLAIN

from tl_keras.data import pipeline
from tl_keras.data.examples import ImageStore, make_examples
from tl_keras.data.geometry import Geometry
from tl_keras.errors import DamagedError
from tl_keras.results.metrics import SCALAR_METRICS
from tl_keras.results.predictions import (
    MAX_ERRORS,
    MAX_STORED,
    MAX_THUMBNAIL,
    MISTAKES,
    PREDICTIONS,
    ConfidentErrors,
    choose_errors,
    frequent_confusions,
    read_confident_errors,
    read_predictions,
    write_confident_errors,
    write_predictions,
)
from tl_keras.results.run_directory import AUGMENTATION, TEST_KEYS
from tl_keras.runs.fallbacks import EMBEDDED_SETTINGS
from tl_keras.runs.run import run
from tl_keras.training import evaluation

LABELS = np.array([0, 1, 2, 0, 1])
LOGITS = np.array([[5, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 1], [0, 2, 0]], np.float32)  # wrong: 1, 2 and 3


def split(height, width, num=5):
    """Examples whose pixels are their positions in the split."""
    pixels = np.broadcast_to(np.arange(num, dtype=np.uint8)[:, None, None, None], (num, height, width, 3))
    return make_examples(ImageStore(np.ascontiguousarray(pixels)), np.arange(num) % 3)


def batches_at(size, replicas=1):
    geometry, settings = Geometry(size, 1.0), {"batch_size": 2, "replicas": replicas}
    return lambda positions: pipeline.evaluation_batches(split(size, size).subset(positions), geometry, **settings)


def test_metrics_have_the_keys_of_the_schema_and_survive_json():
    found = evaluation.compute_metrics(LOGITS, LABELS)
    assert set(found) == {*TEST_KEYS, *SCALAR_METRICS, "interval_method"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["accuracy"] == 0.4 and found["num_examples"] == 5 and found["top5_accuracy"] is None
    assert found["precision"] == [0.5, 0.5, 0.0] and found["recall"] == [0.5, 0.5, 0.0]
    assert found["balanced_accuracy"] == pytest.approx(1 / 3)
    assert sum(found["calibration"]["counts"]) == 5 and len(found["calibration"]["counts"]) == 15


@pytest.mark.parametrize("replicas", [1, 2])
def test_errors_are_sorted_by_confidence(replicas):
    found = evaluation.most_confident_errors(LOGITS, LABELS, batches_at(8, replicas))
    np.testing.assert_array_equal(found.indices, [2, 1, 3])
    np.testing.assert_array_equal(found.labels, [2, 1, 0])
    np.testing.assert_array_equal(found.predicted, [1, 0, 2])
    np.testing.assert_allclose(found.confidences, [np.exp(x) / (np.exp(x) + 2) for x in (4, 3, 1)], rtol=1e-6)
    assert found.images.dtype == np.uint8 and found.images.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], [2, 1, 3])


def test_errors_are_limited_in_number_and_size():
    found = evaluation.most_confident_errors(LOGITS, LABELS, batches_at(200))
    assert found.images.shape == (3, MAX_THUMBNAIL, MAX_THUMBNAIL, 3)
    np.testing.assert_array_equal(found.images[:, 50, 50, 0], [2, 1, 3])


def test_the_most_confident_errors_come_first_and_then_those_of_frequent_confusions():
    # 20 images of class 0 are taken for class 1 with rising confidence, 25 of class 2 for class 1 with less, and one is correct.
    labels, predicted = np.array([0] * 20 + [2] * 25 + [1]), np.ones(46, np.int64)
    confidences = np.array([*np.linspace(0.7, 0.9, 20), *np.linspace(0.4, 0.6, 25), 1.0])
    assert frequent_confusions(labels, predicted) == [(2, 1, 25), (0, 1, 20)]
    chosen = choose_errors(labels, predicted, confidences)
    assert chosen.tolist() == [*range(19, 3, -1), *range(44, 40, -1)]


def test_of_many_confusions_a_bounded_number_of_images_is_kept():
    labels, predicted = np.divmod(np.arange(40 * 40), 40)
    chosen = choose_errors(np.repeat(labels, 5), np.repeat(predicted, 5), np.random.default_rng(0).random(40 * 40 * 5))
    assert MAX_ERRORS < len(chosen) <= MAX_STORED and len(set(chosen.tolist())) == len(chosen)
    assert frequent_confusions(np.arange(3), np.arange(3)) == [] and choose_errors(*[np.arange(3)] * 3).size == 0


def test_without_an_error_nothing_is_loaded(tmp_path):
    found = evaluation.most_confident_errors(np.eye(3, dtype=np.float32), np.arange(3), lambda positions: pytest.fail("nothing to load"))
    write_confident_errors(tmp_path, found)
    assert len(read_confident_errors(tmp_path, 3).images) == 0


def make_errors(num=2, height=4, width=5, label=1, dtype=np.uint8):
    values = np.zeros(num, np.int64)
    return ConfidentErrors(np.zeros((num, height, width, 3), dtype), values + label, values, np.zeros(num, np.float32), values)


def test_errors_and_predictions_are_read_back(tmp_path):
    write_confident_errors(tmp_path, make_errors())
    found = read_confident_errors(tmp_path, 2)
    assert found.images.shape == (2, 4, 5, 3) and found.labels.tolist() == [1, 1]
    write_predictions(tmp_path, LOGITS, LABELS)
    logits, labels = read_predictions(tmp_path)
    np.testing.assert_array_equal(logits, LOGITS)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize(
    "errors",
    [
        make_errors(num=MAX_STORED + 1),
        make_errors(height=MAX_THUMBNAIL + 1),
        make_errors(num=1, height=10_000, width=10_000),
        make_errors(height=0),
        make_errors(label=2),
        make_errors(label=-1),
        make_errors(dtype=np.uint16),
        make_errors(dtype=np.float32),
        ConfidentErrors(**{**vars(make_errors()), "labels": np.zeros(3, np.int64)}),
        ConfidentErrors(**{**vars(make_errors()), "labels": np.array([print, print], object)}),
    ],
    ids=["many", "high", "huge", "flat", "label", "negative", "deep", "float", "lengths", "pickled"],
)
def test_errors_that_no_run_writes_are_refused(tmp_path, errors):
    write_confident_errors(tmp_path, errors)
    with pytest.raises(DamagedError, match=r"mistakes\.npz cannot be read .*Delete"):
        read_confident_errors(tmp_path, 2)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (LOGITS, LABELS[:4]),
        (LOGITS[:0], LABELS[:0]),
        (LOGITS, LABELS + 1),
        (LOGITS, LABELS - 1),
        (LOGITS, LABELS.astype(float)),
        (LOGITS[0], LABELS),
        (LOGITS * np.nan, LABELS),
    ],
)
def test_inconsistent_predictions_are_refused(tmp_path, logits, labels):
    write_predictions(tmp_path, logits, labels)
    with pytest.raises(DamagedError, match=r"predictions\.npz cannot be read"):
        read_predictions(tmp_path)


@pytest.mark.parametrize("damage", ["absent", "truncated", "empty", "no zip", "other arrays"])
def test_damaged_predictions_are_named(tmp_path, damage):
    path = tmp_path / PREDICTIONS
    write_predictions(tmp_path, LOGITS, LABELS)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "no zip": b"x" * 100}.get(damage, content))
    if damage == "absent":
        path.unlink()
    if damage == "other arrays":
        np.savez(path, other=LOGITS)
    with pytest.raises(DamagedError, match=r"predictions\.npz cannot be read"):
        read_predictions(tmp_path)


def test_a_run_writes_the_errors_of_its_own_predictions(tmp_path):
    settings = {"epochs": 1, "batch_size": 64, "fraction": 0.1, "limit_test": 60, "precision": "float32", "strategy": "head"}
    settings["augmentation"] = "crop_flip"
    result = run(PLAIN.replace(**EMBEDDED_SETTINGS).replace(**settings), tmp_path / "run")
    logits, labels = read_predictions(tmp_path / "run")
    assert (
        set(result["metrics"]["test"]) == {*TEST_KEYS, *SCALAR_METRICS, "interval_method", "calibrated"}
        and (tmp_path / "run" / MISTAKES).exists()
    )
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    found = read_confident_errors(tmp_path / "run", 10)
    assert MAX_STORED >= len(found.indices) >= min(len(wrong), MAX_ERRORS) > 0 and set(found.indices) <= set(wrong)
    np.testing.assert_array_equal(found.labels, labels[found.indices])
    assert found.images.shape[1:] == (64, 64, 3) and found.images.max() > 200
    assert (tmp_path / "run" / AUGMENTATION).stat().st_size > 1000 and datetime.fromisoformat(result["finished"]).tzinfo
