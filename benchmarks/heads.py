"""Trains heads on given features: a grid of 21 heads, one head in the same loop, and one head as in a run of `strategy=head`."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import ours
from benchmarks.arrays import Arrays
from benchmarks.work import CLASSES, Once, Outcome, Work
from tl_keras import backbones
from tl_keras.backbones import HEAD
from tl_keras.config import RunConfig
from tl_keras.data import pipeline
from tl_keras.data.sampling import batch_sizes
from tl_keras.strategies import Phase
from tl_keras.strategies.grid import parse
from tl_keras.training import losses
from tl_keras.training.head_grid import train_heads
from tl_keras.training.runtime import make_runtime
from tl_keras.training.trainer import Batches, Trainer

GRID, ONE = "learning_rate=1e-4:1e-1:7,l2=0:1e-2:3", "learning_rate=1e-2"

Split = tuple[np.ndarray, np.ndarray]


def _settings(work: Work) -> RunConfig:
    return ours.configure(work).replace(validation_fraction=0.1)


def _splits(work: Work, arrays: Arrays) -> tuple[Split, Split]:
    """Return training and validation: random features float32 (n, f), with f of the backbone, and labels (n,)."""
    width = backbones.build_classifier(work.backbone, CLASSES, image_size=work.image_size).get_layer("logits").input.shape[-1]
    numbers = np.random.default_rng(0)
    labels = (arrays.train_labels, arrays.test_labels)
    return tuple((numbers.standard_normal((len(part), width), np.float32), part) for part in labels)


def _order(work: Work) -> Callable[[int], np.ndarray]:
    return lambda epoch: np.random.default_rng(epoch).permutation(work.num_train)


def _after_the_first(history: list[dict[str, Any]]) -> Outcome:
    """Return the seconds of all epochs except the first, which compiles."""
    return Outcome(sum(row["seconds"] for row in history[1:]))


def _by_grid(text: str, work: Work, arrays: Arrays) -> Iterator[Once]:
    config, splits = _settings(work), _splits(work, arrays)
    start = (np.zeros((splits[0][0].shape[1], CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    heads = parse(text, config)

    def job() -> Outcome:
        result = train_heads(*splits, heads, config.train, num_classes=CLASSES, order=_order(work), initial=lambda seed: start)
        return _after_the_first(result.history)

    yield job


@contextmanager
def grid(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Train 21 heads at once."""
    yield from _by_grid(GRID, work, arrays)


@contextmanager
def one(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Train one head in the same loop."""
    yield from _by_grid(ONE, work, arrays)


@contextmanager
def run(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Train one head in the trainer, on cached features."""
    config, (training, validation) = _settings(work), _splits(work, arrays)
    runtime = make_runtime(config.runtime, seed=0, batch_size=work.batch_size, depthwise=False)
    weights = np.ones(len(validation[1]), np.float32)
    batches = Batches(
        lambda epoch: _feature_batches(training, _order(work)(epoch), (), work).map(
            lambda features, labels: (features, tf.one_hot(labels, CLASSES))
        ),
        batch_sizes(work.num_train, work.batch_size),
        _feature_batches(validation, np.arange(len(weights)), (weights,), work),
    )

    def job() -> Outcome:
        inputs = keras.Input(training[0].shape[1:])
        model = keras.Model(inputs, keras.layers.Dense(CLASSES, dtype="float32", name="logits")(inputs))
        phases = (Phase(HEAD, work.epochs, {HEAD: "all"}),)
        loss = losses.build_loss(config.train, {}, CLASSES)
        with tempfile.TemporaryDirectory() as directory:
            trainer = Trainer(model, {HEAD: model.layers}, phases, config.train, runtime, loss=loss)
            return _after_the_first(trainer.fit(batches, Path(directory)).history)

    yield job


def _feature_batches(split: Split, order: np.ndarray, rest: tuple[np.ndarray, ...], work: Work) -> tf.data.Dataset:
    features, labels = split
    spec = tf.TensorSpec(features.shape[1:], features.dtype)
    sizes = batch_sizes(len(order), work.batch_size)
    return pipeline.feature_batches(features.__getitem__, order, (labels[order].astype(np.int32), *rest), spec, sizes)
