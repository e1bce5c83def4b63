"""The possible split points of each phase of a run, and how many features each needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import keras

from tl_keras import data
from tl_keras.backbones import HEAD, macs
from tl_keras.config import RunConfig
from tl_keras.data.augmentation import NONE
from tl_keras.errors import ConfigError
from tl_keras.feature_cache.shards import FeatureSpec
from tl_keras.feature_cache.split_model import split_tensor
from tl_keras.feature_cache.split_point import FEATURES, MEGABYTE, SplitChoice, SplitPoint, cache_budget, choose_split
from tl_keras.strategies import Phase, freezing


@dataclass(frozen=True)
class NumImages:
    """Number of images in each split of a run."""

    train: int
    validation: int
    test: int

    @classmethod
    def of(cls, splits: data.Splits) -> "NumImages":
        return cls(len(splits.train), len(splits.validation) if splits.validation else 0, len(splits.test))


class Planner:
    """Chooses the split of each phase of one run.

    Args:
        model, stages: as the trainer takes them.
        phases: all phases of the run, in order.
    """

    def __init__(self, config: RunConfig, model: keras.Model, stages: freezing.Stages, phases: Sequence[Phase], num_images: NumImages):
        self._config, self._model, self._stages, self._phases, self._num_images = config, model, stages, phases, num_images
        self.budget = cache_budget(config.runtime.cache, config.runtime.cache_budget)

    def choose(self, phase: Phase) -> tuple[SplitChoice | None, str]:
        """Return the split of a phase, or None and the reason why its features are not cached."""
        if reason := self._why_uncacheable():
            return None, reason
        split_points, num_features = self._split_points(phase), self._num_features(phase)
        if not split_points:
            return None, "the first stage is trained or random"
        smallest = min(split_point.num_bytes for split_point in split_points) * num_features / MEGABYTE
        choice = choose_split(split_points, num_features, self.budget)
        return choice, "" if choice else f"at least {smallest:,.0f} MB are needed, more than `cache_budget` allows"

    def choose_features(self, num_examples: int) -> SplitChoice | None:
        """Return the split before the logits in the last phase, or None if the features exceed the budget.

        Raises:
            ConfigError: The head has dropout before the logits.
        """
        if self._has_random_head(self._phases[-1]):
            raise ConfigError(
                f"the head of {self._config.model.backbone} has dropout before the logits, which a grid of heads does not apply. "
                "Use a run without `grid`, or another backbone.",
                setting="grid",
                value=self._config.train.grid,
            )
        split_points = [split_point for split_point in self._split_points(self._phases[-1]) if split_point.name == FEATURES]
        return choose_split(split_points, num_examples, self.budget)

    @property
    def num_views(self) -> int:
        """Number of cached views of each training image."""
        config = self._config
        return 1 if config.data.augmentation == NONE else min(config.data.cache_views, config.train.epochs)

    def _why_uncacheable(self) -> str:
        """Return why nothing of this run can be cached, or an empty string."""
        config = self._config.data
        if self._config.runtime.cache == "off":
            return "`cache=off`"
        if data.get_augmentation(config.augmentation).mixer:
            return f"augmentation {config.augmentation} mixes images anew in each epoch"
        if config.augmentation != NONE and not config.cache_views:
            return f"augmentation {config.augmentation} makes new images in each epoch; `cache_views=N` reuses N views of each"
        return ""

    def _split_points(self, phase: Phase) -> list[SplitPoint]:
        """Return the layers after which the model of `phase` can be split, in order."""
        prefix, total_macs, split_points = self._frozen_prefix(phase), 0, []
        for stage in prefix:
            cost = self._costs[stage]
            total_macs += cost.macs
            split_points.append(SplitPoint(stage, cost.shape, cost.num_bytes, total_macs))
        if len(prefix) == len(self._stages) - 1 and not self._has_random_head(phase):  # all stages but the head
            features = split_tensor(self._model, self._config.model.backbone, FEATURES)
            spec = FeatureSpec(tuple(features.shape[1:]), features.dtype)
            split_points.append(SplitPoint(FEATURES, spec.shape, spec.num_bytes, total_macs))
        return split_points

    def _has_random_head(self, phase: Phase) -> bool:
        """Return True if `phase` has dropout before the logits (VGG16), which a suffix of the logits alone would skip."""
        return freezing.has_randomness(self._stages[HEAD], HEAD, phase)

    @cached_property
    def _costs(self) -> Mapping[str, macs.StageCost]:
        return macs.count_macs(self._model, self._config.model.backbone)

    def _frozen_prefix(self, phase: Phase) -> list[str]:
        """Return the leading stages whose output is the same in every epoch of `phase`.

        With averaged weights (`ema`) the average of a weight moves on after its own phase, so such stages do not count.
        """
        prefix = freezing.frozen_prefix(self._stages, phase)
        if self._config.train.ema:
            updated = {path for other in self._phases for path in freezing.updated_paths(self._stages, other)}
            averaged = [
                stage for stage in prefix if any(weight.path in updated for layer in self._stages[stage] for weight in layer.weights)
            ]
            prefix = prefix[: prefix.index(averaged[0])] if averaged else prefix
        return prefix

    def _num_features(self, phase: Phase) -> int:
        """Return the number of features of `phase`: training images in all views, validation, and in the last phase the test split."""
        images = self._num_images
        return self.num_views * images.train + images.validation + (images.test if phase is self._phases[-1] else 0)


def describe_split(choice: SplitChoice) -> str:
    """Return a split in words, for the terminal."""
    split_point = choice.split_point
    size = f"{split_point.num_bytes / 1000:,.1f} kB per image, {choice.total_bytes / MEGABYTE:,.1f} MB ({choice.storage})"
    return f"split after {split_point.name}, {size}, saves {split_point.macs / 1e6:,.1f} M MACs per image and epoch"
