"""Scoring: logits of every example exactly once, and what they say, in NumPy."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tl_keras.results import wilson_interval
from tl_keras.runtime import Runtime


def make_predict(model: Any, runtime: Runtime) -> Callable[[Any], Any]:
    """A compiled function from a (distributed) batch of images to float32 logits, on every replica."""
    forward = tf.function(lambda images: model(images, training=False), jit_compile=runtime.xla or None, reduce_retracing=True)

    @tf.function(reduce_retracing=True)
    def predict(images: Any) -> Any:
        return runtime.strategy.run(forward, (images,))

    return predict


def predict_logits(predict: Callable[[Any], Any], runtime: Runtime, batches: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 (n, classes) and labels int (n,) of all examples in `batches`, without the padding.

    Args:
        batches: elements (images, labels, weights); an example of weight 0 is padding for the replicas and is left out.
    """
    logits, labels, weights = [], [], []
    for images, batch_labels, batch_weights in runtime.strategy.experimental_distribute_dataset(batches):
        logits += _local(runtime, predict(images))
        labels += _local(runtime, batch_labels)
        weights += _local(runtime, batch_weights)
    real = np.concatenate(weights) > 0
    return np.concatenate(logits)[real], np.concatenate(labels)[real]


def _local(runtime: Runtime, value: Any) -> Iterable[np.ndarray]:
    return [part.numpy() for part in runtime.strategy.experimental_local_results(value)]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities float64 (n, classes)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracy with its 95 % interval, mean cross-entropy in nats, accuracy of each class and their mean.

    Args:
        logits: float (n, classes).
        labels: int (n,).
    """
    hits = logits.argmax(axis=1) == labels
    per_class = [float(hits[labels == label].mean()) for label in range(logits.shape[1]) if np.any(labels == label)]
    return {
        "accuracy": float(hits.mean()),
        "interval": list(wilson_interval(int(hits.sum()), len(hits))),
        "num": len(hits),
        "loss": float(-log_softmax(logits)[np.arange(len(labels)), labels].mean()),
        "balanced_accuracy": float(np.mean(per_class)),
        "class_accuracy": per_class,
    }
