"""Plain Keras, after its guide "Transfer learning and fine-tuning": compile, fit, evaluate, in float32.

The model is a clone of ours (`build_classifier`), so both sides compute the same function, here with stock layers. Frozen layers have
`trainable = False`, with which Keras also makes their batch norm use its running statistics.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from benchmarks.arrays import Arrays
from benchmarks.work import CLASSES, LEARNING_RATE, MOMENTUM, Clock, Once, Outcome, Work, timed
from tl_keras.backbones import build_classifier, stage_layers
from tl_keras.strategies import Phase


def _model(work: Work, precision: str = "float32") -> keras.Model:
    keras.config.set_dtype_policy(precision)
    return keras.models.clone_model(build_classifier(work.backbone, CLASSES, image_size=work.image_size))


def _compile(model: keras.Model, work: Work, phase: Phase, jit_compile: bool | str = "auto") -> keras.Model:
    """Freeze the stages that `phase` does not train, and compile."""
    for stage, layers in stage_layers(model, work.backbone).items():
        for layer in layers:
            layer.trainable = stage in phase.trainable
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    return model


def _dataset(images: np.ndarray, labels: np.ndarray, work: Work, *, shuffle: bool) -> tf.data.Dataset:
    size = (work.image_size, work.image_size)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    dataset = dataset.shuffle(len(images)) if shuffle else dataset
    dataset = dataset.batch(work.batch_size)
    return dataset.map(lambda x, y: (tf.image.resize(x, size), y), num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


@contextmanager
def train(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Do the whole job: build, train all phases, test."""

    def job() -> Outcome:
        clock = Clock(work)
        model = _model(work)
        training = _dataset(arrays.train, arrays.train_labels, work, shuffle=True)
        for phase in work.phases():
            _compile(model, work, phase)
            for _ in clock.epochs(phase):
                model.fit(training, shuffle=False, verbose=0)
        _, accuracy = model.evaluate(_dataset(arrays.test, arrays.test_labels, work, shuffle=False), verbose=0)
        return clock.outcome(accuracy)

    yield job


def _repeated_batch(work: Work, arrays: Arrays) -> tf.data.Dataset:
    """`steps` times the same prepared batch, without the autotuning of the input, for which the end of an iterator may wait."""
    batch = next(iter(_dataset(arrays.train, arrays.train_labels, work, shuffle=False)))
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensors(batch).repeat(work.steps).with_options(options)


@contextmanager
def step(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Train on a prepared batch, step by step."""
    model, batches = _compile(_model(work), work, work.phases()[0]), _repeated_batch(work, arrays)
    yield timed(lambda: model.fit(batches, shuffle=False, verbose=0))


@contextmanager
def train_on_batch(work: Work, arrays: Arrays, precision: str, jit_compile: bool) -> Iterator[Once]:
    """Train on a prepared batch with `train_on_batch` alone, in the precision of our loop."""
    model, batches = _model(work, precision), _repeated_batch(work, arrays)
    _compile(model, work, work.phases()[0], jit_compile)
    yield timed(lambda: [model.train_on_batch(images, labels) for images, labels in batches])


@contextmanager
def predict(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Predict a prepared batch."""
    model, images = _model(work), _repeated_batch(work, arrays).map(lambda images, labels: images)
    yield timed(lambda: model.predict(images, verbose=0))


@contextmanager
def feed(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Read the batches of an epoch."""
    dataset = _dataset(arrays.train, arrays.train_labels, work, shuffle=True)
    yield timed(lambda: sum(len(labels) for _, labels in dataset))


def first_step(work: Work, arrays: Arrays) -> None:
    """Build everything and take the first training step."""
    model = _compile(_model(work), work, work.phases()[0])
    model.fit(_dataset(arrays.train, arrays.train_labels, work, shuffle=True), steps_per_epoch=1, shuffle=False, verbose=0)
