"""Chooses the layer after which a phase's model is split, so that the cached features save the most computation within the budget.

Pure functions of sizes and costs: no data, no TensorFlow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

FEATURES = "features"
MEMORY, DISK = "memory", "disk"
MEGABYTE = 10**6
DISK_FACTOR = 10  # size of the files, relative to the memory budget


@dataclass(frozen=True)
class SplitPoint:
    """A layer after which a model can be split.

    Attributes:
        name: the stage that ends there, or `features`: the input of the logits.
        shape: shape of the tensor there, for one image.
        num_bytes: size of that tensor, in the compute dtype of the model.
        macs: cost of the forward pass of one image up to there, which a cached feature saves.
    """

    name: str
    shape: tuple[int, ...]
    num_bytes: int
    macs: int


@dataclass(frozen=True)
class Budget:
    """Sizes that the cache may use, in bytes; 0 excludes that storage."""

    memory: int
    disk: int


def cache_budget(mode: str, megabytes: int) -> Budget:
    """Return the budget for the settings `cache=mode` and `cache_budget=megabytes`."""
    memory, disk = megabytes * MEGABYTE, DISK_FACTOR * megabytes * MEGABYTE
    return Budget(memory if mode in ("auto", MEMORY) else 0, disk if mode in ("auto", DISK) else 0)


@dataclass(frozen=True)
class SplitChoice:
    """A split point, and the storage of its features: `memory` or `disk`."""

    split_point: SplitPoint
    storage: str
    total_bytes: int


def choose_split(split_points: Sequence[SplitPoint], num_examples: int, budget: Budget) -> SplitChoice | None:
    """Return the split point that saves the most MACs among those whose features fit the budget.

    Ties go to the smallest features, then to the deepest layer.
    """
    fitting = [
        SplitChoice(split_point, storage, split_point.num_bytes * num_examples)
        for split_point in reversed(split_points)
        if (storage := _storage(split_point.num_bytes * num_examples, budget)) and split_point.macs
    ]
    return max(fitting, key=lambda choice: (choice.split_point.macs, -choice.total_bytes), default=None)


def _storage(total_bytes: int, budget: Budget) -> str:
    if total_bytes <= budget.memory:
        return MEMORY
    return DISK if total_bytes <= budget.disk else ""
