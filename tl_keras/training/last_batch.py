"""Decides which last batch of an epoch is too small for the statistics of BatchNorm, and says what is done with it."""

import math
from collections.abc import Sequence

import keras

from tl_keras.config import TrainConfig
from tl_keras.strategies import Phase, freezing

# Values of each channel. Measured on CIFAR-10: batches of 32, an epoch of 128 images and a remainder, SGD, six epochs, two seeds.
# ResNet18 from scratch, maps of 1 x 1: the test loss is above 750 nats with 2 values in the last batch, 3.5 with 4, and with 8 or more
# that without a remainder, 2.3. Pre-trained EfficientNet-Lite0, maps of 2 x 2: the test accuracy is 10 to 12 % with 4 to 32 values, 28 %
# with 64, and 26 % without a remainder.
MIN_VALUES = 64


def min_last_batch(config: TrainConfig, stages: freezing.Stages, phases: Sequence[Phase], replicas: int) -> int:
    """Return the number of examples, over all replicas, below which a last batch is merged. Call outside `apply_phase`.

    Each BatchNorm on statistics of the batch gets at least `MIN_VALUES` values of a channel on each replica: one for each example
    and position of its map. All phases have the same batches, so the smallest map of all of them decides.
    """
    if config.last_batch == "keep":
        return replicas
    sizes = [_num_positions(layer) for phase in phases for layer in _on_batch_statistics(stages, phase)]
    return replicas * math.ceil(MIN_VALUES / min(sizes, default=MIN_VALUES))


def _on_batch_statistics(stages: freezing.Stages, phase: Phase) -> list[keras.layers.Layer]:
    norms = [(layer, stage) for stage in stages for layer in stages[stage] if isinstance(layer, keras.layers.BatchNormalization)]
    return [layer for layer, stage in norms if freezing.runs_in_training_mode(layer, stage, phase)]


def _num_positions(layer: keras.layers.Layer) -> int:
    """Return the number of positions in the output of `layer`, (b, ..., channels)."""
    return math.prod(layer.output.shape[1:-1])


def describe_merged(sizes: Sequence[int], batch_size: int) -> list[str]:
    """Return a sentence on the examples that are merged into the batch before them, in a list; an empty list if there are none."""
    merged = sizes[-1] - batch_size
    if merged <= 0:
        return []
    last = f"the last {merged} images of each epoch are" if merged > 1 else "the last image of each epoch is"
    return [
        f"{last} trained in the batch before, of {sizes[-1]} instead of {batch_size} images: alone, BatchNorm would have fewer than "
        f"{MIN_VALUES} values of a channel for its statistics (`last_batch=merge`)"
    ]
