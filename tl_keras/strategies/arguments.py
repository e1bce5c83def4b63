"""Readers of what follows the colon of `--strategy`. Each raises ValueError, which says what was expected."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any


def count(argument: str) -> int:
    if not argument.isdecimal():
        raise ValueError("a number of stages or epochs, e.g. last:2")
    return int(argument)


def names(argument: str) -> tuple[str, ...]:
    found = tuple(name.strip() for name in argument.split("+"))
    if not all(found) or len(set(found)) < len(found):
        raise ValueError("different names joined by +, e.g. layer1+layer2")
    return found


def decay(argument: str) -> float:
    factor = float(argument)
    if not 0 < factor <= 1:
        raise ValueError("a factor in (0, 1], e.g. layer_decay:0.75")
    return factor


def rank(argument: str) -> int:
    if not argument.isdecimal() or int(argument) == 0:
        raise ValueError("a rank of at least 1, e.g. lora:rank=8")
    return int(argument)


def alpha(argument: str) -> float:
    value = float(argument)
    if not 0 < value < float("inf"):
        raise ValueError("an alpha above 0, e.g. lora:rank=8,alpha=16")
    return value


def _pairs(argument: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in argument.split(",")]
    if not all(name and value for name, _, value in pairs) or len({name for name, _, _ in pairs}) < len(pairs):
        raise ValueError("different name=value pairs separated by commas")
    return {name: value for name, _, value in pairs}


def rates(argument: str) -> Mapping[str, float]:
    read = {stage: float(rate) for stage, rate in _pairs(argument).items()}
    if not all(0 < rate < float("inf") for rate in read.values()):
        raise ValueError("rates above 0, e.g. rates:stem=7e-3,head=1e-2,*=5e-3")
    return MappingProxyType(read)


def options(**readers: Callable[[str], Any]) -> Callable[[str], dict[str, Any]]:
    """A reader of `name=value,...` for the fields of a strategy, each with its own reader."""

    def read(argument: str) -> dict[str, Any]:
        pairs = _pairs(argument)
        if strange := sorted(set(pairs) - set(readers)):
            raise ValueError(f"of {', '.join(readers)}, not {', '.join(strange)}")
        return {name: readers[name](value) for name, value in pairs.items()}

    return read
