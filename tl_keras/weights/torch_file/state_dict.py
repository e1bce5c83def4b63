"""Finds the state dict in what a training script has saved: by content, since every script has keys of its own."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tl_keras.weights.torch_file.tensors import Parameter, StridedTensor

EMA = "ema"
MAX_DEPTH = 4
# Parts of keys: averaged weights, and tensors that are no weights.
AVERAGE = re.compile(r"(^|[_.-])(ema|swa|avg|averaged?|shadow)([_.-]|$)", re.IGNORECASE)
NO_WEIGHTS = re.compile(r"optim|sched|scaler|^args$|hyper_?parameters", re.IGNORECASE)


@dataclass(frozen=True)
class StateDict:
    """A dict of tensors in a file.

    Attributes:
        key: its key, joined by dots if it is nested; empty for the root.
        tensors: the tensors by name, those of Parameters included.
        other_names: names of what else the dict holds.
    """

    key: str
    tensors: dict[str, StridedTensor]
    other_names: tuple[Any, ...]

    @property
    def is_average(self) -> bool:
        """True if the key says that these are averaged weights."""
        return bool(AVERAGE.search(self.key))


def state_dicts(root: Any) -> list[StateDict]:
    """Return the dicts of tensors in a pickled object, the best first: plain weights before averaged ones, then by number of tensors."""
    found = list(_walk(root, (), set()))
    return sorted(found, key=lambda candidate: (candidate.is_average, -len(candidate.tensors)))


def _walk(value: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[StateDict]:
    """Yield the dicts of tensors in `value`. Each dict is visited once: a hostile file may hold one in many places."""
    if not isinstance(value, dict) or len(path) > MAX_DEPTH or id(value) in seen:
        return
    seen.add(id(value))
    tensors = {name: tensor for name, item in value.items() if isinstance(name, str) and (tensor := _tensor_of(item)) is not None}
    if tensors and all(isinstance(name, str) for name in value):
        yield StateDict(".".join(path), tensors, tuple(name for name in value if name not in tensors))
    for name, item in value.items():
        if isinstance(name, str) and not NO_WEIGHTS.search(name):
            yield from _walk(item, (*path, name), seen)


def _tensor_of(value: Any) -> StridedTensor | None:
    tensor = value.tensor if isinstance(value, Parameter) else value
    return tensor if isinstance(tensor, StridedTensor) else None
