"""The pickles inside torch's files, followed without being run.

A machine takes the opcodes that torch writes, one by one, and builds dicts, lists, tuples, texts, numbers and the descriptions of
`torch_tensors`. Source: Python's `pickletools`, which decodes them.
"""

import pickletools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from tl_keras.weights.torch_file.tensors import (
    ALLOWED,
    Global,
    Parameter,
    Refused,
    Storage,
    StridedTensor,
    call,
    require_count,
    require_tensor,
    set_items,
    storage_dtype,
    view,
)

# Far above any network's, and small enough that a hostile file costs seconds and some 200 MB.
MAX_STEPS = 1_000_000
MAX_TEXT_BYTES = 2**16
BYTES_A_STEP = 64
MAX_LINE_BYTES = 256


class Cursor:
    """A position in bytes from outside. What is not there is refused before anything is made for it."""

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self.data = data
        self.position = position

    def tell(self) -> int:
        """The position."""
        return self.position

    def skip(self, num_bytes: int) -> slice:
        """Go on by `num_bytes`; returns where these lie."""
        start, left = self.position, len(self.data) - self.position
        if not 0 <= num_bytes <= left:
            raise Refused(
                f"it is truncated, or claims too much: {num_bytes:,} bytes should follow the first {start:,}, and {max(left, 0):,} do"
            )
        self.position += num_bytes
        return slice(start, self.position)

    def read(self, num_bytes: int) -> bytes:
        """The next `num_bytes`, which are no more than a text may have."""
        if num_bytes > MAX_TEXT_BYTES:
            raise Refused(f"it claims a text of {num_bytes:,} bytes, and {MAX_TEXT_BYTES:,} is the limit")
        return bytes(self.data[self.skip(num_bytes)])

    def readline(self) -> bytes:
        """The next line with its end."""
        line, newline, _ = bytes(self.data[self.position : self.position + MAX_LINE_BYTES]).partition(b"\n")
        if not newline:
            raise Refused(f"it is truncated, or has a name of more than {MAX_LINE_BYTES} bytes")
        self.position += len(line) + 1
        return line + newline

    def integer(self, num_bytes: int = 8) -> int:
        """A signed little-endian integer."""
        return int.from_bytes(self.read(num_bytes), "little", signed=True)


