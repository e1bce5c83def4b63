"""The formats of weights files by suffix: for each, how to list its tensors from the headers and how to read them.

Files may be hostile. Nothing in them is executed, links out of an HDF5 file are not followed, sizes that headers claim are
checked before anything is allocated, and no more is read than the model can use.
"""

import io
import lzma
import tokenize
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import h5py
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from tl_keras.backbones import feature_extractor, variables_by_path
from tl_keras.errors import ConfigError, DamagedError, MissingError, UserError
from tl_keras.utils import files
from tl_keras.weights import saved_model, torch_file
from tl_keras.weights.assign import release_memory
from tl_keras.weights.weights_file import TensorInfo

if TYPE_CHECKING:
    import keras

# Name -> NumPy array, or an object with a `shape` that converts to one.
Arrays = dict[str, Any]

MAX_TENSORS = 100_000
# Extra bytes for the head of a file with many more classes than the model.
MAX_HEAD_BYTES = 256 * 2**20
KERAS_WEIGHTS = "model.weights.h5"  # the entry of a .keras archive that holds the weights
MODEL_WEIGHTS = "model_weights"  # the group of a legacy .h5 of a whole model that holds its weights
LFS_POINTER = b"version https://git-lfs"
SAFETENSORS_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
# Errors of the standard library, NumPy, h5py and safetensors on bytes that are not of the format.
READ_ERRORS = (*files.READ_ERRORS, ArithmeticError, MemoryError, tokenize.TokenError, lzma.LZMAError, SafetensorError)


class Format(NamedTuple):
    """One format of weights files.

    Attributes:
        list_tensors: path -> names, shapes and dtypes from the headers.
        read: (path, model) -> the arrays by the names of the file, or by variable path if the file is in Keras's order.
    """

    list_tensors: Callable[[Path], Iterable[TensorInfo]]
    read: Callable[[Path, "keras.Model"], Arrays]


def split_choice(path: Path) -> tuple[Path, str]:
    """Return the file and the choice of `FILE#choice`, which selects weights in a torch file. A file of the very name comes first."""
    name, separator, choice = path.name.rpartition("#")
    return (path.with_name(name), choice) if separator and name and not path.is_file() else (path, "")


def list_tensors(weights_path: Path) -> list[TensorInfo]:
    """Return the tensors of a weights file, in the file's order, without reading their values.

    In Keras 3 files they are named `layer/number`: the layer's name and the index of the variable in the layer.

    Args:
        weights_path: the file, or `FILE#choice`, see `split_choice`.

    Raises:
        ConfigError: The file is of no known format, or has no such choice.
        MissingError: The file does not exist.
        DamagedError: The file is truncated or corrupt.
    """
    path, choice = split_choice(weights_path)
    with _errors_named(path):
        tensors: list[TensorInfo] = []
        for tensor in torch_file.list_tensors(path, choice) if choice else _format_of(path).list_tensors(path):
            if len(tensors) == MAX_TENSORS:
                raise ValueError(f"it holds more than {MAX_TENSORS:,} tensors")
            tensors.append(tensor)
        return tensors


def read_tensors(weights_path: Path, model: "keras.Model") -> Arrays:
    """Return the arrays of a weights file by name. All of them are finite numbers.

    Args:
        weights_path: the file, or `FILE#choice`, see `split_choice`.
        model: the model to fill. It bounds the size of the file, and gives the names if the file stores an order.

    Raises:
        ConfigError: The file is of no known format, has no such choice, or is of another model.
        MissingError: The file does not exist.
        DamagedError: The file is truncated or corrupt.
    """
    path, choice = split_choice(weights_path)
    with _errors_named(path):
        arrays = _read_torch(path, model, choice) if choice else _format_of(path).read(path, model)
        for name, array in arrays.items():
            _check_finite(name, array)
        return arrays


def other_weights(weights_path: Path) -> Mapping[str, int]:
    """Return key -> number of tensors of the weights in a torch file that are not read; empty for other formats."""
    path, choice = split_choice(weights_path)
    return torch_file.inspect_file(path, choice).others if _format_of(path) is TORCH else {}


