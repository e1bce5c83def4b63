"""Metrics of a classifier from its logits, in NumPy. No TensorFlow."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from types import MappingProxyType

import numpy as np

TOP_K = 5
NUM_BINS = 15
MAX_BLOCK = 1_000_000  # numbers of a block of logits, 8 MB
MAX_DRAWS = 10_000_000  # numbers that a bootstrap holds at a time, 80 MB


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities, float64 (n, classes)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of an array (n, classes) in blocks of at most `MAX_BLOCK` numbers: float64 copies of all may be too large."""
    size = max(1, MAX_BLOCK // shape[1])
    return (slice(start, start + size) for start in range(0, shape[0], size))


def own_and_highest(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-probabilities of the labels and of the likeliest classes, float64 (n,) each, of logits over a temperature."""
    own, highest = np.empty(len(labels)), np.empty(len(labels))
    for rows in row_blocks(logits.shape):
        log_probabilities = log_softmax(logits[rows].astype(np.float64) / temperature)
        own[rows] = log_probabilities[np.arange(len(log_probabilities)), labels[rows]]
        highest[rows] = log_probabilities.max(axis=1)
    return own, highest


def top_k_accuracy(logits: np.ndarray, labels: np.ndarray, k: int = TOP_K) -> float | None:
    """Return the fraction of examples whose label is among the `k` highest logits; None if there are at most `k` classes.

    Ties are broken as by `argmax`: the lower class wins.
    """
    classes = np.arange(logits.shape[1])
    if len(classes) <= k:
        return None
    own = logits[np.arange(len(labels)), labels][:, None]
    ahead = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    return float((ahead.sum(axis=1) < k).mean())


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Return int64 (classes, classes): the number of examples of each true class (row) with each predicted class (column)."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, in the order of labels. None marks an empty denominator.

    Attributes:
        precision: correct predictions of the class / all predictions of the class.
        recall: correct predictions of the class / examples of the class.
        f1: 2 * correct / (examples of the class + predictions of the class).
    """

    precision: list[float | None]
    recall: list[float | None]
    f1: list[float | None]

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have examples."""
        return float(np.mean([recall for recall in self.recall if recall is not None]))


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Return precision, recall and F1 of each class from a confusion matrix int (classes, classes)."""
    correct, actual, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return ClassScores(_ratios(correct, predicted), _ratios(correct, actual), _ratios(2 * correct, actual + predicted))


def _ratios(numerators: np.ndarray, denominators: np.ndarray) -> list[float | None]:
    pairs = zip(numerators, denominators, strict=True)
    return [float(numerator / denominator) if denominator else None for numerator, denominator in pairs]


@dataclass(frozen=True)
class Calibration:
    """Agreement between confidence and accuracy (Guo et al. 2017, On Calibration of Modern Neural Networks).

    The bins divide (0, 1] into equal widths; each is open below and closed above.

    Attributes:
        ece: expected calibration error, the mean over examples of |accuracy - confidence| of their bin.
        counts: examples in each bin.
        confidences, accuracies: means of each bin; None for an empty bin.
    """

    ece: float
    counts: list[int]
    confidences: list[float | None]
    accuracies: list[float | None]


def calibration(confidences: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS) -> Calibration:
    """Return the calibration of predictions with `confidences`, float (n,) in [0, 1], and `correct`, bool (n,)."""
    bins = np.clip(np.ceil(confidences * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts, confidence_sums, num_correct = (np.bincount(bins, weights, num_bins) for weights in (None, confidences, correct))
    ece = float(np.abs(num_correct - confidence_sums).sum() / len(correct))
    return Calibration(ece, counts.tolist(), _ratios(confidence_sums, counts), _ratios(num_correct, counts))


def wilson_interval(num_correct: int, num_examples: int, confidence_level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of the fraction `num_correct / num_examples` (Wilson 1927)."""
    n, p, z = num_examples, num_correct / num_examples, NormalDist().inv_cdf((1 + confidence_level) / 2)
    centre = p + z**2 / (2 * n)
    half_width = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((centre + sign * half_width) / (1 + z**2 / n) for sign in (-1, 1))
    return (low if num_correct else 0.0), (high if num_correct < n else 1.0)


def group_interval(
    correct: np.ndarray, groups: np.ndarray, confidence_level: float = 0.95, num_resamples: int = 10_000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of an accuracy whose images belong to groups, such as patients.

    Images of one group are not independent, so whole groups are drawn with replacement (cluster bootstrap; Davison and Hinkley 1997,
    section 3.8). The seed is fixed. With a single group the interval is all of [0, 1].

    Args:
        correct: bool (n,).
        groups: int (n,), number of the group of each image.
    """
    _, members = np.unique(groups, return_inverse=True)
    num_correct, sizes = np.bincount(members, correct), np.bincount(members)
    if len(sizes) < 2:
        return 0.0, 1.0
    generator, fractions = np.random.default_rng(0), np.full(len(sizes), 1 / len(sizes))
    block = max(1, MAX_DRAWS // len(sizes))
    accuracies = np.empty(num_resamples)
    for start in range(0, num_resamples, block):  # the draws of all resamples together are too many for 100,000 groups
        draws = generator.multinomial(len(sizes), fractions, min(block, num_resamples - start))
        accuracies[start : start + block] = (draws @ num_correct) / (draws @ sizes)
    low, high = np.quantile(accuracies, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class ScalarMetric:
    """A metric of the test split that is a single number of logits and labels: a value in `result.json` and a column of the report.

    Attributes:
        heading: heading of its column, with the unit.
        compute: (logits float (n, classes), labels int (n,)) -> value, or None if it is not defined for them.
        scale: factor from the value to that of the column, e.g. 100 for per cent.
        digits: decimals of the column.
    """

    heading: str
    compute: Callable[[np.ndarray, np.ndarray], float | None]
    scale: float = 1.0
    digits: int = 4


# Key in `result.json` -> metric.
SCALAR_METRICS: Mapping[str, ScalarMetric] = MappingProxyType(
    {
        "top5_accuracy": ScalarMetric("top-5 accuracy (%)", top_k_accuracy, scale=100, digits=2),
    }
)
