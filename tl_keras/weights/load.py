"""Loads a weights file into a model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.backbones import LOGITS, variables_by_path
from tl_keras.weights import delta_file
from tl_keras.weights.assign import LoadingInfo, assign_arrays
from tl_keras.weights.formats import read_tensors, split_choice
from tl_keras.weights.from_publisher import assign_published, find_name_map
from tl_keras.weights.head import transfer_head
from tl_keras.weights.torch_file import Tensors
from tl_keras.weights.trained_model import TrainedModel, find_trained_model

if TYPE_CHECKING:
    import keras


def load_weights(
    model: "keras.Model", backbone_name: str, weights_path: Path, *, class_names: Sequence[str] | None = None, weights_dir: str = ""
) -> LoadingInfo:
    """Load a weights file into a model that `build_classifier(backbone_name, ...)` made.

    The content gives the format: files of torch, safetensors, Keras 3, Keras 2 (layers in order) or NumPy. In those of torch,
    safetensors and NumPy the names decide: those of torchvision or EfficientNet-PyTorch, those of Vision Transformer in Flax, or the
    variable paths of this package. A prefix of all names is taken off. Float16 and bfloat16 are widened.

    A head with another number of classes or of other layers, and conv1 of another stem, keep their initial values. The position
    embedding of a Vision Transformer is interpolated to the model's image size.

    Args:
        weights_path: the file, or `FILE#ema` for averaged weights beside the plain ones, see `formats.split_choice`; or the directory of
            a SavedModel.
        class_names: names of the logits of `model`. The head of a model that this package has trained is then taken by name, class by
            class; empty: it is left out. None: a head of the same shape is taken as it is.
        weights_dir: directory that is searched for the base of a delta file.

    Raises:
        ConfigError: The format is unknown, or the weights are of another backbone. Both sides are listed.
        MissingError: The file does not exist.
        DamagedError: The file is truncated or corrupt.
    """
    path = Path(weights_path)
    trained = None if class_names is None else find_trained_model(path)
    arrays: dict[str, Any] = _restored(path, weights_dir) if delta_file.is_delta(path) else read_tensors(path, model)
    others = arrays.others if isinstance(arrays, Tensors) else {}
    if trained is not None and class_names is not None:
        arrays, head = transfer_head(model, arrays, trained, class_names)
        return _with_source(assign_arrays(model, backbone_name, arrays, path.name), trained, head)
    name_map = find_name_map(arrays)
    if name_map is None:
        info = assign_arrays(model, backbone_name, arrays, path.name)
    else:
        info = assign_published(model, backbone_name, arrays, path.name, name_map)
    notes = [
        f"{count} more tensors under {key}, not read; `weights={split_choice(path)[0].name}#{key}` reads them"
        for key, count in others.items()
    ]
    return replace(info, notes=(*info.notes, *notes))


def _restored(path: Path, weights_dir: str) -> dict[str, Any]:
    """Return the variables of the model that a delta file and its base make."""
    from tl_keras.weights.delta import restore_model

    return {name: variable.numpy() for name, variable in variables_by_path(restore_model(path, weights_dir)).items()}


def _with_source(info: LoadingInfo, trained: TrainedModel, head: str) -> LoadingInfo:
    """Return the record of weights that are from a trained model."""
    missing = {path: "left out; new" if path.startswith(f"{LOGITS}/") else reason for path, reason in info.missing.items()}
    is_scaled = trained.temperature != 1 and not missing
    notes = [f"the head is divided by the temperature {trained.temperature:.3g} of the export, taken as it is"] if is_scaled else []
    facts = {"name": trained.name, "dataset": trained.dataset, "fingerprint": trained.fingerprint}
    source = {name: value for name, value in facts.items() if value}
    return replace(info, missing=missing, notes=(*info.notes, *notes), head=head, weights_source=source)