def _format_of(path: Path) -> Format:
    """Return the format of a file by its content, as names of files are a matter of taste; by its suffix if the content is damaged."""
    if (path / "saved_model.pb").is_file():
        return SAVED_MODEL
    if not path.is_file():
        raise MissingError(f"There is no weights file {path.absolute()}.")
    with path.open("rb") as file:
        beginning = file.read(len(LFS_POINTER))
    if beginning == LFS_POINTER:
        raise DamagedError(f"{path} is a pointer of Git LFS in place of the weights. Fetch them with `git lfs pull`.")
    found = _format_by_content(path) or next((FORMATS[suffix] for suffix in FORMATS if path.name.endswith(suffix)), None)
    if found is None:
        with path.open("rb") as file:
            beginning = file.read(16)
        raise ConfigError(
            f"{path} is no weights file of a known format; it begins with {beginning!r}. Expected a file of torch, safetensors, Keras or "
            f"NumPy, such as those that end in {', '.join(FORMATS)}."
        )
    return found


def _format_by_content(path: Path) -> Format | None:
    with path.open("rb") as file:
        beginning = file.read(16)
    if beginning.startswith(b"PK\3\4"):
        return _format_of_zip(path)
    if beginning.startswith(b"\x89HDF"):
        return FORMATS[".h5"] if _is_legacy(path) else FORMATS[".weights.h5"]
    if beginning[8:10] == b'{"':
        return FORMATS[".safetensors"]
    return TORCH if beginning[:1] == b"\x80" else None


def _format_of_zip(path: Path) -> Format | None:
    with suppress(*READ_ERRORS), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if KERAS_WEIGHTS in names:
            return FORMATS[".keras"]
        return FORMATS[".npz"] if all(name.endswith(".npy") for name in names) else TORCH
    return None


