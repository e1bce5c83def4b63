"""Evaluates a model: logits of every example exactly once, metrics, and the most confident errors."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import tensorflow as tf

from tl_keras.results.metrics import (
    SCALAR_METRICS,
    calibration,
    class_scores,
    confusion_matrix,
    group_interval,
    own_and_highest,
    wilson_interval,
)
from tl_keras.results.predictions import MAX_THUMBNAIL, ConfidentErrors, choose_errors
from tl_keras.training.runtime import Runtime
from tl_keras.training.tracing import AnyBatchSize
from tl_keras.utils.progress import track


def make_predict(model: Callable[..., Any], runtime: Runtime) -> Callable[[Any], Any]:
    """Return a compiled function: a (distributed) batch of images -> float32 logits of `model(images, training=False)` per replica."""

    @tf.function(jit_compile=runtime.xla or None, reduce_retracing=True, autograph=False)
    def forward(images: Any) -> Any:
        return model(images, training=False)

    @tf.function(reduce_retracing=True, autograph=False)
    def predict(images: Any) -> Any:
        return runtime.strategy.run(lambda images: forward(images), (images,))  # MirroredStrategy would never free `forward` itself

    return AnyBatchSize(predict)


def predict_logits(predict: Callable[[Any], Any], runtime: Runtime, batches: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return logits float32 (n, classes) and labels int (n,) of all examples in `batches`, without the padding.

    Args:
        batches: elements (images, labels, weights). An example of weight 0 is padding for the replicas.
    """
    logits: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    distributed = runtime.strategy.experimental_distribute_dataset(batches)
    num_batches = max(0, int(batches.cardinality()))  # negative if it is unknown
    for images, batch_labels, batch_weights in track(distributed, "predicting", num_batches, "batches"):
        logits += _local_results(runtime, predict(images))
        labels += _local_results(runtime, batch_labels)
        weights += _local_results(runtime, batch_weights)
    real = np.concatenate(weights) > 0
    return np.concatenate(logits)[real], np.concatenate(labels)[real]


def _local_results(runtime: Runtime, value: Any) -> Iterable[np.ndarray]:
    return [part.numpy() for part in runtime.strategy.experimental_local_results(value)]


def compute_metrics(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> dict[str, Any]:
    """Return the metrics of a split in `result.json`; `results.run_directory.TEST_KEYS` and `SCALAR_METRICS` list them.

    Args:
        logits: float (n, classes).
        labels: int (n,).
        groups: int (n,), number of the group of each image, such as a patient; None: images are independent.
    """
    (own, highest), predicted = own_and_highest(logits, labels), logits.argmax(axis=1)
    correct = predicted == labels
    classes = class_scores(confusion_matrix(labels, predicted, logits.shape[1]))
    interval = wilson_interval(int(correct.sum()), len(correct)) if groups is None else group_interval(correct, groups)
    return {
        "accuracy": float(correct.mean()),
        "interval": list(interval),
        "interval_method": "wilson" if groups is None else "bootstrap_groups",
        "num_examples": len(correct),
        "loss": float(-own.mean()),
        **{name: metric.compute(logits, labels) for name, metric in SCALAR_METRICS.items()},
        "balanced_accuracy": classes.balanced_accuracy,
        **asdict(classes),
        "calibration": asdict(calibration(np.exp(highest), correct)),
    }


def most_confident_errors(logits: np.ndarray, labels: np.ndarray, batches_at: Callable[[np.ndarray], tf.data.Dataset]) -> ConfidentErrors:
    """Return the wrong predictions of highest confidence and those of the most frequent confusions; see `choose_errors`.

    Args:
        logits, labels: of all test examples, float (n, classes) and int (n,).
        batches_at: indices (k,) in the test split -> evaluation batches of these examples, as the model saw them.
    """
    predicted = logits.argmax(axis=1)
    confidences = np.exp(own_and_highest(logits, labels)[1])
    indices = choose_errors(labels, predicted, confidences)
    images = _thumbnails(batches_at(indices)) if len(indices) else np.zeros((0, 1, 1, 3), np.uint8)
    return ConfidentErrors(images, labels[indices], predicted[indices], confidences[indices].astype(np.float32), indices)


def shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Return images (b, h, w, 3) as uint8, scaled down to at most `side` pixels high and wide."""
    if max(images.shape[1:3]) > side:
        images = tf.image.resize(images, (side, side), method="area", preserve_aspect_ratio=True).numpy()
    return images.round().clip(0, 255).astype(np.uint8)


def _thumbnails(batches: tf.data.Dataset) -> np.ndarray:
    """Return the images of evaluation batches without padding, uint8, at most `MAX_THUMBNAIL` pixels high and wide."""
    images = np.concatenate([batch.numpy()[weights.numpy() > 0] for batch, _, weights in batches])
    return shrink(images, MAX_THUMBNAIL)
