"""Features of all images of a data set before the head, through the feature cache of training, and the time that an image takes."""

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tl_keras.config import RunConfig
from tl_keras.data.examples import Examples
from tl_keras.runs.resolve import resolve
from tl_keras.runs.setup import RunSetup, build_setup, make_trainer

if TYPE_CHECKING:
    from tl_keras.training.train_step import TrainStep
    from tl_keras.training.trainer import Batches, Trainer

TIMED_BATCHES = 4
TIMED_BATCH_SIZE = 32


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """All images of a run: training, validation and test.

    Attributes:
        examples: the images with their labels.
        splits: int (n,), 0 training, 1 validation, 2 test.
        features: float32 (n, channels), or None if they exceed the budget of the cache.
    """

    examples: Examples
    splits: np.ndarray
    features: np.ndarray | None


def prepare(config: RunConfig) -> RunSetup:
    """Return the data and the model of a run that trains the head of `config`."""
    return build_setup(resolve(config.replace(strategy="head", grid="", augmentation="none", stage_learning_rates="")))


def seconds_per_image(setup: RunSetup) -> float:
    """Return the seconds that the features of one image take, decoding included, on a few batches after compilation."""
    from tl_keras.data import pipeline
    from tl_keras.feature_cache.split_model import compile_prefix, split_model
    from tl_keras.feature_cache.split_point import FEATURES

    prefix = split_model(setup.model, setup.resolved.backbone.name, FEATURES).prefix
    compute = compile_prefix(prefix, setup.runtime, setup.geometry.device_resize())
    examples = setup.splits.train.subset(np.arange(min(len(setup.splits.train), TIMED_BATCHES * TIMED_BATCH_SIZE)))

    def run(part: Examples) -> float:
        started = time.perf_counter()
        for images, _, _ in pipeline.evaluation_batches(part, setup.geometry, batch_size=TIMED_BATCH_SIZE):
            compute(images).numpy()
        return time.perf_counter() - started

    run(examples.subset(np.arange(min(len(examples), TIMED_BATCH_SIZE))))
    return run(examples) / len(examples)


def measure_last_phase(config: RunConfig, test_seconds: float) -> tuple[float, float | None]:
    """Return the seconds of a training step of the last phase, on a few batches after compilation, and a safe learning rate.

    The learning rate is a tenth of that of the smallest loss in a range test, see `runs.lr_find`; None if the test would take longer than
    `test_seconds`. Features before the trained stages are computed if they are cached, and a run in this process finds them. Nothing else
    is kept.
    """
    from tl_keras.feature_cache.feature_cache import FeatureCache
    from tl_keras.runs.lr_find import NUM_STEPS, range_test_of_phase

    setup = build_setup(resolve(config.replace(accumulate_steps=1, ema=0.0)))
    trainer, phase = make_trainer(setup), setup.phases[-1]
    inputs = FeatureCache(config, setup).split_phase(phase, 0, setup.batches)
    with trainer.phase_step(phase, inputs.model) as step:
        trainer.optimizer.learning_rate = 0.0  # the range test begins with the initial weights
        per_step = _seconds_per_step(trainer, step, inputs.batches)
        is_short = NUM_STEPS * per_step <= test_seconds
        return per_step, range_test_of_phase(trainer, step, inputs.batches).minimum() if is_short else None


def _seconds_per_step(trainer: "Trainer", step: "TrainStep", batches: "Batches") -> float:
    all_batches = trainer.batches(batches, 0)
    trainer.take_step(step, next(all_batches))[0].numpy()
    started, timed = time.perf_counter(), list(itertools.islice(all_batches, TIMED_BATCHES))
    for batch in timed:
        trainer.take_step(step, batch)[0].numpy()
    return (time.perf_counter() - started) / max(1, len(timed))


def compute_features(setup: RunSetup) -> ImageFeatures:
    """Compute the features of all images of `setup`. A run of the same settings in this process finds them."""
    from tl_keras.feature_cache.feature_cache import FeatureCache

    splits = (setup.splits.train, setup.splits.validation, setup.splits.test)
    sizes = [len(part) if part else 0 for part in splits]
    indices, labels = (np.concatenate([getattr(part, name) for part in splits if part]) for name in ("indices", "labels"))
    examples = Examples(setup.splits.train.images, indices, labels)
    features, _ = FeatureCache(setup.resolved.config, setup).head_inputs(examples)
    return ImageFeatures(examples, np.repeat(np.arange(3), sizes), None if features is None else np.asarray(features, np.float32))
