"""Where each phase of a run is cut: what of its network is the same in every epoch, and how many rows there are to keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import keras

from tl_keras import data
from tl_keras.backbones import macs
from tl_keras.config import RunConfig
from tl_keras.data.augmentation import NONE
from tl_keras.feature_cache import split_model, split_point
from tl_keras.feature_cache.shards import RowType
from tl_keras.strategies import Phase, freezing


@dataclass(frozen=True)
class NumImages:
    """How many images the splits of a run have."""

    train: int
    validation: int
    test: int

    @classmethod
    def of(cls, splits: data.Splits) -> "NumImages":
        return cls(len(splits.train), len(splits.validation) if splits.validation else 0, len(splits.test))


class Planner:
    """The cuts of one run.

    Args:
        model, stages: as the trainer takes them.
        phases: all of the run, in order.
    """

    def __init__(self, config: RunConfig, model: keras.Model, stages: freezing.Stages, phases: Sequence[Phase], num_images: NumImages):
        self._config, self._model, self._stages, self._phases, self._num_images = config, model, stages, phases, num_images
        self.limits = split_point.budget(config.runtime.cache, config.runtime.cache_budget)

    def choose(self, phase: Phase) -> tuple[split_point.Choice | None, str]:
        """The cut of a phase, or None and why there is none."""
        if obstacle := self._obstacle():
            return None, obstacle
        cuts, num_rows = self._cuts(phase), self._num_rows(phase)
        if not cuts:
            return None, "as the first stage is trained, or random"
        smallest = min(cut.num_bytes for cut in cuts) * num_rows / split_point.MEGABYTE
        return split_point.choose(
            cuts, num_rows, self.limits
        ), f"as that takes at least {smallest:,.0f} MB, more than `cache_budget` allows"

    def choose_features(self, num_rows: int) -> split_point.Choice | None:
        """The cut at what the head of the last phase makes its logits of; None where its rows do not fit."""
        return split_point.choose([cut for cut in self._cuts(self._phases[-1]) if cut.name == split_point.FEATURES], num_rows, self.limits)

    @property
    def num_views(self) -> int:
        """How many views of each training image there are to keep."""
        config = self._config
        return 1 if config.data.augmentation == NONE else min(config.data.cache_views, config.train.epochs)

    def _obstacle(self) -> str:
        """Why nothing of this run can be kept, or nothing."""
        config = self._config.data
        if self._config.runtime.cache == "off":
            return "as `cache=off`"
        if data.get_augmentation(config.augmentation).mixer:
            return f"as augmentation {config.augmentation} mixes images anew in each epoch"
        if config.augmentation != NONE and not config.cache_views:
            return f"as augmentation {config.augmentation} makes new images in each epoch; `cache_views=N` makes N of each"
        return ""

    def _cuts(self, phase: Phase) -> list[split_point.Cut]:
        """The places where `phase` can be cut, in order."""
        constant, total, cuts = self._constant(phase), 0, []
        for stage in constant:
            cost = self._costs[stage]
            total += cost.multiply_adds
            cuts.append(split_point.Cut(stage, cost.shape, cost.num_bytes, total))
        if len(constant) == len(self._stages) - 1:  # all but the head
            features = split_model.cut_tensor(self._model, self._config.model.backbone, split_point.FEATURES)
            kind = RowType(tuple(features.shape[1:]), features.dtype)
            cuts.append(split_point.Cut(split_point.FEATURES, kind.shape, kind.num_bytes, total))
        return cuts

    @cached_property
    def _costs(self) -> Mapping[str, macs.StageCost]:
        return macs.stage_costs(self._model, self._config.model.backbone)

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
        images = self._num_images
        return self.num_views * images.train + images.validation + (images.test if phase is self._phases[-1] else 0)


def described(choice: split_point.Choice) -> str:
    """A choice in words."""
    cut = choice.cut
    size = f"{cut.num_bytes / 1000:,.1f} kB an image, {choice.total_bytes / split_point.MEGABYTE:,.1f} MB ({choice.place})"
    return f"cut at {cut.name}, {size}, saves {cut.multiply_adds / 1e6:,.1f} M multiply-adds an image and epoch"
