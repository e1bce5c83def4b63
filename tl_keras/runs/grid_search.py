"""A run of a grid: features once, all heads at once, the best on validation put into the model."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_keras.backbones import LOGITS
from tl_keras.config import RunConfig
from tl_keras.data.sampling import epoch_order
from tl_keras.errors import ConfigError
from tl_keras.feature_cache.feature_cache import FeatureCache
from tl_keras.runs.setup import Prepared, build
from tl_keras.strategies import freezing
from tl_keras.strategies.grid import NAMES, Head, parse
from tl_keras.training.head_grid import GridResult, train_heads
from tl_keras.training.trainer import Progress
from tl_keras.utils.files import write_csv

FILE = "grid.csv"


def search(config: RunConfig, ready: Prepared, cache: FeatureCache, directory: Path) -> tuple[Progress, int]:
    """Train the heads of `config.train.grid`, write `grid.csv`, and leave the model with the best one.

    Returns:
        What the result says of the training, and the epoch, from 1, that the winner's weights are of.

    Raises:
        ConfigError: the features do not fit the budget of the cache.
    """
    heads = parse(config.train.grid, config)
    before = freezing.fingerprints(ready.stages)
    result = train_heads(
        _split(cache, ready.splits.train),
        _split(cache, ready.splits.validation),
        heads,
        config.train,
        num_classes=len(ready.source.class_names),
        order=lambda epoch: epoch_order(ready.splits.train, config.data.sampling, seed=config.seed, epoch=epoch)[0],
        initial=lambda seed: _initial(config, ready, seed),
        xla=ready.machine.xla,
    )
    ready.model.get_layer(LOGITS).set_weights([result.kernel, result.bias])
    write_csv(directory / FILE, result.table)
    return _progress(config, ready, result, heads, before), result.selected_epoch


def _split(cache: FeatureCache, examples: Any) -> tuple[np.ndarray, np.ndarray]:
    features = cache.features(examples)
    if features is None:
        raise ConfigError("`grid`: the features of the images exceed the memory budget. Raise `cache_budget` or lower `fraction`.")
    return features, examples.labels


def _initial(config: RunConfig, ready: Prepared, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The head that a run with `seed` would start from."""
    if seed == config.seed:
        return tuple(ready.model.get_layer(LOGITS).get_weights())
    keras.utils.set_random_seed(seed)
    fresh = build(config, ready.plan, len(ready.source.class_names))
    keras.utils.set_random_seed(config.seed)
    return tuple(fresh.get_layer(LOGITS).get_weights())


def _progress(config: RunConfig, ready: Prepared, result: GridResult, heads: tuple[Head, ...], before: dict[str, str]) -> Progress:
    phase = ready.plan.phases[0]
    varied = [name for name in NAMES if len({getattr(head, name) for head in heads}) > 1]
    record = {
        "name": f"grid of {len(heads)} heads",
        "epochs": config.train.epochs,
        "trainable_parameters": result.kernel.size + result.bias.size,
        "trainable_stages": list(phase.trainable),
        "frozen_mode": phase.frozen_mode,
        "seconds": sum(row["seconds"] for row in result.history),
        "cache": {"split_point": "features", "storage": "memory"},
        "audit": freezing.audit(ready.stages, phase, before),
        "collapse": "",
        "grid": {"heads": len(heads), "varied": varied, "best_head": result.table[result.best_index]},
    }
    return Progress(epoch=config.train.epochs, history=result.history, phases=[record], best=result.best)
