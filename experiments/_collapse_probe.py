"""The probe of `experiments/collapse.py`: a Keras callback that measures how the running statistics of BatchNorm fit."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tl_keras import data
from tl_keras.backbones import stage_layers
from tl_keras.config import RunConfig
from tl_keras.data import pipeline
from tl_keras.errors import ConfigError
from tl_keras.feature_cache.split_model import split_tensor
from tl_keras.results.metrics import log_softmax
from tl_keras.runs.resolve import load_source, resolve
from tl_keras.strategies import freezing
from tl_keras.training.collapse import kernels_before_head
from tl_keras.utils.files import read_json, write_json


class Probe(keras.callbacks.Callback):
    """Measures a run before its first epoch and after each, and writes what it finds to `path`.

    The probed BatchNorm layers are those behind the frozen prefix of the first phase. The file holds a list of records:

        epoch               0 before the first epoch
        running, batch      validation scores with the probed BatchNorm layers on their running statistics, and on those of the batch:
                            `loss`, `accuracy`, and the distances of the statistics that arrive from the running ones, see `distances`
        losses              mean training loss of each update of the epoch
        kernel_change       norm of the change of a kernel in the epoch over its norm before
        kernel_growth       norm of a kernel after the epoch over its norm before

    The last two are medians over the trained kernels before the head. Scores on batch statistics are those of batches as large as in
    training, without dropout. Measuring changes neither weights nor running statistics nor random numbers. A resumed run continues
    its file.
    """

    exact_logs = True

    def __init__(self, config: RunConfig, path: Path):
        super().__init__()
        self._config, self._path = config, path

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        resolved = resolve(self._config)
        splits = data.make_splits(load_source(self._config.data), self._config.data, self._config.seed)
        if splits.validation is None:
            raise ConfigError("the probe needs validation images.", setting="validation_fraction", value=0)
        self._num_train, batch_size = len(splits.train), self._config.train.batch_size
        batches = list(pipeline.evaluation_batches(splits.validation, resolved.geometry, batch_size=batch_size))
        self._labels = np.concatenate([labels for _, labels, _ in batches])
        stages, phase = stage_layers(self.model, resolved.backbone.name), resolved.phases[0]
        prefix = freezing.frozen_prefix(stages, phase)
        self._norms = [layer for stage in stages if stage not in prefix for layer in stages[stage] if _is_batch_norm(layer)]
        split = split_tensor(self.model, resolved.backbone.name, prefix[-1]) if prefix else self.model.input
        before_split = keras.Model(self.model.input, split)
        self._inputs = [before_split(images, training=False) for images, _, _ in batches]
        extractor = keras.Model(split, [self.model.output, *(norm.input for norm in self._norms)])
        self._observers = {"running": make_observer(extractor), "batch": make_observer(extractor)}  # one compiled in each mode
        self._kernels = kernels_before_head(stages, phase)
        self._records = read_json(self._path) or [{"epoch": 0, **self._scores()}]

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._sums, self._seen = [0.0], [0]
        self._before = [kernel.numpy() for kernel in self._kernels]

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self._seen.append(self._num_train if batch + 1 == self.params["steps"] else (batch + 1) * self._config.train.batch_size)
        self._sums.append((logs or {})["loss"] * self._seen[-1])

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        losses = (np.diff(self._sums) / np.diff(self._seen)).tolist()
        record = {"epoch": epoch + 1, **self._scores(), "losses": losses, **kernel_changes(self._kernels, self._before)}
        self._records = [*self._records[: epoch + 1], record]
        write_json(self._path, self._records)

    def _scores(self) -> dict[str, dict[str, float]]:
        return {"running": self._score("running", ()), "batch": self._score("batch", self._norms)}

    def _score(self, mode: str, on_batch_statistics: Sequence[keras.layers.BatchNormalization]) -> dict[str, float]:
        with batch_norm_mode(self.model.layers, on_batch_statistics):
            seen = observe(self._observers[mode], self._inputs)
        log_probabilities = log_softmax(seen.logits)
        return {
            "loss": float(-log_probabilities[np.arange(len(self._labels)), self._labels].mean()),
            "accuracy": float((seen.logits.argmax(axis=1) == self._labels).mean()),
            **distances(self._norms, seen),
        }


def _is_batch_norm(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def kernel_changes(kernels: Sequence[keras.Variable], before: Sequence[np.ndarray]) -> dict[str, float]:
    """Return the medians over `kernels` of two norms over the norm before: that of the change, and that after it."""
    pairs = list(zip((kernel.numpy() for kernel in kernels), before, strict=True))
    return {
        "kernel_change": float(np.median([np.linalg.norm(now - old) / np.linalg.norm(old) for now, old in pairs])),
        "kernel_growth": float(np.median([np.linalg.norm(now) / np.linalg.norm(old) for now, old in pairs])),
    }


@dataclass(frozen=True)
class Observation:
    """Logits float32 (n, classes), and mean and variance of the inputs of each probed layer, float (channels,), averaged over batches."""

    logits: np.ndarray
    means: list[np.ndarray]
    variances: list[np.ndarray]


Observer = Callable[[Any], tuple[Any, list[Any], list[Any]]]  # batch -> logits, means and variances


def make_observer(extractor: keras.Model) -> Observer:
    """Return a compiled function of `extractor`, whose outputs are logits and inputs of BatchNorm layers.

    It keeps the modes of the layers in its first call, see `batch_norm_mode`.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def compute(batch: Any) -> tuple[Any, list[Any], list[Any]]:
        logits, *inputs = extractor(batch, training=True)
        return logits, [ops.mean(x, axis=(0, 1, 2)) for x in inputs], [ops.var(x, axis=(0, 1, 2)) for x in inputs]

    return compute


