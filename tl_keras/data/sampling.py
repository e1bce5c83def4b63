"""Order of the training examples in each epoch, a function of (seed, epoch) only. NumPy only."""

from dataclasses import dataclass

import numpy as np

from tl_keras.data.examples import Examples

NATURAL, BALANCED = "natural", "balanced"


def epoch_size(examples: Examples, sampling: str = NATURAL) -> int:
    """Return the number of examples in an epoch. With `balanced` sampling every class counts as many examples as the largest."""
    counts = examples.class_counts
    return len(counts) * max(counts.values()) if sampling == BALANCED else len(examples)


def epoch_order(examples: Examples, sampling: str, *, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the shuffled positions of an epoch's examples and the number of each copy, from 0; both int64 (epoch_size,).

    `balanced` repeats every class up to the size of the largest. The remainder after whole repeats is drawn at random, anew
    each epoch.
    """
    random = np.random.default_rng((seed, epoch))
    if sampling == NATURAL:
        return random.permutation(len(examples)), np.zeros(len(examples), np.int64)
    largest = max(examples.class_counts.values())
    members = [random.permutation(np.flatnonzero(examples.labels == label)) for label in examples.class_counts]
    positions = np.concatenate([np.resize(class_positions, largest) for class_positions in members])
    copies = np.concatenate([np.arange(largest) // len(class_positions) for class_positions in members])
    order = random.permutation(len(positions))
    return positions[order], copies[order]


def batch_sizes(num_examples: int, batch_size: int, min_last: int = 1) -> tuple[int, ...]:
    """Return the numbers of examples in the batches of an epoch, in order.

    All but the last have `batch_size` examples. A remainder of fewer than `min_last` examples is merged into the batch before it, if
    there is one; otherwise it is a batch of its own.
    """
    num_whole, remainder = divmod(num_examples, batch_size)
    if num_whole and 0 < remainder < min_last:
        return (batch_size,) * (num_whole - 1) + (batch_size + remainder,)
    return (batch_size,) * num_whole + (remainder,) * (remainder > 0)


@dataclass(frozen=True)
class EpochOrder:
    """The examples of one epoch, in order; int64 (n,) each.

    Attributes:
        positions: positions of the examples in their split.
        augmentation_ids: index in the source plus `num_images` times the copy number. Together with the view it seeds the
            augmentation.
        views: the epoch, or the number of the view if their number is limited.
    """

    positions: np.ndarray
    augmentation_ids: np.ndarray
    views: np.ndarray


@dataclass(frozen=True)
class TrainingOrder:
    """The order of the training examples over all epochs. The input pipeline and the feature cache read the same one.

    Attributes:
        sampling: `natural` (each example once per epoch) or `balanced`.
        num_views: number of augmented views per image; 0: a new view in every epoch.
        replicas: epochs are trimmed to a multiple of it.
    """

    examples: Examples
    seed: int
    sampling: str = NATURAL
    num_views: int = 0
    replicas: int = 1

    @property
    def num_examples(self) -> int:
        """Examples in an epoch."""
        size = epoch_size(self.examples, self.sampling)
        return size - size % self.replicas

    def epoch(self, epoch: int) -> EpochOrder:
        """Return the order of `epoch`, from 0.

        With `num_views`, epoch k < num_views uses view k, so a run of at most `num_views` epochs is identical to one without
        the limit. Later epochs cycle through the views. Each image starts a cycle at a view drawn from (seed, cycle, image).
        """
        positions, copies = epoch_order(self.examples, self.sampling, seed=self.seed, epoch=epoch)
        positions, copies = positions[: self.num_examples], copies[: self.num_examples]
        indices, num_images = self.examples.indices[positions], len(self.examples.images)
        if not self.num_views:
            return EpochOrder(positions, indices + num_images * copies, np.full(len(positions), epoch))
        cycle = epoch // self.num_views
        starts = np.random.default_rng((self.seed, cycle)).integers(self.num_views, size=num_images) * (cycle > 0)
        return EpochOrder(positions, indices, (epoch + copies + starts[indices]) % self.num_views)
