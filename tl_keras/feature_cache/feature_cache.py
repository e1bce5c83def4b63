"""The freeze-boundary cache: what frozen layers make of an image is computed once, and the rest of the network trained on it.

For each phase the network is cut in two (`networks`) behind the frozen stages whose output is the same in every epoch, where what
has to be kept fits (`planner`). The rows at the cut are computed once for each image (`reader`) and kept under a key that names
everything they depend on (`store`), so that epochs, phases and other runs find them. Which examples a batch has, and in which
order, is as without a cache.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_keras.config import RunConfig
from tl_keras.data.examples import Examples
from tl_keras.feature_cache import split_model, split_point, store
from tl_keras.feature_cache.planner import NumImages, Planner, described
from tl_keras.feature_cache.reader import Reader
from tl_keras.runs.setup import Prepared, crop_fraction
from tl_keras.strategies import Phase
from tl_keras.training.trainer import Batches, SplitInputs


class FeatureCache:
    """Cuts the network of one run.

    Args:
        verbose: 0 silent; else a line for each phase.
    """

    def __init__(self, config: RunConfig, ready: Prepared, *, verbose: int = 0):
        self._config, self._verbose = config, verbose
        self._model, self._phases, self._splits = ready.model, ready.plan.phases, ready.splits
        self._source, self._runtime, self._enlarge = ready.source, ready.machine, ready.enlarge
        self._planner = Planner(config, ready.model, ready.stages, ready.plan.phases, NumImages.of(ready.splits))
        self._geometry = {
            "image_size": ready.plan.image_size,
            "crop_fraction": crop_fraction(config.data, ready.source),
            "batch_size": config.train.batch_size,
        }
        self._store = store.store_at(store.directory(config.runtime.cache_dir))

    def split_phase(self, phase: Phase, epoch: int, batches: Batches) -> SplitInputs:
        """What `phase` trains from `epoch` on: the network behind the cut, on the rows of the images in `batches`; or all of it."""
        self._store.release()
        choice, reason = self._planner.choose(phase)
        if choice is None:
            self._say(f"cache     {phase.name}: nothing is kept, {reason}\n")
            return SplitInputs(None, batches, {"split_point": "", "reason": reason})
        halves, reader = self._cut(choice)
        train, validation = self._splits.train, self._splits.validation
        self._say(f"cache     {phase.name}: {described(choice)}; ")
        reader.prepare(train, validation, epoch)
        narrowed = Batches(
            reader.training(train, batches.training),
            batches.num_train,
            reader.evaluation(validation, batches.validation) if validation else None,
        )
        self._say("{features_computed:,} rows computed in {seconds:.1f} s, {features_reused:,} reused\n".format(**reader.record))
        return SplitInputs(halves.suffix, narrowed, reader.record)

    def test(self, batches: tf.data.Dataset) -> tuple[keras.Model | None, tf.data.Dataset, Mapping[str, Any]]:
        """What scores the test split with the weights that the network has now, through the cut of the last phase where it has one.

        Returns:
            The network behind the cut, or None for the whole; batches (its input, labels, weights); what the result says of the cache.
        """
        self._store.release()
        choice, reason = self._planner.choose(self._phases[-1])
        if choice is None:
            return None, batches, {"split_point": "", "reason": reason}
        halves, reader = self._cut(choice)
        return halves.suffix, reader.evaluation(self._splits.test, batches), reader.record

    def features(self, examples: Examples) -> np.ndarray | None:
        """What the head makes its logits of, (n, channels), for what trains on all of it at once; None where it does not fit."""
        choice = self._planner.choose_features(len(examples))
        rows = choice and self._cut(choice)[1].hold(examples.images, examples.indices, augmented=False)
        return rows.take(examples.indices) if rows else None

    def _cut(self, choice: split_point.Choice) -> tuple[split_model.Halves, Reader]:
        halves = split_model.cut(self._model, self._config.model.backbone, choice.cut.name)
        reader = Reader(
            halves.prefix,
            choice,
            self._config,
            self._source,
            self._geometry,
            self._enlarge,
            self._runtime,
            self._store,
            self._planner.limits,
        )
        return halves, reader

    def _say(self, text: str) -> None:
        if self._verbose:
            print(text, end="", flush=True)