class Unpickler:
    """The machine. One serves a whole file, so that its limit is the file's.

    Attributes:
        storages: what the persistent ids have described, by key.
        tensors: what the persistent ids of a tar file name instead.
    """

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self.tensors: dict[str, StridedTensor] = {}
        self._num_steps = 0

    def load(self, cursor: Cursor) -> Any:
        """The object of the pickle at the cursor, which goes on to the pickle's end.

        Raises:
            Refused: the pickle is damaged, too long, or holds what weights are not made of.
        """
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        try:
            for opcode, argument, _ in pickletools.genops(cursor):
                self._spend(1 + (len(argument) // BYTES_A_STEP if isinstance(argument, str) else 0))
                if opcode.name not in ACTIONS:
                    raise Refused(f"its pickle has the opcode {opcode.name}, which torch does not write")
                ACTIONS[opcode.name](self, argument)
        except (ValueError, DeprecationWarning) as error:  # The warning, of odd escapes in a text, where Python makes it an error.
            raise Refused(f"its pickle is damaged: {str(error)[:200]}") from error
        return self._pop()

    def _spend(self, num_steps: int) -> None:
        self._num_steps += num_steps
        if self._num_steps > MAX_STEPS:
            raise Refused(f"its pickles take more than {MAX_STEPS:,} steps")

    def _pop(self) -> Any:
        if not self._stack:
            raise Refused("its pickle takes what it has not put there")
        return self._stack.pop()

    def _top(self) -> Any:
        self._stack.append(self._pop())
        return self._stack[-1]

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop_to_mark(self) -> list[Any]:
        if not self._marked:
            raise Refused("its pickle takes what it has not put there")
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _tuple(self, size: int) -> None:
        self._stack.append(tuple([self._pop() for _ in range(size)][::-1]))

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise Refused("its pickle recalls what it has not stored")
        self._stack.append(self._memo[index])

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("its pickle asks for a global without a name")
        if (found := Global(module, name)) not in ALLOWED:
            raise Refused(
                f"its pickle asks for {found}, which is not among what weights are made of; of a whole model, save the state_dict() alone"
            )
        self._stack.append(found)

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if type(arguments) is tuple:
            self._spend(len(arguments))
            self._spend(sum(len(argument) for argument in arguments if isinstance(argument, list | tuple)))
        self._stack.append(call(function, arguments))

    def _build(self) -> None:
        """The state of an object: the attributes of a dict (`_metadata`) are dropped, those of a Parameter may hold its tensor."""
        state, target = self._pop(), self._top()
        if isinstance(target, Parameter) and type(state) is tuple:
            if target.tensor is None:
                target.tensor = require_tensor(state[0] if state else None)
        elif type(target) is not dict or type(state) is not dict:
            raise Refused("its pickle gives a state to what has none")

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            raise Refused("its pickle sets items of what is no dict")
        set_items(target, zip(items[::2], items[1::2], strict=True))

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise Refused("its pickle appends to what is no list")
        target.extend(items)

    def _persistent(self) -> None:
        """A storage, `("storage", class, key, location, number of elements[, view])`, or the key of a tensor of a tar file."""
        identity = self._pop()
        if type(identity) is not tuple:
            key = storage_key(identity)
            if key not in self.tensors:
                raise Refused(f"its pickle refers to tensor {key}, which the file does not have")
            self._stack.append(self.tensors[key])
        elif len(identity) in (5, 6) and isinstance(identity[0], str) and identity[0] == "storage":
            self._stack.append(self._storage(*identity[1:]))
        else:
            raise Refused("its pickle refers to what is no storage")

    def _storage(self, storage_class: Any, key: Any, _location: Any, num_elements: Any, part: Any = None) -> Storage:
        root = Storage(storage_key(key), storage_dtype(storage_class), require_count(num_elements, "the size of a storage"))
        if self.storages.setdefault(root.key, root) != root:
            raise Refused(f"storage {root.key} is described in two ways")
        if part is None:
            return root
        if type(part) is not tuple or len(part) != 3:
            raise Refused("a view of a storage is not (name, offset, size)")
        return view(root, *part[1:])


def storage_key(key: Any) -> str:
    """The key of a storage or tensor: a text, in old files an address."""
    if type(key) not in (str, int) or len(text := str(key)) > MAX_LINE_BYTES or "/" in text:
        raise Refused("the key of a storage is no plain text")
    return text


Action = Callable[[Unpickler, Any], Any]


def _push(machine: Unpickler, value: Any) -> None:
    machine._stack.append(value)


def _pass(machine: Unpickler, value: Any) -> None:
    pass


def _store(machine: Unpickler, index: int) -> None:
    machine._memo[index] = machine._top()


LITERALS = "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING".split()
ACTIONS: Mapping[str, Action] = MappingProxyType(
    {
        **dict.fromkeys(("PROTO", "FRAME", "STOP"), _pass),
        **dict.fromkeys(LITERALS, _push),
        **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _store),
        **dict.fromkeys(("BINGET", "LONG_BINGET"), Unpickler._recall),
        **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: machine._call()),
        "NONE": lambda machine, _: _push(machine, None),
        "NEWTRUE": lambda machine, _: _push(machine, True),
        "NEWFALSE": lambda machine, _: _push(machine, False),
        "EMPTY_DICT": lambda machine, _: _push(machine, {}),
        "EMPTY_LIST": lambda machine, _: _push(machine, []),
        "EMPTY_TUPLE": lambda machine, _: machine._tuple(0),
        "TUPLE1": lambda machine, _: machine._tuple(1),
        "TUPLE2": lambda machine, _: machine._tuple(2),
        "TUPLE3": lambda machine, _: machine._tuple(3),
        "TUPLE": lambda machine, _: _push(machine, tuple(machine._pop_to_mark())),
        "MARK": lambda machine, _: machine._mark(),
        "MEMOIZE": lambda machine, _: _store(machine, len(machine._memo)),
        "GLOBAL": lambda machine, names: machine._global(*names.split(" ", 1)),
        "STACK_GLOBAL": lambda machine, _: machine._global(*[machine._pop(), machine._pop()][::-1]),
        "SETITEM": lambda machine, _: machine._set_items([machine._pop(), machine._pop()][::-1]),
        "SETITEMS": lambda machine, _: machine._set_items(machine._pop_to_mark()),
        "APPEND": lambda machine, _: machine._extend([machine._pop()]),
        "APPENDS": lambda machine, _: machine._extend(machine._pop_to_mark()),
        "BUILD": lambda machine, _: machine._build(),
        "BINPERSID": lambda machine, _: machine._persistent(),
    }
)
