"""Descriptions of the objects in a torch file: storages, tensors over storages, parameters, and globals by name.

A global of a pickle is never imported, and nothing that a file names is called. Calls of the globals in `CALLS` give descriptions of
tensors. All other globals, such as the classes of a training script's arguments, stand for themselves, and their calls give an
`Opaque`. Files that name what only an attack needs, see `is_hostile`, are refused as a whole.
Sources: torch's `_utils.py`, `_tensor.py` and `_weights_only_unpickler.py`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

MAX_DIMENSIONS = 32
MAX_COUNT = 2**63
MAX_KEY = 2**48
# Limit for an empty tensor, since its storage does not bound its shape.
MAX_EMPTY_SIZE = 2**16

# torch's name of a dtype -> NumPy dtype of its elements in a little-endian file.
DTYPES: Mapping[str, np.dtype] = MappingProxyType(
    {
        "float64": np.dtype("<f8"),
        "float32": np.dtype("<f4"),
        "float16": np.dtype("<f2"),
        "bfloat16": np.dtype("<u2"),
        "int64": np.dtype("<i8"),
        "int32": np.dtype("<i4"),
        "int16": np.dtype("<i2"),
        "int8": np.dtype("i1"),
        "uint64": np.dtype("<u8"),
        "uint32": np.dtype("<u4"),
        "uint16": np.dtype("<u2"),
        "uint8": np.dtype("u1"),
        "bool": np.dtype("u1"),
    }
)

# First part of torch's class names FloatStorage and FloatTensor -> dtype.
CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "Double": "float64",
        "Float": "float32",
        "Half": "float16",
        "BFloat16": "bfloat16",
        "Long": "int64",
        "Int": "int32",
        "Short": "int16",
        "Char": "int8",
        "Byte": "uint8",
        "Bool": "bool",
    }
)


class InvalidTorchFile(Exception):
    """A file is refused. The message is a clause with the reason, without the name of the file."""


@dataclass(frozen=True)
class Global:
    """A global by its module and name. It is not imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:120]


@dataclass
class Opaque:
    """An object that is no tensor and is not built: arguments, a path, an optimizer. `origin` is what would have made it."""

    origin: Global


