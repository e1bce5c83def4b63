"""Low-rank adapters (LoRA; Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models").

`add_lora` returns a model whose chosen layers compute `W x + (alpha / rank) B A x` with W frozen. `merge` returns the plain model with
kernels W + (alpha / rank) B A. `save` and `load` store the trained variables without the frozen weights.
"""

import hashlib
import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import layers

from tl_keras.backbones import HEAD, stable_path
from tl_keras.errors import ConfigError, DamagedError, did_you_mean
from tl_keras.strategies import Lora
from tl_keras.strategies.freezing import name_matches, short_name
from tl_keras.strategies.lora_layer import LoRALayer, clone_layer, is_adaptable
from tl_keras.utils.files import READ_ERRORS, read_npz, write_npz

FILE = "adapters.npz"
TARGET_GROUPS: Mapping[str, tuple[str, ...]] = {"attention": ("query", "value")}


def match_layers(stages: Mapping[str, Sequence[layers.Layer]], targets: Sequence[str]) -> list[str]:
    """Return the names of the layers that match `targets`, in the order of the model. The head never matches.

    A target is `all`, `attention` (query and value), a stage, or the end of a layer name: `query` matches `block1_query`,
    `block2_query`, ... Grouped and depthwise convolutions do not match.

    Raises:
        ConfigError: A target matches nothing. The message lists the possible targets.
    """
    adaptable = {layer.name: stage for stage, part in stages.items() if stage != HEAD for layer in part if is_adaptable(layer)}
    matches: set[str] = set()
    for target in targets:
        names = {
            name for name, stage in adaptable.items() if any(_matches(part, name, stage) for part in TARGET_GROUPS.get(target, (target,)))
        }
        if not names:
            parts = sorted({short_name(name) for name in adaptable})
            hint = did_you_mean(target, ["all", *TARGET_GROUPS, *adaptable.values(), *parts])
            raise ConfigError(
                f"`strategy=lora:targets={'+'.join(targets)}`: {target!r} matches no layer that can be adapted. Available: all; the "
                f"stages {', '.join(dict.fromkeys(adaptable.values()))}; layers whose names end in {', '.join(parts)}.{hint}"
            )
        matches |= names
    return [name for name in adaptable if name in matches]


def _matches(target: str, name: str, stage: str) -> bool:
    return target in ("all", stage) or name_matches(name, target)


def add_lora(model: keras.Model, names: Collection[str], *, rank: int, alpha: float, seed: int) -> keras.Model:
    """Return a copy of a functional model in which the layers `names` have adapters. Its outputs are bit-identical to those of `model`.

    Args:
        names: names of layers, from `match_layers`.
        rank: rank of the updates.
        alpha: scale of the updates times `rank`.
        seed: seed of the initial values of A.
    """
    seeds = random.Random(seed)

    def adapt(layer: Any) -> Any:
        return LoRALayer(layer, rank, alpha, seeds.randrange(2**31)) if layer.name in names else clone_layer(layer)

    adapted = keras.models.clone_model(model, clone_function=adapt)
    for layer in _weighted(model):
        copy = adapted.get_layer(layer.name)
        (copy.base if isinstance(copy, LoRALayer) else copy).set_weights(layer.get_weights())
    return adapted


def add_lora_for_strategy(model: keras.Model, stages: Mapping[str, Sequence[layers.Layer]], strategy: Lora, *, seed: int) -> keras.Model:
    """Return a copy of `model` with the adapters of `strategy`. Raise ConfigError if a target matches no layer of `stages`."""
    names = match_layers(stages, strategy.targets)
    return add_lora(model, names, rank=strategy.rank, alpha=strategy.alpha or strategy.rank, seed=seed)


def _weighted(model: keras.Model) -> list[layers.Layer]:
    return [layer for layer in model.layers if layer.weights]


def merge(model: keras.Model) -> keras.Model:
    """Return the model of stock layers that is equivalent to `model`: every update is added to its kernel."""

    def plain(layer: Any) -> Any:
        return type(layer.base).from_config(layer.base_config) if isinstance(layer, LoRALayer) else clone_layer(layer)

    merged = keras.models.clone_model(model, clone_function=plain)
    for layer in _weighted(model):
        weights = layer.merged_weights() if isinstance(layer, LoRALayer) else layer.get_weights()
        merged.get_layer(layer.name).set_weights(weights)
    return merged


