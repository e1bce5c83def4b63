"""What logits say about a classifier, in NumPy alone: the arithmetic that runs are scored with and reports are made of."""

import math
from dataclasses import dataclass

import numpy as np

TOP = 5
NUM_BINS = 15


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities float64 (n, classes)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def top_accuracy(logits: np.ndarray, labels: np.ndarray, top: int = TOP) -> float | None:
    """Share of examples whose label is among the `top` highest logits; None where there are not more classes than that.

    Of equal logits that of the lower class counts as higher, as for `argmax`.
    """
    classes = np.arange(logits.shape[1])
    if len(classes) <= top:
        return None
    own = logits[np.arange(len(labels)), labels][:, None]
    ahead = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    return float((ahead.sum(axis=1) < top).mean())


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (classes, classes): how many examples of each class (row) were taken for each class (column)."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True)
class ClassScores:
    """Of each class, in the order of labels; None is a share of nothing.

    Attributes:
        precision: share of right ones among the examples that were taken for the class; None where none was.
        recall: share of right ones among the examples of the class, which is the class's accuracy; None where there is none.
        f1: 2 right / (examples of the class + examples taken for it); None where both are none.
    """

    precision: list[float | None]
    recall: list[float | None]
    f1: list[float | None]

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have examples."""
        return float(np.mean([share for share in self.recall if share is not None]))


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Precision, recall and F1 of each class from a confusion matrix int (classes, classes)."""
    right, actual, taken = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return ClassScores(_shares(right, taken), _shares(right, actual), _shares(2 * right, actual + taken))


def _shares(parts: np.ndarray, wholes: np.ndarray) -> list[float | None]:
    return [float(part / whole) if whole else None for part, whole in zip(parts, wholes, strict=True)]


@dataclass(frozen=True)
class Calibration:
    """How far confidences are from accuracies (Guo et al. 2017).

    The bins have equal widths over (0, 1]; each is open below and closed above.

    Attributes:
        error: expected calibration error, the mean over the examples of |accuracy - confidence| of their bin.
        counts: examples in each bin.
        confidences, accuracies: means over each bin; None where it is empty.
    """

    error: float
    counts: list[int]
    confidences: list[float | None]
    accuracies: list[float | None]


def calibration(confidences: np.ndarray, hits: np.ndarray, num_bins: int = NUM_BINS) -> Calibration:
    """Calibration of examples with these confidences, float (n,) in [0, 1], and these hits, bool (n,)."""
    bins = np.clip(np.ceil(confidences * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts, sums, rights = (np.bincount(bins, weights, num_bins) for weights in (None, confidences, hits))
    error = float(np.abs(rights - sums).sum() / len(hits))
    return Calibration(error, counts.tolist(), _shares(sums, counts), _shares(rights, counts))


def wilson_interval(num_right: int, num: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % interval of a share of `num` examples (Wilson 1927)."""
    share, denominator = num_right / num, 1 + z * z / num
    middle = (share + z * z / (2 * num)) / denominator
    half = z * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num)) / denominator
    return max(0.0, middle - half), min(1.0, middle + half)