def observe(observer: Observer, batches: Iterable[Any]) -> Observation:
    """Return the logits of all `batches`, and the moments averaged over them."""
    logits, means, variances = zip(*(observer(batch) for batch in batches), strict=True)
    averages = [
        [np.mean([value.numpy() for value in layer], axis=0) for layer in zip(*moments, strict=True)] for moments in (means, variances)
    ]
    return Observation(np.concatenate([part.numpy() for part in logits]), *averages)


@contextlib.contextmanager
def batch_norm_mode(layers: Sequence[keras.Layer], norms: Sequence[keras.layers.BatchNormalization]) -> Iterator[None]:
    """Run `norms` on the statistics of the batch and all other layers as in evaluation, whatever `training` says.

    Modes and running statistics are restored after the block.
    """
    names = ("trainable", *freezing.DROPOUT_ATTRIBUTES)
    modes = [(layer, name, getattr(layer, name)) for layer in layers for name in names if getattr(layer, name, None) is not None]
    statistics = [(variable, variable.numpy()) for norm in norms for variable in (norm.moving_mean, norm.moving_variance)]
    try:
        for layer, name, _ in modes:
            setattr(layer, name, layer in norms if name == "trainable" else 0.0)
        yield
    finally:
        for layer, name, value in modes:
            setattr(layer, name, value)
        for variable, value in statistics:
            variable.assign(value)


def distances(norms: Sequence[keras.layers.BatchNormalization], seen: Observation) -> dict[str, float]:
    """Return the distances of the observed statistics from the running ones, means over channels and then layers; 0 if they agree.

    Returns:
        `mean_distance`, the absolute difference of the means in running standard deviations, and `variance_distance`, the absolute
        logarithm of the ratio of the variances.
    """
    means, variances = [], []
    for norm, mean, variance in zip(norms, seen.means, seen.variances, strict=True):
        running = norm.moving_variance.numpy() + norm.epsilon
        means.append(np.mean(np.abs(mean - norm.moving_mean.numpy()) / np.sqrt(running)))
        variances.append(np.mean(np.abs(np.log((variance + norm.epsilon) / running))))
    return {"mean_distance": float(np.mean(means)), "variance_distance": float(np.mean(variances))}
