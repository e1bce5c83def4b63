"""Metrics against values computed by hand, those of scikit-learn, and the definitions."""

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
    probabilities = np.exp(metrics.log_softmax(np.array([[1000, 1000 + math.log(3)]])))
    np.testing.assert_allclose(probabilities, [[0.25, 0.75]])


def test_top_k_accuracy_equals_that_of_scikit_learn(predictions):
    logits, labels = predictions
    for top in (1, 3, 5):
        expected = sklearn_metrics.top_k_accuracy_score(labels, logits, k=top, labels=np.arange(12))
        assert metrics.top_k_accuracy(logits, labels, top) == pytest.approx(expected)


@pytest.mark.parametrize(("num_classes", "expected"), [(2, None), (5, None), (6, 5 / 6)])
def test_of_equal_logits_the_first_five_classes_are_the_top_five(num_classes, expected):
    assert metrics.top_k_accuracy(np.zeros((num_classes, num_classes)), np.arange(num_classes)) == (expected and pytest.approx(expected))


def test_confusion_matrix_has_true_classes_as_rows():
    confusion = metrics.confusion_matrix(np.array([0, 0, 0, 2]), np.array([0, 1, 1, 0]), 3)
    np.testing.assert_array_equal(confusion, [[1, 2, 0], [0, 0, 0], [1, 0, 0]])


def test_class_scores_equal_those_of_scikit_learn_and_are_null_for_an_empty_denominator(predictions):
    logits, labels = predictions
    predicted = logits.argmax(axis=1)
    scores = metrics.class_scores(metrics.confusion_matrix(labels, predicted, 12))
    expected = sklearn_metrics.precision_recall_fscore_support(labels, predicted, labels=np.arange(12), zero_division=np.nan)
    for ours, theirs in zip((scores.precision, scores.recall), expected[:2], strict=True):
        assert ours == [None if math.isnan(value) else pytest.approx(value) for value in theirs]
    assert scores.precision[11] is None and scores.recall[11] == 0 and scores.f1[11] == 0
    assert scores.recall[10] is None and "NaN" not in json.dumps(scores.precision)
    present = [value for value in scores.recall if value is not None]
    assert scores.balanced_accuracy == pytest.approx(sum(present) / 11)


def test_a_class_without_examples_and_predictions_has_no_score():
    scores = metrics.class_scores(np.array([[3, 0], [0, 0]]))
    assert (scores.precision, scores.recall, scores.f1) == ([1.0, None], [1.0, None], [1.0, None])
    assert scores.balanced_accuracy == 1


def test_calibration_by_hand():
    """Two bins: (0.3, 0.5 | one correct) and (0.9 | correct): |0.8 - 1| + |0.9 - 1| over three examples."""
    found = metrics.calibration(np.array([0.3, 0.5, 0.9]), np.array([True, False, True]), num_bins=2)
    assert found.ece == pytest.approx((0.2 + 0.1) / 3)
    assert found.counts == [2, 1] and found.accuracies == [0.5, 1.0]
    assert found.confidences == pytest.approx([0.4, 0.9])


def test_bins_are_closed_above_and_empty_ones_are_null():
    found = metrics.calibration(np.array([0.0, 1 / 15, 1.0]), np.array([False, False, True]))
    assert found.counts == [2, *[0] * 13, 1] and found.confidences[1:14] == [None] * 13


def test_calibration_is_the_mean_gap(predictions):
    """With one bin per example, it is the mean gap of single examples."""
    rng = np.random.default_rng(1)
    confidences = (np.arange(1000) + 0.5) / 1000
    correct = rng.random(1000) < confidences
    assert metrics.calibration(confidences, correct, num_bins=1000).ece == pytest.approx(np.abs(correct - confidences).mean())
    assert metrics.calibration(confidences, correct).ece < 0.05 < metrics.calibration(confidences, ~correct).ece


@pytest.mark.parametrize(("num_correct", "num"), [(8299, 10000), (1289, 10000), (1, 2), (5, 10), (297, 298)])
def test_the_ends_of_wilsons_interval_meet_its_definition(num_correct, num):
    """The observed fraction is 1.96 standard errors away from each end (Wilson 1927)."""
    value, (low, high) = num_correct / num, wilson_interval(num_correct, num)
    assert 0 < low < value < high < 1
    for end in (low, high):
        assert abs(value - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / num), rel=1e-6)


def test_wilsons_interval_at_the_ends():
    z2 = 1.959964**2
    assert wilson_interval(0, 10) == pytest.approx((0, z2 / (10 + z2)))
    assert wilson_interval(10, 10) == pytest.approx((10 / (10 + z2), 1))
    assert wilson_interval(8299, 10000) == pytest.approx((0.8224, 0.8371), abs=5e-5)


@pytest.mark.parametrize("name", metrics.SCALAR_METRICS)
def test_a_scalar_metric_is_one_number_for_any_order_of_the_examples(name, predictions):
    logits, labels = predictions
    compute = metrics.SCALAR_METRICS[name].compute
    value = compute(logits, labels)
    assert type(value) is float and math.isfinite(value)
    assert compute(logits[::-1], labels[::-1]) == pytest.approx(value)
