"""Assigns arrays to the variables of a model. Every array must be used and every variable filled, or the record says why not."""

import mmap
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.backbones import LOGITS, get_backbone, variables_by_path
from tl_keras.errors import ConfigError
from tl_keras.utils.text import join_names
from tl_keras.weights.position_embedding import grid_side, resize_positions

if TYPE_CHECKING:
    import keras

MAX_NAMED = 8
POSITIONS = "pos_embedding/kernel"


@dataclass(frozen=True)
class LoadingInfo:
    """The record of loading a weights file into a model. `result.json` contains it as `model.loading_info`.

    Attributes:
        source: name of the file.
        loaded: number of variables that were filled.
        missing: variable path -> why it keeps its initial values.
        unexpected: pattern of tensor names -> number of such tensors in the file, and why they are not used.
        resized: variable path -> the sizes before and after.
        notes: remarks on how the file was read, e.g. a prefix of its names, or averaged weights beside the plain ones.
        head: how many classes of the head were taken by name from a trained model, or why it was left out; empty for other files.
        weights_source: of a trained model: its name, and the name and the fingerprint of the data that it was trained on.
    """

    source: str
    loaded: int
    missing: dict[str, str] = field(default_factory=dict)
    unexpected: dict[str, str] = field(default_factory=dict)
    resized: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    head: str = ""
    weights_source: dict[str, str] = field(default_factory=dict)


def assign_arrays(
    model: "keras.Model",
    backbone_name: str,
    arrays: Mapping[str, Any],
    source: str,
    *,
    is_head: Callable[[str], bool] | None = None,
    hint: str = "",
) -> LoadingInfo:
    """Assign `arrays`, keyed by variable path, to the variables of `model`.

    Arrays of a head of another structure are left out if the whole backbone is there.

    Args:
        arrays: NumPy arrays, or objects with a `shape` that convert to one.
        source: name of the file that the arrays are from, for messages and the record.
        is_head: True for the name of an array of a head; by default one whose first part no layer of the backbone has.
        hint: likely cause of differences, for the message.

    Raises:
        ConfigError: Arrays and variables do not match. Nothing has been assigned.
    """
    import keras

    variables = variables_by_path(model)
    arrays, resized = _resize(variables, arrays)
    missing = _missing(variables, arrays, backbone_name)
    is_head = is_head or outside_of(path for path in variables if not path.startswith(f"{LOGITS}/"))
    head = [name for name in arrays if name not in variables and is_head(name)]
    backbone_arrays = {name: array for name, array in arrays.items() if name not in set(head)}
    if _differences(variables, backbone_arrays, missing):
        differences = _differences(variables, arrays, missing)
        raise ConfigError(
            f"The weights of {source} do not fit {backbone_name} with these settings. {'; '.join(differences)}. "
            f"{hint or 'Use the `backbone`, `stem` and `image_size` that they were made with.'}"
        )
    loaded = [path for path in variables if path not in missing]
    for path in loaded:
        variables[path].assign(np.asarray(arrays[path], "float32"))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with constants made from its variables
    unexpected = {join_names(sorted(head), MAX_NAMED): f"{len(head)} in the file: of no layer of the backbone, left out"} if head else {}
    return LoadingInfo(source, len(loaded), missing, unexpected, resized)


def outside_of(names: Iterable[str]) -> Callable[[str], bool]:
    """Return a test for names that share no first part with `names`: not `layer1` of a longer network, but `dense` or `fc`."""
    parts = set(map(_first_part, names))
    return lambda name: _first_part(name) not in parts


def _first_part(name: str) -> str:
    return re.split(r"[./_]", name.lstrip("_"), maxsplit=1)[0]


def release_memory(array: Any) -> None:
    """Release the memory of the mapped file that `array` is a view of, if any. The file is read again on the next access.

    Without this, a large file would be in memory twice: mapped, and copied into the model.
    """
    owner = array
    while getattr(owner, "base", None) is not None:
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def _resize(variables: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Return `arrays` with the position embedding resized to the model's image size, and variable path -> the sizes."""
    if POSITIONS not in variables or POSITIONS not in arrays:
        return arrays, {}
    stored, current = tuple(arrays[POSITIONS].shape), tuple(variables[POSITIONS].shape)
    if stored == current or len(stored) != 3 or (stored[0], stored[2]) != (current[0], current[2]):
        return arrays, {}
    try:
        before, after = grid_side(stored[1]), grid_side(current[1])
    except ValueError:
        return arrays, {}  # `_differences` reports the shapes
    sizes = f"{before} x {before} patches in the file, interpolated to {after} x {after}"
    return {**arrays, POSITIONS: resize_positions(np.asarray(arrays[POSITIONS]), current[1])}, {POSITIONS: sizes}


def _missing(variables: Mapping[str, Any], arrays: Mapping[str, Any], backbone_name: str) -> dict[str, str]:
    """Return variable path -> why it keeps its initial values: an absent or different head, or conv1 of another stem."""
    reasons = {}
    for path, variable in variables.items():
        head = path.startswith(f"{LOGITS}/")
        replaceable = head or (path == "conv1/kernel" and len(get_backbone(backbone_name).stems) > 1)
        if head and path not in arrays:
            reasons[path] = "not in the file; new"
        elif replaceable and path in arrays and tuple(arrays[path].shape) != tuple(variable.shape):
            reasons[path] = f"{tuple(arrays[path].shape)} in the file, {tuple(variable.shape)} here; new"
    return reasons


def _differences(variables: Mapping[str, Any], arrays: Mapping[str, Any], missing: Mapping[str, str]) -> list[str]:
    """Return one line each for names only in the file, names only in the model, and different shapes."""
    mismatched = [
        f"{path} {tuple(arrays[path].shape)} in the file, {tuple(variable.shape)} in the model"
        for path, variable in variables.items()
        if path in arrays and path not in missing and tuple(arrays[path].shape) != tuple(variable.shape)
    ]
    lists = {
        "only in the file": [path for path in arrays if path not in variables],
        "only in the model": [path for path in variables if path not in arrays and path not in missing],
        "of another shape": mismatched,
    }
    return [f"{title} ({len(names)}): {join_names(names, MAX_NAMED)}" for title, names in lists.items() if names]
