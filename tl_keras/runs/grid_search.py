"""A run with a grid of heads: features once, all heads at once, and the best on validation put into the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

from tl_keras.backbones import LOGITS
from tl_keras.data.examples import Examples
from tl_keras.data.sampling import epoch_order
from tl_keras.errors import ConfigError
from tl_keras.feature_cache.feature_cache import FeatureCache
from tl_keras.runs.setup import RunSetup, build_model
from tl_keras.strategies import freezing
from tl_keras.strategies.grid import HEAD_SETTINGS, HeadConfig, parse
from tl_keras.training.head_grid import GridResult, train_heads
from tl_keras.training.time_limit import TimeLimit
from tl_keras.training.trainer import Progress
from tl_keras.utils.files import write_csv

FILE = "grid.csv"


def search(setup: RunSetup, cache: FeatureCache, directory: Path) -> tuple[Progress, int]:
    """Train the heads of the setting `grid`, write `grid.csv`, and leave the model with the best one.

    Returns:
        The progress, as the trainer gives it, and the epoch, from 1, of the best head's weights.

    Raises:
        ConfigError: The features exceed the budget of the cache.
    """
    config = setup.resolved.config
    time_limit = TimeLimit(config.train.time_limit)
    heads = parse(config.train.grid, config)
    before = freezing.weight_hashes(setup.stages)
    train, cache_record = _head_inputs(cache, setup.splits.train)
    validation, _ = _head_inputs(cache, cast(Examples, setup.splits.validation))  # `parse` refuses a grid without validation
    result = train_heads(
        train,
        validation,
        heads,
        config.train,
        num_classes=setup.num_classes,
        order=lambda epoch: epoch_order(setup.splits.train, config.data.sampling, seed=config.seed, epoch=epoch)[0],
        initial=lambda seed: _initial_head(setup, seed),
        xla=setup.runtime.xla,
        time_limit=time_limit,
    )
    setup.model.get_layer(LOGITS).set_weights([result.kernel, result.bias])
    write_csv(directory / FILE, result.table)
    record = _phase_record(setup, result, heads) | {
        "cache": dict(cache_record),
        "audit": freezing.verify_frozen(setup.stages, setup.phases[0], before),
    }
    progress = Progress(epoch=len(result.history), history=result.history, phases=[record], best=result.best)
    progress.seconds, progress.time_is_up = time_limit.seconds(), time_limit.is_up
    return progress, result.selected_epoch


def _head_inputs(cache: FeatureCache, examples: Examples) -> tuple[tuple[np.ndarray, np.ndarray], Mapping[str, Any]]:
    """Return (features, labels) of `examples`, and their cache record."""
    features, record = cache.head_inputs(examples)
    if features is None:
        raise ConfigError("`grid`: the features of the images exceed the memory budget. Raise `cache_budget` or lower `fraction`.")
    return (features, examples.labels), record


def _initial_head(setup: RunSetup, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias that a run with `seed` would start from."""
    run_seed = setup.resolved.config.seed
    if seed == run_seed:
        return tuple(setup.model.get_layer(LOGITS).get_weights())
    keras.utils.set_random_seed(seed)
    fresh = build_model(setup.resolved, setup.num_classes)
    keras.utils.set_random_seed(run_seed)
    return tuple(fresh.get_layer(LOGITS).get_weights())


def _phase_record(setup: RunSetup, result: GridResult, heads: tuple[HeadConfig, ...]) -> dict[str, Any]:
    phase = setup.phases[0]
    varied = [name for name in HEAD_SETTINGS if len({getattr(head, name) for head in heads}) > 1]
    return {
        "name": f"grid of {len(heads)} heads",
        "epochs": len(result.history),
        "trainable_parameters": result.kernel.size + result.bias.size,
        "trainable_stages": list(phase.trainable),
        "frozen_mode": phase.frozen_mode,
        "batch_norm": phase.batch_norm,
        "eval_mode": phase.eval_mode,
        "seconds": sum(row["seconds"] for row in result.history),
        "collapse": "",
        "grid": {"heads": len(heads), "varied": varied, "best_head": result.table[result.best_index]},
    }
