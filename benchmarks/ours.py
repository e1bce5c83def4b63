"""The same work through tl_keras, with its automatic settings."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import keras
import tensorflow as tf

from benchmarks import plain_keras
from benchmarks.arrays import Arrays
from benchmarks.work import CLASSES, LEARNING_RATE, MOMENTUM, Once, Outcome, Work, timed
from tl_keras import backbones, data
from tl_keras.backbones.macs import count_macs
from tl_keras.config import RunConfig
from tl_keras.data import pipeline
from tl_keras.data.geometry import Geometry
from tl_keras.data.sampling import TrainingOrder, batch_sizes
from tl_keras.runs.resolve import resolve
from tl_keras.runs.run import run
from tl_keras.runs.setup import build_runtime
from tl_keras.training import evaluation, losses
from tl_keras.training.runtime import Runtime
from tl_keras.training.train_step import Batch
from tl_keras.training.trainer import Batches, Trainer

LITTLE_MEMORY = 200  # MB


def configure(work: Work) -> RunConfig:
    """Return the configuration of `work`: the settings of the plain scripts, whatever the defaults are."""
    return RunConfig().replace(
        backbone=work.backbone,
        weights="none",
        image_size=work.image_size,
        strategy=work.strategy,
        precision=work.precision,
        optimizer="sgd",
        learning_rate=LEARNING_RATE,
        momentum=MOMENTUM,
        weight_decay=0.0,
        schedule="constant",
        warmup_epochs=0.0,
        augmentation="none",
        epochs=work.epochs,
        batch_size=work.batch_size,
        validation_fraction=0.0,
        selection="last",
    )


def _runtime(work: Work) -> Runtime:
    config = configure(work)
    return build_runtime(resolve(config))


def precision(work: Work) -> str:
    """Return the precision of `work` on this device. It is never `auto`."""
    return _runtime(work).precision


def build_model(config: RunConfig) -> tuple[keras.Model, Runtime]:
    """Return a new model of `config` with `CLASSES` classes, and its runtime."""
    resolved = resolve(config)
    runtime = build_runtime(resolved)
    with runtime.scope():
        return backbones.build_classifier(resolved.backbone.name, CLASSES, image_size=resolved.geometry.image_size), runtime


def build_trainer(config: RunConfig, model: keras.Model, runtime: Runtime) -> Trainer:
    """Return the trainer of `model`."""
    resolved = resolve(config)
    stages, loss = backbones.stage_layers(model, resolved.backbone.name), losses.build_loss(config.train, {}, CLASSES)
    return Trainer(model, stages, resolved.phases, config.train, runtime, loss=loss)


def _run(config: RunConfig, source: data.DatasetSource, callbacks: tuple[keras.callbacks.Callback, ...] = ()) -> dict[str, Any]:
    """Run on `source`. A new `data_dir` keeps a source that was loaded before from being used."""
    with tempfile.TemporaryDirectory() as directory, patch("tl_keras.data.load_source", lambda config, **options: source):
        return run(config.replace(data_dir=directory), Path(directory) / "run", callbacks=callbacks)


@contextmanager
def train(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Do the whole job as `tl-keras train` does, up to the files of a finished run."""
    yield lambda: whole(configure(work), arrays.source())


