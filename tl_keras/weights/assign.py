"""Arrays into the variables of a model, all accounted for: every array is used, every variable filled, or it says why not."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.backbones import LOGITS, get_backbone, variables_by_path
from tl_keras.errors import ConfigError
from tl_keras.weights.position_embedding import grid_side, resize_positions

if TYPE_CHECKING:
    import keras

MAX_NAMED = 8
POSITIONS = "pos_embedding/kernel"


def fill(model: "keras.Model", backbone_name: str, arrays: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Assign `arrays`, keyed by variable path, to the variables of `model`.

    Args:
        arrays: numpy arrays, or what has a `shape` and becomes one.
        source: the name of what the arrays come from, for messages and the account.

    Returns:
        The account: `source`, `loaded` (how many variables were filled), `left_out` (variable path -> why it stays new) and
        `resized` (variable path -> from what to what).

    Raises:
        ConfigError: arrays and variables do not match; nothing has been assigned.
    """
    import keras

    variables = variables_by_path(model)
    arrays, resized = _resized(variables, arrays)
    left_out = _left_out(variables, arrays, backbone_name)
    if difference := _difference(variables, arrays, left_out):
        raise ConfigError(
            f"The weights of {source} are not those of {backbone_name} as it is set up here. {'; '.join(difference)}. "
            "Use the `backbone`, `stem` and `image_size` that they were made with."
        )
    loaded = [path for path in variables if path not in left_out]
    for path in loaded:
        variables[path].assign(np.asarray(arrays[path], "float32"))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with constants made from its variables
    return {"source": source, "loaded": len(loaded), "left_out": left_out, "resized": resized}


def _resized(variables: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
    """`arrays` with the position embedding as the model's image size has it, and what was done."""
    if POSITIONS not in variables or POSITIONS not in arrays:
        return arrays, {}
    given, wanted = tuple(arrays[POSITIONS].shape), tuple(variables[POSITIONS].shape)
    if given == wanted or len(given) != 3 or (given[0], given[2]) != (wanted[0], wanted[2]):
        return arrays, {}
    try:
        before, after = grid_side(given[1]), grid_side(wanted[1])
    except ValueError:
        return arrays, {}  # of another shape, which is said
    said = f"{before} x {before} patches in the file, interpolated to {after} x {after}"
    return {**arrays, POSITIONS: resize_positions(np.asarray(arrays[POSITIONS]), wanted[1])}, {POSITIONS: said}


def _left_out(variables: Mapping[str, Any], arrays: Mapping[str, Any], backbone_name: str) -> dict[str, str]:
    """Variable path -> why it stays new: the head, where the file's is another or absent, and conv1, where its stem is another."""
    reasons = {}
    for path, variable in variables.items():
        head = path.startswith(f"{LOGITS}/")
        replaceable = head or (path == "conv1/kernel" and len(get_backbone(backbone_name).stems) > 1)
        if head and path not in arrays:
            reasons[path] = "not in the file; new"
        elif replaceable and path in arrays and tuple(arrays[path].shape) != tuple(variable.shape):
            reasons[path] = f"{tuple(arrays[path].shape)} in the file, {tuple(variable.shape)} here; new"
    return reasons


def _difference(variables: Mapping[str, Any], arrays: Mapping[str, Any], left_out: Mapping[str, str]) -> list[str]:
    """What does not fit, one line each for the file's side, the model's side and the shapes."""
    mismatched = [
        f"{path} {tuple(arrays[path].shape)} in the file, {tuple(variable.shape)} in the model"
        for path, variable in variables.items()
        if path in arrays and path not in left_out and tuple(arrays[path].shape) != tuple(variable.shape)
    ]
    lists = {
        "only in the file": [path for path in arrays if path not in variables],
        "only in the model": [path for path in variables if path not in arrays and path not in left_out],
        "of another shape": mismatched,
    }
    return [f"{what} ({len(names)}): {_named(names)}" for what, names in lists.items() if names]


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
