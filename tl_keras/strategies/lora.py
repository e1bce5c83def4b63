"""Low-rank adapters (LoRA; Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models").

`insert` gives a model whose chosen layers compute `W x + (alpha / rank) B A x` with W frozen; `merge` gives back the plain model,
its kernels W + (alpha / rank) B A. `save` and `load` keep what was trained apart from the weights it was trained from.
"""

import hashlib
import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from tl_keras.backbones import HEAD
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.strategies import Lora
from tl_keras.strategies.lora_layer import LowRank, is_adaptable
from tl_keras.utils.files import READ_ERRORS, read_npz, write_npz

FILE = "adapters.npz"
GROUPS: Mapping[str, tuple[str, ...]] = {"attention": ("query", "value")}


def find_targets(stages: Mapping[str, Sequence[layers.Layer]], targets: Sequence[str]) -> list[str]:
    """The names of the layers that `targets` mean, in the order of the model; the head is never one of them.

    A target is `all`, `attention` (query and value), a stage, or the end of the names of layers: `query` is every
    `block1_query`, `block2_query`, ... Grouped and depthwise convolutions are no targets.

    Raises:
        ConfigError: a target matches nothing; the message lists what there is.
    """
    there = {layer.name: stage for stage, part in stages.items() if stage != HEAD for layer in part if is_adaptable(layer)}
    found: set[str] = set()
    for target in targets:
        names = {name for name, stage in there.items() if any(_means(part, name, stage) for part in GROUPS.get(target, (target,)))}
        if not names:
            parts = sorted({_last_part(name) for name in there})
            raise ConfigError(
                f"`strategy=lora:targets={'+'.join(targets)}`: {target!r} matches no layer that can be adapted. There are: all; the "
                f"stages {', '.join(dict.fromkeys(there.values()))}; layers whose names end in {', '.join(parts)}."
            )
        found |= names
    return [name for name in there if name in found]


def _means(target: str, name: str, stage: str) -> bool:
    return target in ("all", stage, name) or name.endswith(f"_{target}")


def _last_part(name: str) -> str:
    """What is left of a layer's name without the numbered blocks before it, e.g. `attention_out` of `block1_attention_out`."""
    parts = name.split("_")
    while len(parts) > 1 and any(letter.isdigit() for letter in parts[0]):
        parts = parts[1:]
    return "_".join(parts)


def insert(model: keras.Model, names: Collection[str], *, rank: int, alpha: float, seed: int) -> keras.Model:
    """A copy of a functional model in which the layers `names` have adapters; it computes what `model` computes, to the bit.

    Args:
        names: of layers, as `find_targets` gives them.
        alpha: the update is scaled by alpha / rank.
        seed: of the initial values of A.
    """
    seeds = random.Random(seed)

    def adapt(layer: Any) -> Any:
        return LowRank(layer, rank, alpha, seeds.randrange(2**31)) if layer.name in names else _copied(layer)

    adapted = keras.models.clone_model(model, clone_function=adapt)
    for layer in _weighted(model):
        copy = adapted.get_layer(layer.name)
        (copy.base if isinstance(copy, LowRank) else copy).set_weights(layer.get_weights())
    return adapted


def insert_strategy(model: keras.Model, stages: Mapping[str, Sequence[layers.Layer]], strategy: Lora, *, seed: int) -> keras.Model:
    """`insert` what `strategy` asks for; ConfigError where a target matches no layer of `stages`."""
    names = find_targets(stages, strategy.targets)
    return insert(model, names, rank=strategy.rank, alpha=strategy.alpha or strategy.rank, seed=seed)


def _weighted(model: keras.Model) -> list[layers.Layer]:
    return [layer for layer in model.layers if layer.weights]


def _copied(operation: Any) -> Any:
    return type(operation).from_config(operation.get_config())


def merge(model: keras.Model) -> keras.Model:
    """The plain model that computes what `model`, with adapters, computes: stock layers, every update added to its kernel."""

    def plain(layer: Any) -> Any:
        return type(layer.base).from_config(layer.plain_config) if isinstance(layer, LowRank) else _copied(layer)

    merged = keras.models.clone_model(model, clone_function=plain)
    for layer in _weighted(model):
        weights = layer.merged_weights() if isinstance(layer, LowRank) else layer.get_weights()
        merged.get_layer(layer.name).set_weights(weights)
    return merged


def adapters_of(model: keras.Model) -> list[LowRank]:
    """The layers of `model` that have adapters."""
    return [layer for layer in model.layers if isinstance(layer, LowRank)]


def _digest(kernels: Sequence[keras.Variable]) -> str:
    """Hash of frozen kernels: adapters are worth nothing on others."""
    hashed = hashlib.blake2b(digest_size=16)
    for kernel in kernels:
        hashed.update(np.ascontiguousarray(kernel.numpy()))
    return hashed.hexdigest()


def save(path: Path, model: keras.Model, moved: Collection[str]) -> None:
    """Write what was trained, and no frozen weight, to `path` (.npz, nothing pickled).

    Args:
        model: with adapters.
        moved: paths of the variables to keep, as `freezing.expected_to_move` gives them: factors and head, and with
            frozen_mode `training` the running statistics.

    The file holds each variable under its path, float32, and `meta`, JSON: `layers`, `rank`, `alpha`, and `base`, a hash of
    the frozen kernels that the adapters belong to.
    """
    adapters = adapters_of(model)
    rank = adapters[0].rank
    meta = {
        "layers": [layer.name for layer in adapters],
        "rank": rank,
        "alpha": adapters[0].scale * rank,
        "base": _digest([layer.base.kernel for layer in adapters]),
    }
    arrays = {weight.path: weight.numpy() for weight in model.weights if weight.path in moved}
    write_npz(path, arrays, meta=meta)


def load(path: Path, model: keras.Model) -> keras.Model:
    """The trained model that `save` wrote to `path`, from a plain `model` with the weights that it was trained from.

        model = tl_keras.backbones.build_classifier("vit_b16", 37)
        tl_keras.weights.load_weights(model, "vit_b16", weights_file)
        trained = lora.load(Path("runs/pets-lora/adapters.npz"), model)

    Returns:
        A plain model, the updates merged into its kernels.

    Raises:
        DamagedError: the file cannot be read, or belongs to a model of other weights, another shape or another head.
    """
    arrays, meta = _read(path)
    known = {layer.name: layer for layer in model.layers}
    if not set(meta["layers"]) <= set(known) or _digest([known[name].kernel for name in meta["layers"]]) != meta["base"]:
        raise DamagedError(f"{path}: these adapters were trained on other weights than the model has. Load those of the run first.")
    adapted = insert(model, meta["layers"], rank=meta["rank"], alpha=meta["alpha"], seed=0)
    weights = {weight.path: weight for weight in adapted.weights}
    for name, value in arrays.items():
        if name not in weights or tuple(weights[name].shape) != value.shape:
            expected = tuple(weights[name].shape) if name in weights else "no such variable"
            raise DamagedError(f"{path}: {name} is {value.shape} there; the model expects {expected}. Build it with the run's classes.")
        weights[name].assign(value)
    return merge(adapted)


def _read(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    try:
        return read_npz(path)
    except READ_ERRORS as error:
        raise DamagedError(f"{path} cannot be read as adapters ({error}). Expected the {FILE} of a finished run.") from error
