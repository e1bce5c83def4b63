"""Where a phase is cut in two: what costs nothing to keep and much to compute again is kept. Pure: no data and no TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass

FEATURES = "features"
MEMORY, DISK = "memory", "disk"
MEGABYTE = 10**6
DISK_FACTOR = 10  # what files may take, in units of the budget of memory


@dataclass(frozen=True)
class Cut:
    """A place where a network can be cut.

    Attributes:
        name: of the stage that ends there, or `features`: what the head makes its logits of.
        shape: of the tensor there, for one image.
        num_bytes: of that tensor, in the type that the network computes in.
        multiply_adds: of the forward pass of one image up to there, which a kept row saves.
    """

    name: str
    shape: tuple[int, ...]
    num_bytes: int
    multiply_adds: int


@dataclass(frozen=True)
class Budget:
    """What the cache may take, in bytes; 0: that place is not to be used."""

    memory: int
    disk: int


def budget(mode: str, megabytes: int) -> Budget:
    """The budget that `--cache=mode` and `--cache_budget=megabytes` give."""
    memory, disk = megabytes * MEGABYTE, DISK_FACTOR * megabytes * MEGABYTE
    return Budget(memory if mode in ("auto", MEMORY) else 0, disk if mode in ("auto", DISK) else 0)


@dataclass(frozen=True)
class Choice:
    """A cut, and whether its rows lie in `memory` or on `disk`."""

    cut: Cut
    place: str
    total_bytes: int


def choose(cuts: Sequence[Cut], num_rows: int, limits: Budget) -> Choice | None:
    """Of `cuts`, in order, whose `num_rows` rows fit, the one that saves most; of equals the smallest, then the deepest."""
    fitting = [
        Choice(cut, place, cut.num_bytes * num_rows)
        for cut in reversed(cuts)
        if (place := _place(cut.num_bytes * num_rows, limits)) and cut.multiply_adds
    ]
    return max(fitting, key=lambda choice: (choice.cut.multiply_adds, -choice.total_bytes), default=None)


def _place(total_bytes: int, limits: Budget) -> str:
    if total_bytes <= limits.memory:
        return MEMORY
    return DISK if total_bytes <= limits.disk else ""
