"""Compares cached augmented views with new views in every epoch, in speed and in accuracy.

Both sides train a head of alexnet_narrow, with its bundled weights, on the bundled digits, so the accuracies are meaningful on
every machine. Each round has its own seed, the same for both sides.
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
        batch_size=work.batch_size, optimizer="sgd", learning_rate=1e-2, weight_decay=0.0, schedule="constant", warmup_epochs=0.0,
        augmentation="randaugment", cache_views=num_views,
    )  # fmt: skip
    source, seeds = load_source(config.data), count()
    yield lambda: ours.whole(config.replace(seed=next(seeds)), source)


@contextmanager
def kept(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Create `VIEWS` views of each image and their features once. An epoch uses one view of each image."""
    yield from _jobs(work, VIEWS)


@contextmanager
def live(work: Work, arrays: Arrays) -> Iterator[Once]:
    """Create a new view of each image in every epoch."""
    yield from _jobs(work, 0)