def lora_layers(model: keras.Model) -> list[LoRALayer]:
    """Return the layers of `model` with adapters."""
    return [layer for layer in model.layers if isinstance(layer, LoRALayer)]


def _hash_kernels(kernels: Sequence[keras.Variable]) -> str:
    """Return a hash of frozen kernels. Adapters are only valid on the kernels that they were trained on."""
    digest = hashlib.blake2b(digest_size=16)
    for kernel in kernels:
        digest.update(np.ascontiguousarray(kernel.numpy()))
    return digest.hexdigest()


def base_arrays(model: keras.Model, changed: Collection[str]) -> dict[str, np.ndarray]:
    """Return plain variable path -> value before training, for the frozen variables of `model`: those not in `changed`."""
    arrays = {}
    for layer in _weighted(model):
        plain = layer.base if isinstance(layer, LoRALayer) else layer
        for variable in plain.weights:
            if variable.path not in changed:
                arrays[_plain_path(variable, plain, layer.name)] = variable.numpy()
    return arrays


def _plain_path(variable: keras.Variable, layer: layers.Layer, name: str) -> str:
    """Return the path of `variable` in the model without adapters, where its layer is called `name`."""
    return stable_path(variable.path if layer.name == name else f"{name}/{variable.name}")


def save(path: Path, model: keras.Model, paths: Collection[str], record: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Write the trained variables to `path` (.npz, nothing pickled).

    Args:
        model: model with adapters.
        paths: paths of the variables to write, from `freezing.updated_paths`: factors and head, and with frozen_mode `training` the
            running statistics.
        record: further entries of `meta`.

    The file contains each variable under its path, float32, and `meta`, JSON: `layers`, `rank`, `alpha`, and `base`, a hash of the
    frozen kernels that the adapters were trained on.
    """
    adapters = lora_layers(model)
    rank = adapters[0].rank
    meta = {
        "layers": [layer.name for layer in adapters],
        "rank": rank,
        "alpha": adapters[0].scale * rank,
        "base": _hash_kernels([layer.base.kernel for layer in adapters]),
        **record,
    }
    arrays = {weight.path: weight.numpy() for weight in model.weights if weight.path in paths}
    write_npz(path, arrays, meta=meta)


def load(path: Path, model: keras.Model) -> keras.Model:
    """Return the trained model: a plain `model` with the weights before training, and the file from `save` applied to it.

        model = tl_keras.backbones.build_classifier("vit_b16", 37)
        tl_keras.weights.load_weights(model, "vit_b16", weights_file)
        trained = lora.load(Path("runs/pets-lora/adapters.npz"), model)

    Returns:
        A plain model with the updates merged into its kernels.

    Raises:
        DamagedError: The file cannot be read, or belongs to a model with other weights, another shape or another head.
    """
    arrays, meta = _read(path)
    layer_of = {layer.name: layer for layer in model.layers}
    if not set(meta["layers"]) <= set(layer_of) or _hash_kernels([layer_of[name].kernel for name in meta["layers"]]) != meta["base"]:
        raise DamagedError(
            f"{path}: these adapters were trained on other weights than those of the model. Load the weights of the run first."
        )
    adapted = add_lora(model, meta["layers"], rank=meta["rank"], alpha=meta["alpha"], seed=0)
    weights = {weight.path: weight for weight in adapted.weights}
    for name, value in arrays.items():
        if name not in weights or tuple(weights[name].shape) != value.shape:
            expected = tuple(weights[name].shape) if name in weights else "no such variable"
            raise DamagedError(f"{path}: {name} has shape {value.shape}; the model expects {expected}. Build it with the run's classes.")
        weights[name].assign(value)
    return merge(adapted)


def _read(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    try:
        return read_npz(path)
    except READ_ERRORS as error:
        raise DamagedError(f"{path} cannot be read as adapters ({error}). Expected the {FILE} of a finished run.") from error
