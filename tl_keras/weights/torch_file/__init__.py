"""Reads weights saved by torch, `.pth` and `.pt` files, without torch.

    tensors = read_tensors(Path("alexnet-owt-7be5be79.pth"))  # name -> array, mapped from the file

The state dict is the pickled dict of the file, or the dict under one of `WRAPPERS` in it. Nothing of the file is executed, and
a size that it claims is believed only if it fits in the file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import DamagedError, MissingError
from tl_keras.weights.torch_file.containers import Contents, read_container
from tl_keras.weights.torch_file.tensors import DTYPES, InvalidTorchFile, Parameter, StridedTensor
from tl_keras.weights.weights_file import TensorInfo

# Keys under which training scripts store the state dict. The first key that is present counts.
WRAPPERS = ("state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class TorchFile:
    """The structure of a torch file.

    Attributes:
        container: "zip" or "stream".
        tensors: descriptions in the file's order, with torch's names of the dtypes. `bfloat16` is read as float32.
        other_names: names of everything beside the tensors, such as numbers, texts or the optimizer.
    """

    container: str
    tensors: tuple[TensorInfo, ...]
    other_names: tuple[str, ...]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a torch file by name, in the file's order.

    Returns:
        Read-only arrays that share memory with the file. The file must not change while they are used. Tensors of bfloat16
        (widened to float32), bool and big-endian files are copies, one for each storage. Arrays of a stream may be unaligned,
        which NumPy and TensorFlow accept.

    Raises:
        MissingError: The file does not exist.
        DamagedError: The file is truncated, corrupt, hostile or has another format. The message says which.
    """
    data, contents = _read(path)
    storages: dict[tuple[str, str], np.ndarray] = {}
    return {name: _array(tensor, data, contents, storages) for name, tensor in _tensors(path, contents).items()}


def inspect_file(path: Path) -> TorchFile:
    """Return the structure of a torch file without reading values. Raises the errors of `read_tensors`."""
    contents = _read(path)[1]
    tensors = _tensors(path, contents)
    infos = tuple(TensorInfo(name, tensor.shape, tensor.storage.dtype) for name, tensor in tensors.items())
    return TorchFile(contents.container, infos, _other_names(contents.root, tensors))


def list_tensors(path: Path) -> list[TensorInfo]:
    """Return name, shape and dtype of each tensor without reading values. Raises the errors of `read_tensors`."""
    return list(inspect_file(path).tensors)


def _read(path: Path) -> tuple[np.ndarray, Contents]:
    if not path.is_file():
        raise MissingError(f"There is no weights file {path.absolute()}.")
    try:
        if not path.stat().st_size:
            raise InvalidTorchFile("it is empty")
        data = np.memmap(path, np.uint8, "r").view(np.ndarray)
        return data, read_container(path, memoryview(data))
    except (InvalidTorchFile, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> DamagedError:
    return DamagedError(f"{path} cannot be read as weights saved by torch: {reason}. Fetch or save it again.")


def _tensors(path: Path, contents: Contents) -> dict[str, StridedTensor]:
    """Return the tensors of the state dict, those of Parameters included."""
    candidates = ((name, _tensor_of(value)) for name, value in _state_dict(contents.root).items())
    tensors = {name: tensor for name, tensor in candidates if tensor is not None}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise _damaged(path, f"it holds no dict of tensors by name, at its root or under {', '.join(WRAPPERS)}")
    return tensors


def _state_dict(root: Any) -> dict[Any, Any]:
    if not isinstance(root, dict):
        return {}
    return next((root[name] for name in WRAPPERS if isinstance(root.get(name), dict)), root)


def _tensor_of(value: Any) -> StridedTensor | None:
    tensor = value.tensor if isinstance(value, Parameter) else value
    return tensor if isinstance(tensor, StridedTensor) else None


def _other_names(root: dict[Any, Any], tensors: dict[str, StridedTensor]) -> tuple[str, ...]:
    state_dict = _state_dict(root)
    beside = [] if state_dict is root else [name for name in root if root[name] is not state_dict]
    return tuple(str(name) for name in (*beside, *(name for name in state_dict if name not in tensors)))


def _array(tensor: StridedTensor, data: np.ndarray, contents: Contents, storages: dict[tuple[str, str], np.ndarray]) -> np.ndarray:
    """Return a view of the tensor's storage. `storages` caches the storages, so that none is copied twice."""
    key = tensor.storage.key, tensor.storage.dtype
    if key not in storages:
        storages[key] = _elements(data[contents.storage_slices[tensor.storage.key]], tensor.storage.dtype, contents.byte_order)
    elements = storages[key][tensor.storage.offset + tensor.offset :]
    strides = tuple(stride * elements.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(elements, tensor.shape, strides, writeable=False)


def _elements(stored: np.ndarray, dtype: str, byte_order: str) -> np.ndarray:
    """Return the elements of a storage, little-endian as on every platform of TensorFlow. Copies only if the layout differs."""
    little = DTYPES[dtype]
    elements = stored[: len(stored) - len(stored) % little.itemsize].view(little)
    if byte_order == "big":
        elements = elements.byteswap()
    if dtype == "bfloat16":
        wide = np.zeros(len(elements), np.float32)
        wide.view(np.uint16)[1::2] = elements
        return wide
    return elements != 0 if dtype == "bool" else elements
