"""Tensors by the names of torchvision or of Flax into the variables of a model."""

import fnmatch
from collections.abc import Collection, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.backbones import get_backbone
from tl_keras.errors import ConfigError
from tl_keras.weights.assign import fill
from tl_keras.weights.mapped import release
from tl_keras.weights.name_maps import FLAX, TORCHVISION, Move, Naming

if TYPE_CHECKING:
    import keras

# Files written before torchvision 0.13 have the older names.
RENAMED = (("mlp.linear_1.", "mlp.0."), ("mlp.linear_2.", "mlp.3."))


class LaidOut:
    """A tensor that takes the layout of its variable only when it is read, so that no second copy of a file is ever held.

    Attributes:
        shape: that of the variable.
    """

    def __init__(self, move: Move, tensor: np.ndarray):
        self._layout, self._tensor = move.layout, tensor
        try:
            self.shape = move.layout(np.broadcast_to(np.float32(0), tensor.shape)).shape  # views all the way: it takes no memory
        except (ValueError, IndexError) as error:
            raise ConfigError(f"{move.tensor} of shape {tensor.shape} cannot become {move.variable}: {error}.") from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.ascontiguousarray(self._layout(np.asarray(self._tensor)), dtype)
        release(self._tensor)
        return array


def naming_of(names: Collection[str]) -> Naming | None:
    """Whose names these are; None for paths of variables, which are our own."""
    if any(name.startswith("Transformer/") for name in names):
        return FLAX
    return TORCHVISION if names and not any("/" in name for name in names) else None


def from_tensors(
    model: "keras.Model", backbone_name: str, tensors: Mapping[str, np.ndarray], source: str, naming: Naming = TORCHVISION
) -> dict[str, Any]:
    """Fill `model`, which `build_classifier(backbone_name, ...)` made, with the tensors of a publisher's network.

    Args:
        tensors: name -> array, such as a state dict.
        source: what the tensors come from, for messages and the account.
        naming: whose names they have.

    Returns:
        The account of `fill`, and in it `unused`: pattern of tensor names -> how many there are and why they have no place here.

    Raises:
        ConfigError: the publisher has no such network, or the tensors are not its; both sides are listed.
    """
    if backbone_name not in naming.moves:
        raise ConfigError(
            f"The tensors of {source} are named as {naming.publisher} names its own, such as {next(iter(tensors))}, and it has no "
            f"{backbone_name}. Backbones that take such a file: {', '.join(naming.moves)}."
        )
    given = {_current_name(name): array for name, array in tensors.items()}
    unused = _take_unused(given, naming)
    moves = list(naming.moves[backbone_name](**get_backbone(backbone_name).options))
    arrays: dict[str, Any] = {name: given[name] for name in sorted(set(given) - {move.tensor for move in moves})}
    arrays |= {move.variable: LaidOut(move, given[move.tensor]) for move in moves if move.tensor in given}
    return fill(model, backbone_name, arrays, source) | {"unused": unused}


def _current_name(name: str) -> str:
    for old, new in RENAMED:
        name = name.replace(old, new)
    return name


def _take_unused(given: dict[str, np.ndarray], naming: Naming) -> dict[str, str]:
    """Remove from `given` what has no place here; pattern -> how many tensors and why."""
    unused = {}
    for patterns, reason in naming.unused:
        matching = {pattern: fnmatch.filter(given, pattern) for pattern in patterns}
        if matching[patterns[0]]:
            unused |= {pattern: f"{len(names)} in the file: {reason}" for pattern, names in matching.items() if names}
            for name in chain(*matching.values()):
                del given[name]
    return unused
