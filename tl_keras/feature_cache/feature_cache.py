"""Trains on cached features: the frozen prefix of the model is computed once per image, and only the suffix is trained.

Each phase's model is split after its frozen prefix, at the layer that saves the most computation within the budget. Features
are stored under a key that names everything they depend on, so epochs, phases and other runs find them. The examples of a batch
and their order are the same as without the cache.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from tl_keras import data
from tl_keras.config import RunConfig
from tl_keras.data.examples import Examples
from tl_keras.feature_cache.planner import NumImages, Planner, describe_split
from tl_keras.feature_cache.reader import FeatureReader, ReadableRun
from tl_keras.feature_cache.split_model import SplitModel, split_model
from tl_keras.feature_cache.split_point import SplitChoice
from tl_keras.feature_cache.store import cache_directory, shared_store
from tl_keras.strategies import Phase
from tl_keras.strategies.freezing import Stages
from tl_keras.training.trainer import Batches, SplitInputs


class CacheableRun(ReadableRun, Protocol):
    """The parts of a run that the cache reads; `runs.setup.RunSetup` has them."""

    @property
    def model(self) -> keras.Model: ...
    @property
    def stages(self) -> Stages: ...
    @property
    def phases(self) -> Sequence[Phase]: ...
    @property
    def splits(self) -> data.Splits: ...


@dataclass(frozen=True)
class EvaluationInputs:
    """The model that scores the validation and test splits, and its inputs.

    Attributes:
        model: the suffix, or None for the whole model.
        read: (examples, batches of their images) -> batches (inputs of the model, labels, weights), and their cache record.
    """

    model: keras.Model | None
    read: Callable[[Examples, tf.data.Dataset], tuple[tf.data.Dataset, Mapping[str, Any]]]


class FeatureCache:
    """Splits the model of one run.

    Args:
        verbose: 0 silent; else one line per phase.
    """

    def __init__(self, config: RunConfig, run: CacheableRun, *, verbose: int = 0):
        self._config, self._run, self._verbose = config, run, verbose
        self._planner = Planner(config, run.model, run.stages, run.phases, NumImages.of(run.splits))
        self._store = shared_store(cache_directory(config.runtime.cache_dir))

    def split_phase(self, phase: Phase, epoch: int, batches: Batches) -> SplitInputs:
        """Return the model and batches that `phase` trains from `epoch` on.

        That is the suffix on cached features, or the whole model on images if nothing can be cached.
        """
        self._store.unpin_all()
        choice, reason = self._planner.choose(phase)
        if choice is None:
            self._print(f"cache     {phase.name}: not cached: {reason}\n")
            return SplitInputs(None, batches, {"split_point": "", "reason": reason})
        split = self._split(choice)
        reader, validation = self._reader(split, choice), self._run.splits.validation
        reader.prepare(validation, epoch)
        feature_batches = Batches(
            reader.training(batches),
            batches.sizes,
            reader.evaluation(validation, batches.validation) if validation else None,
        )
        computed = "{features_computed:,} features computed in {seconds:.1f} s, {features_reused:,} reused".format(**reader.record)
        self._print(f"cache     {phase.name}: {describe_split(choice)}; {computed}\n")
        return SplitInputs(split.suffix, feature_batches, reader.record)

    def evaluation_inputs(self, model: keras.Model) -> EvaluationInputs:
        """Return what scores splits with the current weights of `model`.

        The split of the last phase is used if it has one and `model` is the model of the run, not one with merged adapters.
        """
        if model is not self._run.model:
            return EvaluationInputs(None, lambda examples, batches: (batches, {}))
        self._store.unpin_all()
        choice, reason = self._planner.choose(self._run.phases[-1])
        if choice is None:
            return EvaluationInputs(None, lambda examples, batches: (batches, {"split_point": "", "reason": reason}))
        split = self._split(choice)

        def read(examples: Examples, batches: tf.data.Dataset) -> tuple[tf.data.Dataset, Mapping[str, Any]]:
            reader = self._reader(split, choice)
            return reader.evaluation(examples, batches), reader.record

        return EvaluationInputs(split.suffix, read)

    def head_inputs(self, examples: Examples) -> tuple[np.ndarray | None, Mapping[str, Any]]:
        """Return the head's input features, (n, channels), and their cache record; None if they exceed the budget."""
        choice = self._planner.choose_features(len(examples))
        if choice is None:
            return None, {}
        reader = self._reader(self._split(choice), choice)
        features = reader.get_features(examples.images, examples.indices, augmented=False)
        return (features.take(examples.indices) if features else None), reader.record

    def _split(self, choice: SplitChoice) -> SplitModel:
        return split_model(self._run.model, self._config.model.backbone, choice.split_point.name)

    def _reader(self, split: SplitModel, choice: SplitChoice) -> FeatureReader:
        return FeatureReader(split.prefix, choice, self._config, self._run, self._store, self._planner.budget)

    def _print(self, text: str) -> None:
        if self._verbose:
            print(text, end="", flush=True)