@contextmanager
def train_in_little_memory(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Do the whole job with a cache of `LITTLE_MEMORY` MB and an empty cache directory."""
    with tempfile.TemporaryDirectory() as directory:
        config = configure(work).replace(cache_budget=LITTLE_MEMORY, cache_dir=directory)
        yield lambda: whole(config, arrays.source())


def whole(config: RunConfig, source: data.DatasetSource) -> Outcome:
    """Return the time and accuracy of a run, from its configuration to its files."""
    started = time.perf_counter()
    result = _run(config, source)
    return Outcome(time.perf_counter() - started, result["metrics"]["test"]["accuracy"])


def _training_batches(examples: data.Examples, batch_size: int, image_size: int) -> tf.data.Dataset:
    order, geometry = TrainingOrder(examples, seed=0), Geometry(image_size, 1.0)
    sizes = batch_sizes(len(examples), batch_size)
    return pipeline.training_batches(order, geometry, num_classes=CLASSES, augmentation="none", sizes=sizes, epoch=0)


def prepare_batch(arrays: Arrays, batch_size: int, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the images and targets of one training batch."""
    return next(iter(_training_batches(arrays.source().train, batch_size, image_size)))


def _batch(work: Work, arrays: Arrays) -> tuple[tf.Tensor, tf.Tensor]:
    return prepare_batch(arrays, work.batch_size, work.image_size)


@contextmanager
def repeated_step(trainer: Trainer, images: tf.Tensor, targets: tf.Tensor) -> Iterator[Callable[[int], Any]]:
    """Yield a function that takes a number of steps on one batch, without the loop of the trainer, and waits for their losses."""
    size = len(images)
    batch = Batch(index=0, data=(images, targets), num_examples=size, update_size=size, update=0, is_last_batch=True)
    with trainer.phase_step(trainer.phases[0]) as step:
        yield lambda count: [float(loss) for loss, _ in [trainer.take_step(step, batch) for _ in range(count)]]


@contextmanager
def step(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Train on a prepared batch with the step of the trainer, without its loop."""
    batch, config = _batch(work, arrays), configure(work)
    with repeated_step(build_trainer(config, *build_model(config)), *batch) as take:
        yield timed(lambda: take(work.steps))


@contextmanager
def loop(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Run the training loop over a prepared batch. The second epoch counts, as the first compiles. No checkpoints are written."""
    # Building a runtime sets the global seed, which makes TensorFlow drop all compiled functions. Do it once, before the job.
    model_and_runtime = build_model(configure(work))
    repeated = pipeline.prefetched(tf.data.Dataset.from_tensors(_batch(work, arrays)).repeat(work.steps))
    batches = Batches(lambda epoch: repeated, (work.batch_size,) * work.steps, None)

    def job() -> Outcome:
        with tempfile.TemporaryDirectory() as directory, patch("tl_keras.training.checkpoint.save"):
            progress = build_trainer(configure(replace(work, epochs=2)), *model_and_runtime).fit(batches, Path(directory))
        return Outcome(progress.history[-1]["seconds"])

    yield job


@contextmanager
def train_on_batch(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Prepare the work that `loop` is compared with: Keras's own step on the same model, batch and precision."""
    runtime = _runtime(work)
    with plain_keras.train_on_batch(work, arrays, runtime.precision, runtime.xla) as job:
        yield job


@contextmanager
def predict(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Predict a prepared batch."""
    model, runtime = build_model(configure(work))
    compiled, images = evaluation.make_predict(model, runtime), _batch(work, arrays)[0]
    yield timed(lambda: [compiled(images).numpy() for _ in range(work.steps)])


@contextmanager
def feed(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Read the batches of an epoch. Building the pipeline is part of it, as in every epoch."""
    examples = arrays.source().train
    yield timed(lambda: sum(len(targets) for _, targets in _training_batches(examples, work.batch_size, work.image_size)))


class _FirstStep(keras.callbacks.Callback):
    """Ends the run after its first step."""

    class Done(Exception):
        pass

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        raise self.Done


def first_step(work: Work, arrays: Arrays) -> None:
    """Build everything and take the first training step."""
    try:
        _run(configure(work), arrays.source(), (_FirstStep(),))
    except _FirstStep.Done:
        pass


@cache
def multiply_adds(backbone: str, image_size: int) -> tuple[int, int]:
    """Return the multiply-adds of the forward pass of an image, and of a training step on it.

    A step is the forward pass, the gradients of all weights and those of all inputs, which cost as much each; but the inputs of the
    first stage need none, which leaves out a little too much where it has several layers.
    """
    keras.config.set_dtype_policy("float32")
    costs = [cost.macs for cost in count_macs(backbones.build_classifier(backbone, CLASSES, image_size=image_size), backbone).values()]
    return sum(costs), 3 * sum(costs) - costs[0]
