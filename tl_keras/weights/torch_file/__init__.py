"""Reads weights saved by torch, `.pth` and `.pt` files, without torch.

    tensors = read_tensors(Path("alexnet-owt-7be5be79.pth"))  # name -> array, mapped from the file

The state dict is the dict with the most tensors in the pickled object, whatever its key is; see `state_dict`. Everything else, such
as arguments and the state of an optimizer, is passed over. Nothing of the file is executed, and a size that it claims is believed
only if it fits in the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.weights.torch_file.containers import Contents, read_container
from tl_keras.weights.torch_file.state_dict import EMA, StateDict, state_dicts
from tl_keras.weights.torch_file.tensors import DTYPES, InvalidTorchFile, Opaque, StridedTensor
from tl_keras.weights.weights_file import TensorInfo


@dataclass(frozen=True)
class TorchFile:
    """The structure of a torch file.

    Attributes:
        container: "zip" or "stream".
        tensors: descriptions in the file's order, with torch's names of the dtypes. `bfloat16` is read as float32.
        other_names: names of everything beside the tensors, such as numbers, texts or the optimizer.
        others: key -> number of tensors of the other dicts of tensors in the file, e.g. averaged weights.
    """

    container: str
    tensors: tuple[TensorInfo, ...]
    other_names: tuple[str, ...]
    others: Mapping[str, int]


class Tensors(dict[str, np.ndarray]):
    """Tensors of a torch file by name. `others` as in `TorchFile`."""

    def __init__(self, tensors: Mapping[str, np.ndarray], others: Mapping[str, int]):
        super().__init__(tensors)
        self.others = others


def read_tensors(path: Path, choice: str = "") -> Tensors:
    """Return the tensors of a torch file by name, in the file's order.

    Args:
        choice: key of the state dict to read, or `ema` for averaged weights; empty: the plain weights.

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
    chosen, others = _choose(path, contents, choice)
    return Tensors({name: _array(tensor, data, contents, storages) for name, tensor in chosen.tensors.items()}, others)


def inspect_file(path: Path, choice: str = "") -> TorchFile:
    """Return the structure of a torch file without reading values. Raises the errors of `read_tensors`."""
    contents = _read(path)[1]
    chosen, others = _choose(path, contents, choice)
    infos = tuple(TensorInfo(name, tensor.shape, tensor.storage.dtype) for name, tensor in chosen.tensors.items())
    return TorchFile(contents.container, infos, _other_names(contents.root, chosen), others)


def list_tensors(path: Path, choice: str = "") -> list[TensorInfo]:
    """Return name, shape and dtype of each tensor without reading values. Raises the errors of `read_tensors`."""
    return list(inspect_file(path, choice).tensors)


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


def _choose(path: Path, contents: Contents, choice: str) -> tuple[StateDict, Mapping[str, int]]:
    """Return the state dict that `choice` names, without one the best of `state_dicts`; and key -> number of tensors of the others."""
    found = state_dicts(contents.root)
    if not found:
        raise _damaged(path, _describe_root(contents.root))
    matching = [candidate for candidate in found if choice in ("", candidate.key) or (choice == EMA and candidate.is_average)]
    if not matching:
        raise ConfigError(
            f"{path} has no weights {choice!r}; it has {', '.join(candidate.key or 'the plain ones' for candidate in found)}. "
            f"Write the name after a #, e.g. {path.name}#{found[-1].key or EMA}."
        )
    chosen = matching[0]
    return chosen, {candidate.key: len(candidate.tensors) for candidate in found if candidate.key != chosen.key}


def _describe_root(root: Any) -> str:
    if isinstance(root, Opaque):
        return f"it is an object {root.origin}, a whole model if it is of torch.nn: load it in torch and save its state_dict() alone"
    return "it holds no dict of tensors by name"


def _other_names(root: Any, chosen: StateDict) -> tuple[str, ...]:
    beside = [name for name in root if name != chosen.key] if chosen.key and isinstance(root, dict) else []
    return tuple(str(name) for name in (*beside, *chosen.other_names))


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
