"""Features of all images of a data set before the head, through the feature cache of training, and the time that an image takes."""

import itertools
import time
from dataclasses import dataclass

import numpy as np

from tl_keras.config import RunConfig
from tl_keras.data.examples import Examples
from tl_keras.runs.resolve import resolve
from tl_keras.runs.setup import RunSetup, build_setup, make_trainer

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


def seconds_per_step(config: RunConfig) -> float:
    """Return the seconds of a training step of the last phase, on a few batches after compilation.

    Features before its trained stages are computed if they are cached, and a run in this process finds them. Nothing else is kept.
    """
    from tl_keras.feature_cache.feature_cache import FeatureCache

    setup = build_setup(resolve(config))
    trainer, phase = make_trainer(setup), setup.phases[-1]
    inputs = FeatureCache(config, setup).split_phase(phase, 0, setup.batches)
    with trainer.phase_step(phase, inputs.model) as step:
        batches = trainer.batches(inputs.batches, 0)
        trainer.take_step(step, next(batches))[0].numpy()
        started, rest = time.perf_counter(), list(itertools.islice(batches, TIMED_BATCHES))
        for batch in rest:
            trainer.take_step(step, batch)[0].numpy()
    return (time.perf_counter() - started) / max(1, len(rest))


def compute_features(setup: RunSetup) -> ImageFeatures:
    """Compute the features of all images of `setup`. A run of the same settings in this process finds them."""
    from tl_keras.feature_cache.feature_cache import FeatureCache

    splits = (setup.splits.train, setup.splits.validation, setup.splits.test)
    sizes = [len(part) if part else 0 for part in splits]
    indices, labels = (np.concatenate([getattr(part, name) for part in splits if part]) for name in ("indices", "labels"))
    examples = Examples(setup.splits.train.images, indices, labels)
    features, _ = FeatureCache(setup.resolved.config, setup).head_inputs(examples)
    return ImageFeatures(examples, np.repeat(np.arange(3), sizes), None if features is None else np.asarray(features, np.float32))
