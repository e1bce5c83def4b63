"""Assigns tensors with the names of torchvision, EfficientNet-PyTorch or Flax to the variables of a model."""

import fnmatch
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.backbones import LOGITS, get_backbone
from tl_keras.errors import ConfigError
from tl_keras.weights.assign import LoadingInfo, assign_arrays, outside_of, release_memory
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
    if any("Transformer/" in name for name in names):
        return FLAX
    if any("_blocks." in name for name in names):
        return EFFICIENTNET_PYTORCH
    return TORCHVISION if names and not any("/" in name for name in names) else None


def assign_published(
    model: "keras.Model", backbone_name: str, tensors: Mapping[str, np.ndarray], source: str, name_map: NameMap = TORCHVISION
) -> LoadingInfo:
    """Assign the tensors of a publisher's model to `model`, which `build_classifier(backbone_name, ...)` made.

    A prefix that all tensors of the backbone have, such as `module.`, is taken off.

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
    mappings = _mappings(name_map, backbone_name)
    prefix, *others = _prefixes(tensors, mappings)
    tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    unexpected = _pop_ignored(tensors, name_map)
    arrays: dict[str, Any] = {name: tensors[name] for name in sorted(set(tensors) - {mapping.tensor for mapping in mappings})}
    arrays |= {mapping.variable: LazyTranspose(mapping, tensors[mapping.tensor]) for mapping in mappings if mapping.tensor in tensors}
    info = assign_arrays(
        model, backbone_name, arrays, source, is_head=_head_test(mappings), hint=_likely_cause(tensors, name_map, backbone_name)
    )
    notes = [f"names without their prefix {prefix!r}"] if prefix else []
    notes += [f"another complete set of tensors, with the prefix {other!r}, is not read" for other in others]
    return replace(info, unexpected=unexpected | info.unexpected, notes=tuple(notes))


def _mappings(name_map: NameMap, backbone_name: str) -> list[TensorMapping]:
    return list(name_map.mappings[backbone_name](**get_backbone(backbone_name).options))


def _prefixes(names: Collection[str], mappings: Sequence[TensorMapping]) -> list[str]:
    """Return the prefix of most tensors of the backbone: `module.`, `_orig_mod.`, `model.backbone.`, ..., and others of as many.

    Of equals the first in the file comes first: the trained weights, which averages of them follow.
    """
    wanted = [mapping.tensor for mapping in mappings if not mapping.variable.startswith(f"{LOGITS}/")]
    prefixes = dict.fromkeys(["", *(name.removesuffix(wanted[0]) for name in names if name.endswith(wanted[0]))])
    found = {prefix: sum(prefix + name in names for name in wanted) for prefix in prefixes}
    return [prefix for prefix in found if found[prefix] == max(found.values())] if any(found.values()) else [""]


def _head_test(mappings: Sequence[TensorMapping]) -> Callable[[str], bool]:
    """Return a test for names of tensors that belong to a head, also to one of several layers in the place of the publisher's."""
    heads = tuple({f"{mapping.tensor.rpartition('.')[0]}." for mapping in mappings if mapping.variable.startswith(f"{LOGITS}/")})
    is_outside = outside_of(mapping.tensor for mapping in mappings if not mapping.variable.startswith(f"{LOGITS}/"))
    return lambda name: name.startswith(heads) or is_outside(name)


def _likely_cause(names: Collection[str], name_map: NameMap, backbone_name: str) -> str:
    """Return why the tensors may not fit: they are all those of another backbone. Return "" if there is none."""
    fitting = {
        name: len(wanted)
        for name in name_map.mappings
        if name != backbone_name and (wanted := {mapping.tensor for mapping in _mappings(name_map, name)}) <= set(names)
    }
    return f"They are those of {max(fitting, key=fitting.__getitem__)}: use `backbone` with that name." if fitting else ""


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
