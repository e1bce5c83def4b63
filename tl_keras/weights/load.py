"""Loads a weights file into a model."""

from pathlib import Path
from typing import TYPE_CHECKING

from tl_keras.weights.assign import LoadingInfo, assign_arrays
from tl_keras.weights.formats import read_tensors
from tl_keras.weights.from_publisher import assign_published, find_name_map

if TYPE_CHECKING:
    import keras


def load_weights(model: "keras.Model", backbone_name: str, weights_path: Path) -> LoadingInfo:
    """Load a weights file into a model that `build_classifier(backbone_name, ...)` made.

    The suffix gives the format. `.weights.h5` and `.keras` are Keras 3 files; any other `.h5` holds the layers of a Keras
    Applications model in order; `.pth` and `.pt` are torch files. In `.npz` and `.safetensors` the names decide: those of
    torchvision or EfficientNet-PyTorch, those of Vision Transformer in Flax, or the variable paths of this package. Float16 and
    bfloat16 are widened.

    A head with another number of classes, and conv1 of another stem, keep their initial values. The position embedding of a
    Vision Transformer is interpolated to the model's image size.

    Raises:
        ConfigError: The suffix is unknown, or the weights are of another backbone. Both sides are listed.
        MissingError: The file does not exist.
        DamagedError: The file is truncated, corrupt, or not of the format of its suffix.
    """
    path = Path(weights_path)
    arrays = read_tensors(path, model)
    name_map = find_name_map(arrays)
    if name_map is None:
        return assign_arrays(model, backbone_name, arrays, path.name)
    return assign_published(model, backbone_name, arrays, path.name, name_map)
