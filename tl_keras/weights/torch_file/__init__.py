"""Weights that torch has saved, read without torch: `.pth` and `.pt` files.

    tensors = read_tensors(Path("alexnet-owt-7be5be79.pth"))  # name -> array, mapped from the file

The file's state dict is its pickled dict, or what that holds under one of `WRAPPERS`. Nothing of the file is run, and no
size that it claims is believed before it is found to fit in the file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import DamagedError, MissingError
from tl_keras.weights.torch_file.containers import Contents, read_container
from tl_keras.weights.torch_file.tensors import DTYPES, Parameter, Refused, StridedTensor

# Where training scripts put the state dict among other things; the first that is there counts.
WRAPPERS = ("state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class Tensor:
    """What a file says of a tensor, without its values.

    Attributes:
        dtype: torch's name of it; `bfloat16` is read as float32.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class TorchFile:
    """A torch file whose structure has been read.

    Attributes:
        container: "zip", "stream" or "tar".
        tensors: name -> description, in the file's order.
        left_out: names of what lies beside the tensors: numbers, texts, the optimizer.
    """

    container: str
    tensors: tuple[Tensor, ...]
    left_out: tuple[str, ...]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a torch file by name, in the file's order.

    Returns:
        Read-only arrays that share memory with the file, which must stay as it is while they are used. Those of bfloat16 (widened to
        float32), bool and big-endian files share one copy of their storage. Arrays of a stream or tar may be unaligned, which
        NumPy and TensorFlow take.

    Raises:
        MissingError: there is no such file.
        DamagedError: the file is truncated, damaged, hostile or of another kind; the message says which.
    """
    data, contents = _read(path)
    storages: dict[tuple[str, str], np.ndarray] = {}
    return {name: _array(tensor, data, contents, storages) for name, tensor in _tensors(path, contents).items()}


def inspect_file(path: Path) -> TorchFile:
    """What a torch file holds, without reading any values. Raises as `read_tensors` does."""
    contents = _read(path)[1]
    tensors = _tensors(path, contents)
    described = tuple(Tensor(name, tensor.shape, tensor.storage.dtype) for name, tensor in tensors.items())
    return TorchFile(contents.container, described, _left_out(contents.top, tensors))


def describe(path: Path) -> list[Tensor]:
    """Name, shape and dtype of each tensor, without reading any values. Raises as `read_tensors` does."""
    return list(inspect_file(path).tensors)


def _read(path: Path) -> tuple[np.ndarray, Contents]:
    if not path.is_file():
        raise MissingError(f"There is no weights file {path.absolute()}.")
    try:
        if not path.stat().st_size:
            raise Refused("it is empty")
        data = np.memmap(path, np.uint8, "r").view(np.ndarray)
        return data, read_container(path, memoryview(data))
    except (Refused, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> DamagedError:
    return DamagedError(f"{path} cannot be read as weights saved by torch: {reason}. Fetch or save it again.")


def _tensors(path: Path, contents: Contents) -> dict[str, StridedTensor]:
    """The tensors of the state dict, out of their Parameters."""
    tensors = {name: _unwrapped(value) for name, value in _state_dict(contents.top).items()}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise _damaged(path, f"it holds no dict of tensors by name, at its top or under {', '.join(WRAPPERS)}")
    return tensors


def _state_dict(top: Any) -> dict:
    if not isinstance(top, dict):
        return {}
    return next((top[name] for name in WRAPPERS if isinstance(top.get(name), dict)), top)


def _unwrapped(value: Any) -> StridedTensor | None:
    tensor = value.tensor if isinstance(value, Parameter) else value
    return tensor if isinstance(tensor, StridedTensor) else None


def _left_out(top: dict, tensors: dict[str, StridedTensor]) -> tuple[str, ...]:
    state_dict = _state_dict(top)
    beside = [] if state_dict is top else [name for name in top if top[name] is not state_dict]
    return tuple(str(name) for name in (*beside, *(name for name in state_dict if name not in tensors)))


def _array(tensor: StridedTensor, data: np.ndarray, contents: Contents, storages: dict[tuple[str, str], np.ndarray]) -> np.ndarray:
    """The tensor over its storage, which `storages` keeps so that none is copied twice."""
    key = tensor.storage.key, tensor.storage.dtype
    if key not in storages:
        storages[key] = _elements(data[contents.places[tensor.storage.key]], tensor.storage.dtype, contents.byte_order)
    elements = storages[key][tensor.storage.first + tensor.offset :]
    strides = tuple(stride * elements.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(elements, tensor.shape, strides, writeable=False)


def _elements(stored: np.ndarray, dtype: str, byte_order: str) -> np.ndarray:
    """The elements of a storage, little-endian as the machines that TensorFlow runs on; a copy only where they do not lie so."""
    little = DTYPES[dtype]
    elements = stored[: len(stored) - len(stored) % little.itemsize].view(little)
    if byte_order == "big":
        elements = elements.byteswap()
    if dtype == "bfloat16":
        wide = np.zeros(len(elements), np.float32)
        wide.view(np.uint16)[1::2] = elements
        return wide
    return elements != 0 if dtype == "bool" else elements