def _is_legacy(path: Path) -> bool:
    """Return True for the layout of Keras 2: layers in order, in the root or under `model_weights`."""
    with suppress(*READ_ERRORS), h5py.File(path) as store:
        return MODEL_WEIGHTS in store or bool(_text_attribute(store, "layer_names"))
    return False


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turn READ_ERRORS into a DamagedError that names the file. Errors of this package pass unchanged."""
    try:
        yield
    except UserError:
        raise
    except READ_ERRORS as error:
        beginning = b""
        with suppress(OSError), path.open("rb") as file:
            beginning = file.read(16)
        raise DamagedError(
            f"{path} cannot be read as a weights file ({error}); it begins with {beginning!r}. Fetch or save it again."
        ) from error


def _require_size(num_bytes: int, model: "keras.Model") -> None:
    """Raise ValueError if weights of `num_bytes` are more than twice the model in float32, and a large head."""
    model_bytes = 4 * model.count_params()
    if num_bytes > 2 * model_bytes + MAX_HEAD_BYTES:
        raise ValueError(f"it claims {num_bytes:,} bytes of weights, and the model has {model_bytes:,}")


def _check_finite(name: str, stored: Any) -> None:
    """Raise ValueError unless all values are finite numbers: torchvision publishes a VGG16 whose classifier is not."""
    array = np.asarray(stored)
    if array.dtype.kind not in "biuf" and array.dtype != ml_dtypes.bfloat16:
        raise ValueError(f"{name} holds {array.dtype}, which are no numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    release_memory(stored)


# torch: .pth, .pt


def _read_torch(path: Path, model: "keras.Model", choice: str = "") -> Arrays:
    tensors = torch_file.read_tensors(path, choice)
    _require_size(sum(tensor.nbytes for tensor in tensors.values()), model)
    return tensors


# .safetensors


def _list_safetensors(path: Path) -> Iterator[TensorInfo]:
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (it is not a mapping)
            tensor = file.get_slice(name)
            yield TensorInfo(name, tuple(tensor.get_shape()), tensor.get_dtype())


class LazyTensor:
    """A tensor of an open .safetensors file that is read when it is converted to an array."""

    def __init__(self, file: Any, name: str):
        tensor = file.get_slice(name)
        if tensor.get_dtype() not in SAFETENSORS_DTYPES:
            raise ValueError(f"{name} holds {tensor.get_dtype()}; known are {', '.join(SAFETENSORS_DTYPES)}")
        self._file, self._name, self.shape = file, name, tuple(tensor.get_shape())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._file.get_tensor(self._name), dtype)


def _read_safetensors(path: Path, model: "keras.Model") -> Arrays:
    _require_size(path.stat().st_size, model)
    file = safe_open(path, framework="numpy")
    return {name: LazyTensor(file, name) for name in file.keys()}  # noqa: SIM118


# .npz


def _list_npz(path: Path) -> Iterator[TensorInfo]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as file:
                yield TensorInfo(info.filename.removesuffix(".npy"), *_npy_header(file))


def _npy_header(file: Any) -> tuple[tuple[int, ...], str]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, str(dtype)


def _read_npz(path: Path, model: "keras.Model") -> Arrays:
    with zipfile.ZipFile(path) as archive:
        _require_size(sum(info.file_size for info in archive.infolist()), model)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name != files.META}


# HDF5: .weights.h5 and .keras of Keras 3, .h5 of Keras Applications


def _datasets(store: h5py.File) -> dict[str, h5py.Dataset]:
    """Return path -> data set, for all data sets within the file: `visititems` follows no links."""
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item
            if len(found) > MAX_TENSORS:
                raise ValueError(f"it holds more than {MAX_TENSORS:,} tensors")

    store.visititems(visit)
    return found


def _weights_datasets(store: h5py.File, model: "keras.Model") -> dict[str, h5py.Dataset]:
    """Return path -> data set, without the optimizer's. Their values must be stored in the file and have a plausible size."""
    datasets = {path: dataset for path, dataset in _datasets(store).items() if not path.startswith(("optimizer/", "optimizer_weights/"))}
    for path, dataset in datasets.items():
        if dataset.is_virtual or dataset.external:
            raise ValueError(f"{path} is stored in another file")
    _require_size(sum(dataset.nbytes for dataset in datasets.values()), model)
    return datasets


def _list_hdf5(file: Path | IO[bytes]) -> Iterator[TensorInfo]:
    with h5py.File(file) as store:
        for path, dataset in _datasets(store).items():
            layer = dataset.parent.attrs.get("name")  # Keras 3 sets it on the group of a layer's variables
            yield TensorInfo(f"{layer}/{path.rpartition('/')[2]}" if layer else path, dataset.shape or (), str(dataset.dtype))


def _list_keras(path: Path) -> Iterator[TensorInfo]:
    with zipfile.ZipFile(path) as archive, archive.open(KERAS_WEIGHTS) as file:
        yield from _list_hdf5(file)


def _read_weights_h5(file: Path | io.BytesIO, model: "keras.Model") -> Arrays:
    """Read a Keras 3 `.weights.h5`: groups `.../vars` have the layer's name, and hold its variables by number."""
    paths = _paths_by_number(model)
    with h5py.File(file) as store:
        arrays = {}
        for dataset in _weights_datasets(store, model).values():
            layer, number = dataset.parent.attrs.get("name", dataset.parent.name), int(dataset.name.rpartition("/")[2])
            if "seed_generator" not in dataset.name:
                arrays[paths.get(f"{layer}/{number}", f"{layer}/{number}")] = dataset[()]
        return arrays


