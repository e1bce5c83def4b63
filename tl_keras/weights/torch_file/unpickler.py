"""A restricted unpickler for torch files. It imports and calls nothing that a file names.

It interprets the opcodes of training scripts and builds dicts, lists, tuples, texts, numbers and the descriptions of `tensors`.
Source: Python's `pickletools`, which decodes the opcodes.
"""

import pickletools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import IO, Any, cast

from tl_keras.weights.torch_file.tensors import (
    Global,
    InvalidTorchFile,
    Opaque,
    Parameter,
    Storage,
    call,
    is_hostile,
    require_count,
    require_tensor,
    set_items,
    storage_dtype,
    view,
)

# Far above the need of any model, and small enough that a hostile file costs seconds and some 200 MB.
MAX_STEPS = 1_000_000
MAX_TEXT_BYTES = 2**16
BYTES_PER_STEP = 64
MAX_LINE_BYTES = 256


class ByteReader:
    """Reads untrusted bytes from a position on. Nothing is allocated for bytes that do not exist."""

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self.data = data
        self.position = position

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def skip(self, num_bytes: int) -> slice:
        """Advance by `num_bytes` and return their slice of the data."""
        start, left = self.position, len(self.data) - self.position
        if not 0 <= num_bytes <= left:
            raise InvalidTorchFile(
                f"it is truncated, or claims too much: {num_bytes:,} bytes should follow the first {start:,}, and {max(left, 0):,} do"
            )
        self.position += num_bytes
        return slice(start, self.position)

    def read(self, num_bytes: int) -> bytes:
        """Return the next `num_bytes`, at most MAX_TEXT_BYTES."""
        if num_bytes > MAX_TEXT_BYTES:
            raise InvalidTorchFile(f"it claims a text of {num_bytes:,} bytes, and {MAX_TEXT_BYTES:,} is the limit")
        return bytes(self.data[self.skip(num_bytes)])

    def readline(self) -> bytes:
        """Return the next line, including its end."""
        line, newline, _ = bytes(self.data[self.position : self.position + MAX_LINE_BYTES]).partition(b"\n")
        if not newline:
            raise InvalidTorchFile(f"it is truncated, or has a name of more than {MAX_LINE_BYTES} bytes")
        self.position += len(line) + 1
        return line + newline

    def integer(self) -> int:
        """Return the next 8 bytes as a signed little-endian integer."""
        return int.from_bytes(self.read(8), "little", signed=True)


class Unpickler:
    """Loads the pickles of one file. The limit on steps is for all of them together.

    Attributes:
        storages: storages that persistent ids have described, by key.
    """

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._num_steps = 0

    def load(self, reader: ByteReader) -> Any:
        """Return the object of the pickle at the reader's position, and advance the reader past it.

        Raises:
            InvalidTorchFile: The pickle is damaged, too long, or contains something else than weights.
        """
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        try:
            for opcode, argument, _ in pickletools.genops(cast(IO[bytes], reader)):
                self._count_steps(1 + (len(argument) // BYTES_PER_STEP if isinstance(argument, str) else 0))
                if opcode.name not in OPCODE_HANDLERS:
                    raise InvalidTorchFile(f"its pickle has the opcode {opcode.name}, which torch does not write")
                OPCODE_HANDLERS[opcode.name](self, argument)
        except (ValueError, DeprecationWarning) as error:  # Python can turn the warning of odd escapes in a text into an error.
            raise InvalidTorchFile(f"its pickle is damaged: {str(error)[:200]}") from error
        return self._pop()

    def _count_steps(self, num_steps: int) -> None:
        self._num_steps += num_steps
        if self._num_steps > MAX_STEPS:
            raise InvalidTorchFile(f"its pickles take more than {MAX_STEPS:,} steps")

    def _pop(self) -> Any:
        if not self._stack:
            raise InvalidTorchFile("its pickle pops from an empty stack")
        return self._stack.pop()

    def _top(self) -> Any:
        self._stack.append(self._pop())
        return self._stack[-1]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop_to_mark(self) -> list[Any]:
        if not self._marked:
            raise InvalidTorchFile("its pickle pops to a mark that it has not set")
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _tuple(self, size: int) -> None:
        self._push(tuple([self._pop() for _ in range(size)][::-1]))

    def _store(self, index: int) -> None:
        self._memo[index] = self._top()

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise InvalidTorchFile("its pickle recalls a memo that it has not stored")
        self._push(self._memo[index])

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise InvalidTorchFile("its pickle asks for a global without a name")
        if is_hostile(found := Global(module, name)):
            raise InvalidTorchFile(f"its pickle asks for {found}, which weights never need")
        self._push(found)

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if type(arguments) is tuple:
            self._count_steps(len(arguments))
            self._count_steps(sum(len(argument) for argument in arguments if isinstance(argument, list | tuple)))
        self._push(call(function, arguments))

    def _call_with_names(self) -> None:
        self._pop()  # named arguments, which no tensor has
        self._call()

    def _push_set(self) -> None:
        self._pop_to_mark()
        self._push(Opaque(SET))

    def _build(self) -> None:
        """Set the state of an object. Attributes of a dict (`_metadata`) are dropped; a Parameter may get its tensor so."""
        state, target = self._pop(), self._top()
        if isinstance(target, Opaque):
            return
        if isinstance(target, Parameter) and type(state) is tuple:
            if target.tensor is None:
                target.tensor = require_tensor(state[0] if state else None)
        elif type(target) is not dict or type(state) is not dict:
            raise InvalidTorchFile("its pickle gives a state to an object that has none")

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Opaque):
            return
        if type(target) is not dict or len(items) % 2:
            raise InvalidTorchFile("its pickle sets items of an object that is not a dict")
        set_items(target, zip(items[::2], items[1::2], strict=True))

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Opaque):
            return
        if type(target) is not list:
            raise InvalidTorchFile("its pickle appends to an object that is not a list")
        target.extend(items)

    def _persistent(self) -> None:
        """Push the storage `("storage", class, key, location, number of elements[, view])`."""
        identity = self._pop()
        if type(identity) is not tuple or len(identity) not in (5, 6) or not isinstance(identity[0], str) or identity[0] != "storage":
            raise InvalidTorchFile("its pickle refers to something that is no storage")
        self._push(self._storage(*identity[1:]))

    def _storage(self, storage_class: Any, key: Any, _location: Any, num_elements: Any, part: Any = None) -> Storage:
        root = Storage(storage_key(key), storage_dtype(storage_class), require_count(num_elements, "the size of a storage"))
        if self.storages.setdefault(root.key, root) != root:
            raise InvalidTorchFile(f"storage {root.key} is described in two ways")
        if part is None:
            return root
        if type(part) is not tuple or len(part) != 3:
            raise InvalidTorchFile("a view of a storage is not (name, offset, size)")
        return view(root, *part[1:])


