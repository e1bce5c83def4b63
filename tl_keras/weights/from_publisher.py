"""Assigns tensors with the names of torchvision, EfficientNet-PyTorch or Flax to the variables of a model."""

import fnmatch
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.backbones import get_backbone
from tl_keras.errors import ConfigError
from tl_keras.weights.assign import LoadingInfo, assign_arrays, release_memory
from tl_keras.weights.name_maps import EFFICIENTNET_PYTORCH, FLAX, TORCHVISION, NameMap, TensorMapping

if TYPE_CHECKING:
    import keras

# Old -> new part of a name. Files written before torchvision 0.13 have the old names.
RENAMED = (("mlp.linear_1.", "mlp.0."), ("mlp.linear_2.", "mlp.3."))


class LazyTranspose:
    """A tensor that is transposed to the layout of its variable only when it is read, so that a file is never in memory twice.

    Attributes:
        shape: shape of the variable.
    """

    def __init__(self, mapping: TensorMapping, tensor: np.ndarray):
        self._layout, self._tensor = mapping.layout, tensor
        try:
            self.shape = mapping.layout(np.broadcast_to(np.float32(0), tensor.shape)).shape  # views only: no memory is allocated
        except (ValueError, IndexError) as error:
            raise ConfigError(f"{mapping.tensor} of shape {tensor.shape} cannot become {mapping.variable}: {error}.") from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.ascontiguousarray(self._layout(np.asarray(self._tensor)), dtype)
        release_memory(self._tensor)
        return array


def find_name_map(names: Collection[str]) -> NameMap | None:
    """Return the map of the publisher who uses such names, or None if they are variable paths of this package."""
    if any(name.startswith("Transformer/") for name in names):
        return FLAX
    if any(name.startswith("_blocks.") for name in names):
        return EFFICIENTNET_PYTORCH
    return TORCHVISION if names and not any("/" in name for name in names) else None


def assign_published(
    model: "keras.Model", backbone_name: str, tensors: Mapping[str, np.ndarray], source: str, name_map: NameMap = TORCHVISION
) -> LoadingInfo:
    """Assign the tensors of a publisher's model to `model`, which `build_classifier(backbone_name, ...)` made.

    Args:
        tensors: name -> array, such as a state dict.
        source: name of the file that the tensors are from, for messages and the record.
        name_map: the publisher's names.

    Raises:
        ConfigError: The publisher has no such model, or the tensors are of another one. Both sides are listed.
    """
    if backbone_name not in name_map.mappings:
        raise ConfigError(
            f"The tensors of {source} have the names of {name_map.publisher}, such as {next(iter(tensors))}, and it has no "
            f"{backbone_name}. Backbones that take such a file: {', '.join(name_map.mappings)}."
        )
    tensors = {_current_name(name): array for name, array in tensors.items()}
    unexpected = _pop_ignored(tensors, name_map)
    mappings = list(name_map.mappings[backbone_name](**get_backbone(backbone_name).options))
    arrays: dict[str, Any] = {name: tensors[name] for name in sorted(set(tensors) - {mapping.tensor for mapping in mappings})}
    arrays |= {mapping.variable: LazyTranspose(mapping, tensors[mapping.tensor]) for mapping in mappings if mapping.tensor in tensors}
    return replace(assign_arrays(model, backbone_name, arrays, source), unexpected=unexpected)


def _current_name(name: str) -> str:
    for old, new in RENAMED:
        name = name.replace(old, new)
    return name


def _pop_ignored(tensors: dict[str, np.ndarray], name_map: NameMap) -> dict[str, str]:
    """Remove the tensors that the map ignores; return pattern -> their number and the reason."""
    unexpected: dict[str, str] = {}
    for patterns, reason in name_map.ignored:
        matching = {pattern: fnmatch.filter(tensors, pattern) for pattern in patterns}
        if matching[patterns[0]]:
            unexpected |= {pattern: f"{len(names)} in the file: {reason}" for pattern, names in matching.items() if names}
            for name in chain(*matching.values()):
                del tensors[name]
    return unexpected
