"""Arrays into the variables of a model, all accounted for: every array is used, every variable filled, or it says why not."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.backbones import LOGITS, get_backbone, variables_by_path
from tl_keras.errors import ConfigError

if TYPE_CHECKING:
    import keras

MAX_NAMED = 8


def _may_stay_new(backbone_name: str, path: str) -> bool:
    """Whether a variable may keep its new weights where the file's do not fit: the head, and the first layer where the stem can change."""
    return path.startswith(f"{LOGITS}/") or (path == "conv1/kernel" and len(get_backbone(backbone_name).stems) > 1)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _difference(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray], left_out: Mapping[str, str]) -> list[str]:
    """What does not fit, one line each for the file's side, the model's side and the shapes."""
    mismatched = [
        f"{path} {tuple(arrays[path].shape)} in the file, {tuple(variable.shape)} in the model"
        for path, variable in variables.items()
        if path in arrays and path not in left_out and arrays[path].shape != tuple(variable.shape)
    ]
    lists = {
        "only in the file": [path for path in arrays if path not in variables],
        "only in the model": [path for path in variables if path not in arrays and path not in left_out],
        "of another shape": mismatched,
    }
    return [f"{what} ({len(names)}): {_named(names)}" for what, names in lists.items() if names]


def _left_out(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray], backbone_name: str) -> dict[str, str]:
    reasons = {}
    for path, variable in variables.items():
        if not _may_stay_new(backbone_name, path):
            continue
        if path not in arrays:
            reasons[path] = "not in the file; new"
        elif arrays[path].shape != tuple(variable.shape):
            reasons[path] = f"{tuple(arrays[path].shape)} in the file, {tuple(variable.shape)} here; new"
    return reasons


def fill(model: "keras.Model", backbone_name: str, arrays: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    """Assign `arrays`, keyed by variable path, to the variables of `model`.

    Args:
        source: the name of what the arrays come from, for messages and the account.

    Returns:
        The account: `source`, `loaded` (how many variables were filled) and `left_out` (variable path -> why it stays new).

    Raises:
        ConfigError: arrays and variables do not match; nothing has been assigned.
    """
    import keras

    variables = variables_by_path(model)
    left_out = _left_out(variables, arrays, backbone_name)
    if difference := _difference(variables, arrays, left_out):
        raise ConfigError(
            f"The weights of {source} are not those of {backbone_name} as it is set up here. {'; '.join(difference)}. "
            "Use the --backbone, --stem and --image_size that they were made with."
        )
    loaded = [path for path in variables if path not in left_out]
    for path in loaded:
        variables[path].assign(np.asarray(arrays[path], "float32"))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with constants made from its variables
    return {"source": source, "loaded": len(loaded), "left_out": left_out}