def _read_keras(path: Path, model: "keras.Model") -> Arrays:
    with zipfile.ZipFile(path) as archive:
        # The file may also hold the state of the optimizer, at most twice the size of the weights.
        _require_size(archive.getinfo(KERAS_WEIGHTS).file_size // 3, model)
        return _read_weights_h5(io.BytesIO(archive.read(KERAS_WEIGHTS)), model)


def _read_application(path: Path, model: "keras.Model") -> Arrays:
    """Read a legacy `.h5`: that of Keras Applications, or of a whole model that contains the backbone.

    Layers are matched by name if the file has all names of the backbone. Otherwise they are those of the backbone in order, and its
    head, `predictions`, is left out.
    """
    backbone = feature_extractor(model)
    layers = [layer for layer in backbone.layers if layer.weights]
    with h5py.File(path) as store:
        saved = _saved_layers(store, model)
        if not {layer.name for layer in layers} <= saved.keys():
            in_order = _saved_layers(store, model, inner=False)
            return _in_order({name: weights for name, weights in in_order.items() if name != "predictions"}, backbone, path)
        arrays = {f"{name}/{number}": dataset[()] for name, weights in saved.items() for number, dataset in enumerate(weights)}
    paths = _paths_by_number(backbone)
    return {paths.get(name, name): array for name, array in arrays.items()}


def _in_order(saved: Mapping[str, list[h5py.Dataset]], backbone: "keras.Model", path: Path) -> Arrays:
    layers = [layer for layer in backbone.layers if layer.weights]
    if list(map(len, saved.values())) != [len(layer.weights) for layer in layers]:
        raise ConfigError(
            f"{path.name} holds {len(saved)} layers with {sum(map(len, saved.values()))} weights, and {backbone.name} has {len(layers)} "
            f"with {len(backbone.weights)}: the file is of another model. "
            f"First and last in the file: {list(saved)[:1] + list(saved)[-1:]}; in the model: {[layers[0].name, layers[-1].name]}."
        )
    in_order = [dataset[()] for weights in saved.values() for dataset in weights]
    return dict(zip(variables_by_path(backbone), in_order, strict=True))


def _saved_layers(store: h5py.File, model: "keras.Model", *, inner: bool = True) -> dict[str, list[h5py.Dataset]]:
    """Return layer name -> its weights, in the file's order, for the layers that have weights; `inner`: for those inside a layer."""
    datasets = _weights_datasets(store, model)
    prefix = f"{MODEL_WEIGHTS}/" if MODEL_WEIGHTS in store else ""
    root = store[MODEL_WEIGHTS] if prefix else store
    layers: dict[str, list[h5py.Dataset]] = {}
    for outer in _text_attribute(root, "layer_names"):
        for weight in _text_attribute(root[outer], "weight_names"):
            name = weight.split("/")[-2] if inner and "/" in weight else outer
            layers.setdefault(name, []).append(datasets[f"{prefix}{outer}/{weight}"])
    return layers


def _paths_by_number(model: "keras.Model") -> dict[str, str]:
    """Return `layer/number` -> path of the variable, with the number of the variable in its layer."""
    paths: dict[str, str] = {}
    for path in variables_by_path(model):
        layer = path.split("/")[-2]
        paths[f"{layer}/{sum(name.rpartition('/')[0] == layer for name in paths)}"] = path
    return paths


def _text_attribute(group: h5py.Group, name: str) -> list[str]:
    """Return a list of texts from the attributes of a group. Keras splits long lists into name0, name1, ..."""
    keys = [name] if name in group.attrs else [f"{name}{number}" for number in range(len(group.attrs)) if f"{name}{number}" in group.attrs]
    return [text.decode() if isinstance(text, bytes) else text for key in keys for text in group.attrs[key]]


# SavedModel, a directory


def _read_saved_model(path: Path, model: "keras.Model") -> Arrays:
    return dict(saved_model.read_variables(path, lambda num_bytes: _require_size(num_bytes, model)))


TORCH = Format(torch_file.list_tensors, _read_torch)
SAVED_MODEL = Format(saved_model.list_variables, _read_saved_model)
# By suffix. A longer suffix comes before the shorter one that it ends in.
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        ".weights.h5": Format(_list_hdf5, _read_weights_h5),
        ".keras": Format(_list_keras, _read_keras),
        ".npz": Format(_list_npz, _read_npz),
        ".h5": Format(_list_hdf5, _read_application),
        ".pth": TORCH,
        ".pt": TORCH,
        ".safetensors": Format(_list_safetensors, _read_safetensors),
    }
)
