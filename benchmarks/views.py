"""Augmented images that are kept, against those made anew in each epoch: how much faster, and what it costs in accuracy.

Both sides train a head on what the package carries, digits and the narrow AlexNet that knows glyphs, so that accuracies mean something
on any machine. Each round has a seed of its own, the same for both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from benchmarks import ours
from benchmarks.arrays import Arrays
from benchmarks.work import Once, Work
from tl_keras.config import RunConfig
from tl_keras.data import load_source

VIEWS = 4


def _jobs(work: Work, num_views: int) -> Iterator[Once]:
    config = RunConfig().replace(
        dataset="digits", backbone="alexnet_narrow", weights="glyphs", strategy=work.strategy, epochs=work.epochs,
        batch_size=work.batch_size, learning_rate=1e-2, augmentation="randaugment", cache_views=num_views,
    )  # fmt: skip
    source, seeds = load_source(config.data), count()
    yield lambda: ours.whole(config.replace(seed=next(seeds)), source)


@contextmanager
def kept(work: Work, arrays: Arrays) -> Iterator[Once]:
    """`VIEWS` views of each image, made and run through the frozen layers once; an epoch draws one of them."""
    yield from _jobs(work, VIEWS)


@contextmanager
def live(work: Work, arrays: Arrays) -> Iterator[Once]:
    """A new view in each epoch."""
    yield from _jobs(work, 0)
