"""Loads a weights file into a model."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tl_keras.weights.assign import LoadingInfo, assign_arrays
from tl_keras.weights.formats import other_weights, read_tensors, split_choice
from tl_keras.weights.from_publisher import assign_published, find_name_map

if TYPE_CHECKING:
    import keras


def load_weights(model: "keras.Model", backbone_name: str, weights_path: Path) -> LoadingInfo:
    """Load a weights file into a model that `build_classifier(backbone_name, ...)` made.

    The content gives the format: files of torch, safetensors, Keras 3, Keras 2 (layers in order) or NumPy. In those of torch,
    safetensors and NumPy the names decide: those of torchvision or EfficientNet-PyTorch, those of Vision Transformer in Flax, or the
    variable paths of this package. A prefix of all names is taken off. Float16 and bfloat16 are widened.

    A head with another number of classes or of other layers, and conv1 of another stem, keep their initial values. The position
    embedding of a Vision Transformer is interpolated to the model's image size.

    Args:
        weights_path: the file, or `FILE#ema` for averaged weights beside the plain ones; see `formats.split_choice`.

    Raises:
        ConfigError: The format is unknown, or the weights are of another backbone. Both sides are listed.
        MissingError: The file does not exist.
        DamagedError: The file is truncated or corrupt.
    """
    path = Path(weights_path)
    arrays = read_tensors(path, model)
    name_map = find_name_map(arrays)
    if name_map is None:
        info = assign_arrays(model, backbone_name, arrays, path.name)
    else:
        info = assign_published(model, backbone_name, arrays, path.name, name_map)
    notes = [
        f"{count} more tensors under {key}, not read; `weights={split_choice(path)[0].name}#{key}` reads them"
        for key, count in other_weights(path).items()
    ]
    return replace(info, notes=(*info.notes, *notes))
