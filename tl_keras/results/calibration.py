"""Temperature scaling: one number that makes the confidences of a classifier agree with its accuracy. No TensorFlow.

Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv:1706.04599), section 4.2. Logits are divided by the temperature,
which changes probabilities and no label.
"""

from typing import Any

import numpy as np

from tl_keras.results.metrics import Calibration, calibration, log_softmax

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
NUM_BISECTIONS = 60  # to the precision of float64


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that minimizes the cross-entropy of `softmax(logits / temperature)`, bounded and deterministic.

    The cross-entropy is convex in the inverse temperature, so its derivative is bisected. Without a wrong prediction it has no minimum:
    it falls as confidences approach 1. Such logits say nothing about the confidence of errors, and the result is 1.

    Args:
        logits: float (n, classes), of images that the model was not trained on.
        labels: int (n,).

    Raises:
        ValueError: There are no examples, or logits are not finite.
    """
    if not len(labels) or not np.isfinite(logits).all():
        raise ValueError(f"expected finite logits of one example or more; received logits {logits.shape} and labels {labels.shape}.")
    centred = logits.astype(np.float64) - logits[np.arange(len(labels)), labels][:, None]
    if centred.max() <= 0:  # No label is below another class.
        return 1.0
    low, high = np.log([1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE])
    for _ in range(NUM_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if _slope(centred, np.exp(middle)) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def _slope(centred: np.ndarray, inverse: float) -> float:
    """Return the derivative of the cross-entropy by the inverse temperature, for logits minus that of the label."""
    return float((np.exp(log_softmax(inverse * centred)) * centred).sum(axis=1).mean())


def calibrated_metrics(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, Any]:
    """Return `temperature`, and `ece` and `loss` (nats) of a split after scaling, as `result.json` has them."""
    own = log_softmax(logits.astype(np.float64) / temperature)[np.arange(len(labels)), labels]
    return {"temperature": temperature, "ece": scaled_calibration(logits, labels, temperature).ece, "loss": float(-own.mean())}


def scaled_calibration(logits: np.ndarray, labels: np.ndarray, temperature: float) -> Calibration:
    """Return the calibration of `softmax(logits / temperature)`; logits float (n, classes), labels int (n,)."""
    confidences = np.exp(log_softmax(logits.astype(np.float64) / temperature).max(axis=1))
    return calibration(confidences, logits.argmax(axis=1) == labels)
