"""Which examples an epoch has, and in which order: (seed, epoch) alone decide. NumPy alone."""

from dataclasses import dataclass

import numpy as np

from tl_keras.data.examples import Examples

NATURAL, BALANCED = "natural", "balanced"


def epoch_size(examples: Examples, sampling: str = NATURAL) -> int:
    """How many examples an epoch has: each once, or, `balanced`, of each class that occurs as many as of the largest."""
    counts = examples.class_counts
    return len(counts) * max(counts.values()) if sampling == BALANCED else len(examples)


def epoch_order(examples: Examples, sampling: str, *, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the examples of an epoch, shuffled, and which copy of its example each is, from 0: both int64 (epoch_size,).

    `balanced` has all of a class as many whole times as the size of the largest class allows, and of the rest a random choice, another
    in each epoch.
    """
    random = np.random.default_rng((seed, epoch))
    if sampling == NATURAL:
        return random.permutation(len(examples)), np.zeros(len(examples), np.int64)
    largest = max(examples.class_counts.values())
    members = [random.permutation(np.flatnonzero(examples.labels == label)) for label in examples.class_counts]
    positions = np.concatenate([np.resize(positions, largest) for positions in members])
    copies = np.concatenate([np.arange(largest) // len(positions) for positions in members])
    order = random.permutation(len(positions))
    return positions[order], copies[order]


@dataclass(frozen=True)
class Epoch:
    """What an epoch shows, in order; int64 (n,) each.

    Attributes:
        order: positions of the examples.
        names: what with the view decides how an image is augmented: where it lies in its source, and which copy of it this is.
        views: the epoch, or, of a fixed number of views, which of them.
    """

    order: np.ndarray
    names: np.ndarray
    views: np.ndarray


def training_epoch(examples: Examples, sampling: str, *, seed: int, epoch: int, replicas: int = 1, num_views: int = 0) -> Epoch:
    """Epoch `epoch`, from 0, trimmed to a multiple of `replicas`.

    With `num_views`, the first epochs show the views one after the other, so that a run of no more epochs is one without that limit.
    After that every image goes on through its views in turn, each round from another one that (seed, round, image) decide.
    """
    order, copies = epoch_order(examples, sampling, seed=seed, epoch=epoch)
    order, copies = (part[: len(order) - len(order) % replicas] for part in (order, copies))
    indices, num_images = examples.indices[order], len(examples.images)
    if not num_views:
        return Epoch(order, indices + num_images * copies, np.full(len(order), epoch))
    turn = epoch // num_views
    starts = np.random.default_rng((seed, turn)).integers(num_views, size=num_images) * (turn > 0)
    return Epoch(order, indices, (epoch + copies + starts[indices]) % num_views)
