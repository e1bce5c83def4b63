"""Training heads on features that are there already: a grid of 21, and one."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks import ours
from benchmarks.arrays import Arrays
from benchmarks.work import CLASSES, Once, Outcome, Work
from tl_keras import backbones
from tl_keras.grid import grammar
from tl_keras.grid.heads import train_heads

GRID, ONE = "learning_rate=1e-4:1e-1:7,l2=0:1e-2:3", "learning_rate=1e-2"


def _seconds(text: str, work: Work, arrays: Arrays) -> Iterator[Once]:
    """Yields the job that trains the heads of `--grid=text`: seconds of all epochs after the first, which compiles."""
    config = ours.configure(work).replace(validation_fraction=0.1)
    initial = backbones.build_classifier(work.backbone, CLASSES, image_size=work.image_size).get_layer("logits").get_weights()
    numbers = np.random.default_rng(0)
    splits = [
        (numbers.standard_normal((len(labels), len(initial[0])), np.float32), labels)
        for labels in (arrays.train_labels, arrays.test_labels)
    ]

    def job() -> Outcome:
        result = train_heads(
            *splits,
            grammar.parse(text, config),
            config.train,
            num_classes=CLASSES,
            order=lambda epoch: np.random.default_rng(epoch).permutation(work.num_train),
            initial=lambda seed: initial,
        )
        return Outcome(sum(row["seconds"] for row in result.history[1:]))

    yield job


@contextmanager
def grid(work: Work, arrays: Arrays) -> Iterator[Once]:
    """21 heads at once."""
    yield from _seconds(GRID, work, arrays)


@contextmanager
def one(work: Work, arrays: Arrays) -> Iterator[Once]:
    """One head, by the same loop."""
    yield from _seconds(ONE, work, arrays)