def storage_key(key: Any) -> str:
    """Return the key of a storage as a text. In old files it is an address."""
    if type(key) not in (str, int) or len(text := str(key)) > MAX_LINE_BYTES or "/" in text:
        raise InvalidTorchFile("the key of a storage is not a plain text")
    return text


SET = Global("builtins", "set")
LITERALS = (
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINSTRING SHORT_BINSTRING "
    "BINBYTES SHORT_BINBYTES BINBYTES8"
).split()
OPCODE_HANDLERS: Mapping[str, Callable[[Unpickler, Any], object]] = MappingProxyType(
    {
        **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda unpickler, _: None),
        **dict.fromkeys(LITERALS, Unpickler._push),
        **dict.fromkeys(("BINPUT", "LONG_BINPUT"), Unpickler._store),
        **dict.fromkeys(("BINGET", "LONG_BINGET"), Unpickler._recall),
        **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda unpickler, _: unpickler._call()),
        "NEWOBJ_EX": lambda unpickler, _: unpickler._call_with_names(),
        "EMPTY_SET": lambda unpickler, _: unpickler._push(Opaque(SET)),
        "ADDITEMS": lambda unpickler, _: unpickler._extend(unpickler._pop_to_mark()),
        "FROZENSET": lambda unpickler, _: unpickler._push_set(),
        "POP": lambda unpickler, _: unpickler._pop(),
        "NONE": lambda unpickler, _: unpickler._push(None),
        "NEWTRUE": lambda unpickler, _: unpickler._push(True),
        "NEWFALSE": lambda unpickler, _: unpickler._push(False),
        "EMPTY_DICT": lambda unpickler, _: unpickler._push({}),
        "EMPTY_LIST": lambda unpickler, _: unpickler._push([]),
        "EMPTY_TUPLE": lambda unpickler, _: unpickler._tuple(0),
        "TUPLE1": lambda unpickler, _: unpickler._tuple(1),
        "TUPLE2": lambda unpickler, _: unpickler._tuple(2),
        "TUPLE3": lambda unpickler, _: unpickler._tuple(3),
        "TUPLE": lambda unpickler, _: unpickler._push(tuple(unpickler._pop_to_mark())),
        "MARK": lambda unpickler, _: unpickler._mark(),
        "MEMOIZE": lambda unpickler, _: unpickler._store(len(unpickler._memo)),
        "GLOBAL": lambda unpickler, names: unpickler._global(*names.split(" ", 1)),
        "STACK_GLOBAL": lambda unpickler, _: unpickler._global(*[unpickler._pop(), unpickler._pop()][::-1]),
        "SETITEM": lambda unpickler, _: unpickler._set_items([unpickler._pop(), unpickler._pop()][::-1]),
        "SETITEMS": lambda unpickler, _: unpickler._set_items(unpickler._pop_to_mark()),
        "APPEND": lambda unpickler, _: unpickler._extend([unpickler._pop()]),
        "APPENDS": lambda unpickler, _: unpickler._extend(unpickler._pop_to_mark()),
        "BUILD": lambda unpickler, _: unpickler._build(),
        "BINPERSID": lambda unpickler, _: unpickler._persistent(),
    }
)
