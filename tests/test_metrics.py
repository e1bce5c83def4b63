"""Metrics against figures worked out by hand, scikit-learn's, and the definitions."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tl_keras.results import metrics
from tl_keras.results.metrics import wilson_interval


@pytest.fixture
def predictions():
    """Logits and labels of 500 examples of 12 classes, of which class 11 is never predicted and class 10 has no example."""
    rng = np.random.default_rng(0)
    labels = rng.choice([*range(10), 11], 500)
    logits = rng.normal(size=(500, 12)) + 2 * np.eye(12)[labels]
    logits[:, 11] = -9
    return logits.astype(np.float32), labels


def test_log_softmax_does_not_overflow():
    shares = np.exp(metrics.log_softmax(np.array([[1000, 1000 + math.log(3)]])))
    np.testing.assert_allclose(shares, [[0.25, 0.75]])


def test_top_accuracy_is_sklearns(predictions):
    logits, labels = predictions
    for top in (1, 3, 5):
        expected = sklearn_metrics.top_k_accuracy_score(labels, logits, k=top, labels=np.arange(12))
        assert metrics.top_k_accuracy(logits, labels, top) == pytest.approx(expected)


@pytest.mark.parametrize(("num_classes", "expected"), [(2, None), (5, None), (6, 5 / 6)])
def test_top_five_of_equal_logits_are_the_first_five_of_at_least_six_classes(num_classes, expected):
    assert metrics.top_k_accuracy(np.zeros((num_classes, num_classes)), np.arange(num_classes)) == (expected and pytest.approx(expected))


def test_confusion_matrix_has_true_classes_as_rows():
    confusion = metrics.confusion_matrix(np.array([0, 0, 0, 2]), np.array([0, 1, 1, 0]), 3)
    np.testing.assert_array_equal(confusion, [[1, 2, 0], [0, 0, 0], [1, 0, 0]])


def test_class_scores_are_sklearns_and_null_where_they_are_shares_of_nothing(predictions):
    logits, labels = predictions
    predicted = logits.argmax(axis=1)
    scores = metrics.class_scores(metrics.confusion_matrix(labels, predicted, 12))
    expected = sklearn_metrics.precision_recall_fscore_support(labels, predicted, labels=np.arange(12), zero_division=np.nan)
    for ours, theirs in zip((scores.precision, scores.recall), expected[:2], strict=True):
        assert ours == [None if math.isnan(share) else pytest.approx(share) for share in theirs]
    assert scores.precision[11] is None and scores.recall[11] == 0 and scores.f1[11] == 0
    assert scores.recall[10] is None and "NaN" not in json.dumps(scores.precision)
    present = [share for share in scores.recall if share is not None]
    assert scores.balanced_accuracy == pytest.approx(sum(present) / 11)


def test_a_class_that_is_neither_there_nor_predicted_has_no_score():
    scores = metrics.class_scores(np.array([[3, 0], [0, 0]]))
    assert (scores.precision, scores.recall, scores.f1) == ([1.0, None], [1.0, None], [1.0, None])
    assert scores.balanced_accuracy == 1


def test_calibration_by_hand():
    """Two bins: (0.3, 0.5 | one right) and (0.9 | right): |0.8 - 1| + |0.9 - 1| over three examples."""
    found = metrics.calibration(np.array([0.3, 0.5, 0.9]), np.array([True, False, True]), num_bins=2)
    assert found.ece == pytest.approx((0.2 + 0.1) / 3)
    assert found.counts == [2, 1] and found.accuracies == [0.5, 1.0]
    assert found.confidences == pytest.approx([0.4, 0.9])


def test_bins_are_closed_above_and_empty_ones_are_null():
    found = metrics.calibration(np.array([0.0, 1 / 15, 1.0]), np.array([False, False, True]))
    assert found.counts == [2, *[0] * 13, 1] and found.confidences[1:14] == [None] * 13


def test_calibration_is_the_mean_gap(predictions):
    """With a bin for each example, the gap of each alone."""
    rng = np.random.default_rng(1)
    confidences = (np.arange(1000) + 0.5) / 1000
    hits = rng.random(1000) < confidences
    assert metrics.calibration(confidences, hits, num_bins=1000).ece == pytest.approx(np.abs(hits - confidences).mean())
    assert metrics.calibration(confidences, hits).ece < 0.05 < metrics.calibration(confidences, ~hits).ece


@pytest.mark.parametrize(("num_correct", "num"), [(8299, 10000), (1289, 10000), (1, 2), (5, 10), (297, 298)])
def test_the_ends_of_wilsons_interval_are_what_it_is_defined_by(num_correct, num):
    """Each end is a share from which the observed one is 1.96 standard errors away (Wilson 1927)."""
    share, (low, high) = num_correct / num, wilson_interval(num_correct, num)
    assert 0 < low < share < high < 1
    for end in (low, high):
        assert abs(share - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / num), rel=1e-6)


def test_wilsons_interval_at_the_ends():
    z2 = 1.959964**2
    assert wilson_interval(0, 10) == pytest.approx((0, z2 / (10 + z2)))
    assert wilson_interval(10, 10) == pytest.approx((10 / (10 + z2), 1))
    assert wilson_interval(8299, 10000) == pytest.approx((0.8224, 0.8371), abs=5e-5)