@dataclass(frozen=True)
class Storage:
    """`num_elements` elements, beginning with element `offset`, of the bytes that the file stores under `key`."""

    key: str
    dtype: str
    num_elements: int
    offset: int = 0

    @property
    def num_bytes(self) -> int:
        """Return the size of the elements in the file, in bytes."""
        return self.num_elements * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class StridedTensor:
    """A tensor over a storage. `offset` and `strides` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class Parameter:
    """torch.nn.Parameter. Old files create it first and set its tensor later."""

    tensor: StridedTensor | None = None


def require_count(value: Any, what: str) -> int:
    """Return `value` if it is an integer in 0 .. 2**63 - 1. `what` names it in the message."""
    if type(value) is not int:
        raise InvalidTorchFile(f"{what} is no integer")
    if not 0 <= value < MAX_COUNT:
        raise InvalidTorchFile(f"{what} is {'negative' if value < 0 else 'above 2**63'}")
    return value


def view(root: Storage, offset: Any, size: Any) -> Storage:
    """Return `size` elements of a storage, beginning with element `offset`."""
    end = require_count(offset, "the offset of a storage's view") + require_count(size, "the size of a storage's view")
    if end > root.num_elements:
        raise InvalidTorchFile(f"a view reaches element {end:,} of a storage of {root.num_elements:,}")
    return replace(root, offset=root.offset + offset, num_elements=size)


def _strided_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StridedTensor:
    """Return a tensor that is within its storage. Python's integers do not overflow, so the products below are exact."""
    if not isinstance(storage, Storage):
        raise InvalidTorchFile("a tensor has no storage")
    if type(shape) is not tuple or type(strides) is not tuple or len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise InvalidTorchFile(f"a tensor's shape and strides are not tuples of one length, {MAX_DIMENSIONS} at most")
    shape = tuple(require_count(size, "a size of a tensor") for size in shape)
    strides = tuple(require_count(stride, "a stride of a tensor") for stride in strides)
    require_count(offset, "the offset of a tensor")
    if 0 in shape:
        return _empty(storage, shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= storage.num_elements:
        raise InvalidTorchFile(f"a tensor of shape {shape} reaches element {last:,} of a storage of {storage.num_elements:,}")
    if math.prod(shape) > storage.num_elements:
        raise InvalidTorchFile(f"a tensor of shape {shape} repeats the elements of a storage of {storage.num_elements:,}")
    # The stride of a dimension of size one is never used, and torch stores arbitrary values there.
    return StridedTensor(storage, offset, shape, tuple(stride * (size > 1) for size, stride in zip(shape, strides, strict=True)))


def _empty(storage: Storage, shape: tuple[int, ...]) -> StridedTensor:
    if math.prod(size or 1 for size in shape) > MAX_EMPTY_SIZE:
        raise InvalidTorchFile(f"a tensor of shape {shape} is empty and claims more than {MAX_EMPTY_SIZE:,} elements")
    return StridedTensor(storage, 0, shape, (0,) * len(shape))


def require_tensor(value: Any) -> StridedTensor:
    """Return `value` if it is a tensor."""
    if not isinstance(value, StridedTensor):
        raise InvalidTorchFile("a parameter is no tensor")
    return value


def storage_dtype(storage_class: Any) -> str:
    """Return the dtype of a storage or tensor class."""
    if not isinstance(storage_class, Global) or storage_class not in STORAGE_CLASSES:
        raise InvalidTorchFile("a storage has no class")
    return STORAGE_CLASSES[storage_class]


def set_items(target: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Set items of a dict, each key once. Keys must be texts or small integers: others can be made to hash slowly or to collide."""
    for key, value in pairs:
        if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < MAX_KEY):
            raise InvalidTorchFile("a dict has keys that are neither texts nor small integers")
        if key in target:
            raise InvalidTorchFile(f"it gives {str(key)[:80]!r} twice")
        target[key] = value
    return target


def _ordered_dict(items: Any = (), *_: Any) -> dict[Any, Any]:
    if not isinstance(items, list | tuple) or not all(isinstance(item, list | tuple) and len(item) == 2 for item in items):
        raise InvalidTorchFile("an OrderedDict is not made of pairs")
    return set_items({}, items)


def _parameter(tensor: Any = None, *_: Any) -> Parameter:
    return Parameter(None if tensor is None else require_tensor(tensor))


def _typed_tensor(storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any) -> StridedTensor:
    """Return a tensor over bytes, for a dtype without storage class."""
    if not isinstance(storage, Storage) or storage.dtype != "uint8" or not isinstance(dtype, Global) or dtype not in TORCH_DTYPES:
        raise InvalidTorchFile("a tensor without a storage class is not over bytes, or has no dtype")
    name = TORCH_DTYPES[dtype]
    if storage.offset:
        raise InvalidTorchFile("a tensor without a storage class is over a view")
    num_elements = storage.num_elements // DTYPES[name].itemsize
    return _strided_tensor(replace(storage, dtype=name, num_elements=num_elements), offset, shape, strides)


def _tensor_of_type(function: Any, _type: Any, arguments: Any, *_: Any) -> StridedTensor:
    """Return a tensor of another class. Its attributes are dropped."""
    if not isinstance(function, Global) or function not in TENSOR_CALLS or type(arguments) is not tuple:
        raise InvalidTorchFile("a tensor of another class is made by no tensor function")
    return TENSOR_CALLS[function](*arguments)


def _size(sizes: Any, *_: Any) -> Any:
    return sizes


TORCH_DTYPES: Mapping[Global, str] = MappingProxyType({Global("torch", name): name for name in DTYPES})
STORAGE_CLASSES: Mapping[Global, str] = MappingProxyType(
    {Global("torch.storage", "UntypedStorage"): "uint8"}
    | {
        Global(module, name + suffix): CLASSES[name]
        for module in ("torch", "torch.cuda")
        for name in CLASSES
        for suffix in ("Storage", "Tensor")
    }
)
TENSOR_CALLS: Mapping[Global, Callable[..., StridedTensor]] = MappingProxyType(
    {
        Global("torch._utils", "_rebuild_tensor"): _strided_tensor,
        Global("torch._utils", "_rebuild_tensor_v2"): _strided_tensor,
        Global("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    }
)
CALLS: Mapping[Global, Callable[..., Any]] = MappingProxyType(
    {
        **TENSOR_CALLS,
        Global("collections", "OrderedDict"): _ordered_dict,
        Global("torch", "Size"): _size,
        Global("torch._tensor", "_rebuild_from_type_v2"): _tensor_of_type,
        Global("torch._utils", "_rebuild_parameter"): _parameter,
        Global("torch._utils", "_rebuild_parameter_with_state"): _parameter,
        Global("torch.nn.parameter", "Parameter"): _parameter,
    }
)
# Modules in which only the globals above are known: other names there belong to no file that torch has written.
STRICT_MODULES = frozenset({"torch._utils", "torch._tensor", "torch.storage"})
# Modules whose functions act on the system, and built-in functions that run code or reach attributes.
HOSTILE_MODULES = frozenset((
    "os", "posix", "nt", "subprocess", "sys", "shutil", "socket", "ctypes", "importlib", "runpy", "pty", "commands", "multiprocessing",
    "threading", "asyncio", "webbrowser", "code", "codeop", "pdb", "pickle", "marshal", "shelve", "operator", "timeit", "requests",
    "urllib", "http", "ftplib", "smtplib", "tempfile", "signal", "inspect", "types", "gc",
))  # fmt: skip
BUILTINS = ("builtins", "__builtin__")
HARMLESS_BUILTINS = frozenset("bool bytearray bytes complex dict float frozenset int list object range set slice str tuple".split())


def is_hostile(found: Global) -> bool:
    """Return True if weights never need the global, whatever a training script stores beside them."""
    if found.module in STRICT_MODULES:
        return found not in KNOWN
    if found.module in BUILTINS:
        return found.name not in HARMLESS_BUILTINS
    return found.module.partition(".")[0] in HOSTILE_MODULES or "__" in found.name


KNOWN = frozenset({*CALLS, *STORAGE_CLASSES, *TORCH_DTYPES})


def call(function: Any, arguments: Any) -> Any:
    """Return what a global gives for its arguments: the result of its function in `CALLS`, or an `Opaque`."""
    if isinstance(function, Opaque):
        return Opaque(function.origin)
    if not isinstance(function, Global) or type(arguments) is not tuple:
        raise InvalidTorchFile("its pickle calls something that is no function")
    if function not in CALLS:
        if function in KNOWN:
            raise InvalidTorchFile(f"its pickle calls {function}")
        return Opaque(function)
    try:
        return CALLS[function](*arguments)
    except TypeError as error:
        raise InvalidTorchFile(f"its pickle calls {function} with {len(arguments)} arguments") from error
