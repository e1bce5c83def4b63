"""The freeze-boundary cache: what frozen layers make of an image is computed once, and the rest of the network trained on it.

For each phase the network is cut in two (`networks`) behind the frozen stages whose output is the same in every epoch, where what
has to be kept fits (`plan`). The rows at the cut are computed once for each image (`reader`) and kept under a key that names
everything they depend on (`store`), so that epochs, phases and other runs find them. Which examples a batch has, and in which
order, is as without a cache.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_keras import data, freezing, multiply_adds
from tl_keras.cache import networks, plan, store
from tl_keras.cache.reader import Reader
from tl_keras.cache.segments import RowType
from tl_keras.config import RunConfig
from tl_keras.data.augment import NONE
from tl_keras.data.examples import Examples
from tl_keras.prepare import Prepared, crop_fraction
from tl_keras.strategies import Phase
from tl_keras.trainer import Batches, Part


class FeatureCache:
    """Cuts the network of one run.

    Args:
        verbose: 0 silent; else a line for each phase.
    """

    def __init__(self, config: RunConfig, ready: Prepared, *, verbose: int = 0):
        self._config, self._verbose = config, verbose
        self._model, self._stages, self._phases, self._splits = ready.model, ready.stages, ready.plan.phases, ready.splits
        self._source, self._runtime = ready.source, ready.machine
        self._geometry = {
            "image_size": ready.plan.image_size,
            "crop_fraction": crop_fraction(config.data, ready.source),
            "batch_size": config.train.batch_size,
        }
        self._limits = plan.budget(config.runtime.cache, config.runtime.cache_budget)
        self._store = store.store_at(store.directory(config.runtime.cache_dir))

    def narrow(self, phase: Phase, epoch: int, batches: Batches) -> Part:
        """What `phase` trains from `epoch` on: the network behind the cut, on the rows of the images in `batches`; or all of it."""
        self._store.release()
        choice, reason = self._choose(phase)
        if choice is None:
            self._say(f"cache     {phase.name}: nothing is kept, {reason}\n")
            return Part(self._model, batches, {"cut": "", "reason": reason})
        halves, reader = self._cut(choice)
        train, validation = self._splits.train, self._splits.validation
        self._say(f"cache     {phase.name}: {_described(choice)}; ")
        reader.prepare(train, validation, epoch)
        narrowed = Batches(
            reader.training(train, batches.training),
            batches.num_train,
            reader.evaluation(validation, batches.validation) if validation else None,
        )
        self._say("{rows_computed:,} rows computed in {seconds:.1f} s, {rows_reused:,} reused\n".format(**reader.record))
        return Part(halves.suffix, narrowed, reader.record)

    def test(self, batches: tf.data.Dataset) -> tuple[keras.Model, tf.data.Dataset, Mapping[str, Any]]:
        """What scores the test split with the weights that the network has now, through the cut of the last phase where it has one.

        Returns:
            A network, batches (its input, labels, weights), and what the result says of the cache.
        """
        self._store.release()
        choice, reason = self._choose(self._phases[-1])
        if choice is None:
            return self._model, batches, {"cut": "", "reason": reason}
        halves, reader = self._cut(choice)
        return halves.suffix, reader.evaluation(self._splits.test, batches), reader.record

    def features(self, examples: Examples) -> np.ndarray | None:
        """What the head makes its logits of, (n, channels), for what trains on all of it at once; None where it does not fit."""
        cuts = [cut for cut in self._cuts(self._phases[-1]) if cut.name == plan.FEATURES]
        choice = plan.choose(cuts, len(examples), self._limits)
        rows = choice and self._cut(choice)[1].hold(examples.images, examples.indices, augmented=False)
        return rows.take(examples.indices) if rows else None

    def _cut(self, choice: plan.Choice) -> tuple[networks.Halves, Reader]:
        halves = networks.cut(self._model, self._config.model.backbone, choice.cut.name)
        reader = Reader(halves.prefix, choice, self._config, self._source, self._geometry, self._runtime, self._store, self._limits)
        return halves, reader

    def _choose(self, phase: Phase) -> tuple[plan.Choice | None, str]:
        """The cut of a phase, or why there is none."""
        if obstacle := self._obstacle():
            return None, obstacle
        cuts, num_rows = self._cuts(phase), self._num_rows(phase)
        if not cuts:
            return None, "as the first stage is trained, or random"
        smallest = min(cut.num_bytes for cut in cuts) * num_rows / plan.MEGABYTE
        return plan.choose(cuts, num_rows, self._limits), f"as that takes at least {smallest:,.0f} MB, more than --cache_budget allows"

    def _obstacle(self) -> str:
        """Why nothing of this run can be kept, or nothing."""
        config = self._config.data
        if self._config.runtime.cache == "off":
            return "as --cache=off"
        if data.get_augmentation(config.augmentation).mixer:
            return f"as augmentation {config.augmentation} mixes images anew in each epoch"
        if config.augmentation != NONE and not config.cache_views:
            return f"as augmentation {config.augmentation} makes new images in each epoch; --cache_views=N makes N of each"
        return ""

    def _cuts(self, phase: Phase) -> list[plan.Cut]:
        """The places where `phase` can be cut, in order."""
        constant, total, cuts = self._constant(phase), 0, []
        for stage in constant:
            cost = self._costs[stage]
            total += cost.multiply_adds
            cuts.append(plan.Cut(stage, cost.shape, cost.num_bytes, total))
        if len(constant) == len(self._stages) - 1:  # all but the head
            features = networks.cut_tensor(self._model, self._config.model.backbone, plan.FEATURES)
            kind = RowType(tuple(features.shape[1:]), features.dtype)
            cuts.append(plan.Cut(plan.FEATURES, kind.shape, kind.num_bytes, total))
        return cuts

    @cached_property
    def _costs(self) -> Mapping[str, multiply_adds.StageCost]:
        return multiply_adds.stage_costs(self._model, self._config.model.backbone)

    def _constant(self, phase: Phase) -> list[str]:
        """The first stages whose output is the same in every epoch of `phase`, also where averages of the weights are validated."""
        constant = freezing.constant_stages(self._stages, phase)
        if self._config.train.ema:
            moving = {path for other in self._phases for path in freezing.expected_to_move(self._stages, other)}
            averaged = [
                stage for stage in constant if any(weight.path in moving for layer in self._stages[stage] for weight in layer.weights)
            ]
            constant = constant[: constant.index(averaged[0])] if averaged else constant
        return constant

    def _num_rows(self, phase: Phase) -> int:
        """How many rows `phase` needs: of training images, in all their views, of validation, and in the end of the test split."""
        config, splits = self._config, self._splits
        num_views = 1 if config.data.augmentation == NONE else min(config.data.cache_views, config.train.epochs)
        num_test = len(splits.test) if phase is self._phases[-1] else 0
        return num_views * len(splits.train) + (len(splits.validation) if splits.validation else 0) + num_test

    def _say(self, text: str) -> None:
        if self._verbose:
            print(text, end="", flush=True)


def _described(choice: plan.Choice) -> str:
    cut = choice.cut
    size = f"{cut.num_bytes / 1000:,.1f} kB an image, {choice.total_bytes / plan.MEGABYTE:,.1f} MB ({choice.place})"
    return f"cut at {cut.name}, {size}, saves {cut.multiply_adds / 1e6:,.0f} M multiply-adds an image and epoch"
