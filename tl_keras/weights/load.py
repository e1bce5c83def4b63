"""Weights files into models: torch's .pth, .safetensors, Flax's .npz, Keras Applications' .h5, and our own .weights.h5, .keras and .npz.

Files from outside may be hostile: nothing in them is executed, links out of an HDF5 file are not followed, and no more is read
than the model has room for.
"""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import h5py
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from tl_keras.backbones import feature_extractor, variables_by_path
from tl_keras.errors import ConfigError, DamagedError, MissingError, UserError
from tl_keras.weights.assign import fill
from tl_keras.weights.from_publisher import from_tensors, naming_of
from tl_keras.weights.mapped import release
from tl_keras.weights.torch_file import read_tensors

if TYPE_CHECKING:
    import keras

Arrays = dict[str, Any]

# Room for the head of a file with many more classes than the model.
HEAD_BYTES = 256 * 2**20
SAFETENSORS_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
UNREADABLE = (OSError, KeyError, ValueError, RuntimeError, EOFError, UnicodeError, zipfile.BadZipFile, SafetensorError)


def load_weights(model: "keras.Model", backbone_name: str, weights_path: Path) -> dict[str, Any]:
    """Load a weights file into a model that `build_classifier(backbone_name, ...)` made.

    The suffix says what the file is. `.weights.h5` and `.keras` are Keras's; another `.h5` holds the layers of a Keras
    Applications network in order; `.pth` and `.pt` are torch's. In `.npz` and `.safetensors` the names say it: those of
    torchvision, those of Vision Transformer in Flax, or variable paths, which are this package's own. Float16 and bfloat16 are widened.
    A head of another number of classes, and conv1 of another stem, are left out and keep their new weights; the position
    embedding of a Vision Transformer is interpolated to the model's image size.

    Returns:
        The account: `source`, `loaded`, `left_out`, `resized` and `unused`; see `fill` and `from_tensors`.

    Raises:
        ConfigError: the suffix is unknown, or the weights are not those of this backbone; both sides are listed.
        MissingError: there is no such file.
        DamagedError: the file is truncated, corrupt, or not what its suffix says.
    """
    path = Path(weights_path)
    read = next((reader for suffix, reader in READERS.items() if path.name.endswith(suffix)), None)
    if read is None:
        raise ConfigError(f"{path}: weights files end in {', '.join(READERS)}; this one does not.")
    if not path.is_file():
        raise MissingError(f"There is no weights file {path.absolute()}.")
    try:
        arrays = read(path, model)
        _require_numbers(arrays)
    except UserError:
        raise
    except UNREADABLE as error:
        raise DamagedError(
            f"{path} cannot be read as a weights file ({error}); it begins with {_beginning(path)!r}. Fetch or save it again."
        ) from error
    naming = naming_of(arrays)
    if naming is None:
        return fill(model, backbone_name, arrays, path.name)
    return from_tensors(model, backbone_name, arrays, path.name, naming)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _room(model: "keras.Model") -> int:
    return 2 * 4 * model.count_params() + HEAD_BYTES


def _require_room(num_bytes: int, model: "keras.Model") -> None:
    if num_bytes > _room(model):
        raise ValueError(f"it claims {num_bytes:,} bytes of weights, and the model has {4 * model.count_params():,}")


def _require_numbers(arrays: Arrays) -> None:
    """Finite ones: torchvision itself publishes a VGG16 whose classifier is not a number."""
    for name, given in arrays.items():
        array = np.asarray(given)
        if array.dtype.kind not in "biuf" and array.dtype != ml_dtypes.bfloat16:
            raise ValueError(f"{name} holds {array.dtype}, which are no numbers")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")
        release(given)


def _datasets(file: h5py.File, model: "keras.Model") -> dict[str, h5py.Dataset]:
    """All data sets that lie in the file itself, by path; `visititems` follows no links."""
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/"):
            if item.is_virtual or item.external:
                raise ValueError(f"{name} lies in another file")
            found[name] = item

    file.visititems(visit)
    _require_room(sum(dataset.nbytes for dataset in found.values()), model)
    return found


