"""Parsers of the text after the colon of a `strategy`. Each raises ValueError with what was expected."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any


def count(argument: str) -> int:
    if not argument.isdecimal():
        raise ValueError("a number of stages or epochs, e.g. last:2")
    return int(argument)


def names(argument: str) -> tuple[str, ...]:
    values = tuple(name.strip() for name in argument.split("+"))
    if not all(values) or len(set(values)) < len(values):
        raise ValueError("different names joined by +, e.g. layer1+layer2")
    return values


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


def learning_rates(argument: str) -> Mapping[str, float]:
    values = {stage: float(learning_rate) for stage, learning_rate in _pairs(argument).items()}
    if not all(0 < value < float("inf") for value in values.values()):
        raise ValueError("learning rates above 0, e.g. rates:stem=7e-3,head=1e-2,*=5e-3")
    return MappingProxyType(values)


def options(**parsers: Callable[[str], Any]) -> Callable[[str], dict[str, Any]]:
    """Return a parser of `name=value,...` that parses the value of each name with the parser of that name."""

    def parse(argument: str) -> dict[str, Any]:
        pairs = _pairs(argument)
        if unexpected := sorted(set(pairs) - set(parsers)):
            raise ValueError(f"of {', '.join(parsers)}, not {', '.join(unexpected)}")
        return {name: parsers[name](value) for name, value in pairs.items()}

    return parse