def _read_torch(path: Path, model: "keras.Model") -> Arrays:
    tensors = read_tensors(path)
    _require_room(sum(tensor.nbytes for tensor in tensors.values()), model)
    return tensors


class _Stored:
    """A tensor of an open .safetensors file, read when it is wanted: as an array it exists once, and not for long."""

    def __init__(self, file: Any, name: str):
        stored = file.get_slice(name)
        if stored.get_dtype() not in SAFETENSORS_DTYPES:
            raise ValueError(f"{name} holds {stored.get_dtype()}; known are {', '.join(SAFETENSORS_DTYPES)}")
        self._file, self._name, self.shape = file, name, tuple(stored.get_shape())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._file.get_tensor(self._name), dtype)


def _read_safetensors(path: Path, model: "keras.Model") -> Arrays:
    _require_room(path.stat().st_size, model)
    file = safe_open(path, framework="numpy")
    return {name: _Stored(file, name) for name in file.keys()}  # noqa: SIM118


def _read_npz(path: Path, model: "keras.Model") -> Arrays:
    with zipfile.ZipFile(path) as archive:
        _require_room(sum(info.file_size for info in archive.infolist()), model)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _read_keras(path: Path, model: "keras.Model") -> Arrays:
    with zipfile.ZipFile(path) as archive:
        # The optimizer's state may lie beside the weights, at most twice their size.
        _require_room(archive.getinfo("model.weights.h5").file_size // 3, model)
        return _read_layers(io.BytesIO(archive.read("model.weights.h5")), model)


def _read_layers(file: Path | io.BytesIO, model: "keras.Model") -> Arrays:
    """Keras 3's `.weights.h5`: groups `.../vars` with the layer's name, holding its variables by number."""
    paths: dict[tuple[str, int], str] = {}
    for path in variables_by_path(model):
        layer = path.split("/")[-2]
        paths[layer, sum(name == layer for name, _ in paths)] = path
    with h5py.File(file) as store:
        arrays = {}
        for dataset in _datasets(store, model).values():
            layer, number = dataset.parent.attrs.get("name", dataset.parent.name), int(dataset.name.rpartition("/")[2])
            if "seed_generator" not in dataset.name:
                arrays[paths.get((layer, number), f"{layer}/{number}")] = dataset[()]
        return arrays


def _texts(group: h5py.Group, name: str) -> list[str]:
    """A list of texts in the attributes of a group; Keras splits long ones into name0, name1, ..."""
    keys = [name] if name in group.attrs else [f"{name}{number}" for number in range(len(group.attrs)) if f"{name}{number}" in group.attrs]
    return [text.decode() if isinstance(text, bytes) else text for key in keys for text in group.attrs[key]]


def _read_application(path: Path, model: "keras.Model") -> Arrays:
    """Keras Applications' `.h5`: layers in the order of the network, each with its weights; `predictions` is their head."""
    backbone = feature_extractor(model)
    layers = [layer for layer in backbone.layers if layer.weights]
    with h5py.File(path) as store:
        datasets = _datasets(store, model)
        saved = {
            name: [datasets[f"{name}/{weight}"] for weight in _texts(store[name], "weight_names")] for name in _texts(store, "layer_names")
        }
        saved = {name: weights for name, weights in saved.items() if weights and name != "predictions"}
        if list(map(len, saved.values())) != [len(layer.weights) for layer in layers]:
            raise ConfigError(
                f"{path.name} holds {len(saved)} layers with {sum(map(len, saved.values()))} weights, and {model.name} has {len(layers)} "
                f"with {len(backbone.weights)}: the file is of another network. "
                f"First and last in the file: {list(saved)[:1] + list(saved)[-1:]}; in the model: {[layers[0].name, layers[-1].name]}."
            )
        in_order = [dataset[()] for weights in saved.values() for dataset in weights]
    return dict(zip(variables_by_path(backbone), in_order, strict=True))


# By suffix, the longer before the shorter that it ends in.
READERS: Mapping[str, Callable[[Path, Any], Arrays]] = MappingProxyType(
    {
        ".weights.h5": _read_layers,
        ".keras": _read_keras,
        ".npz": _read_npz,
        ".h5": _read_application,
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".safetensors": _read_safetensors,
    }
)
