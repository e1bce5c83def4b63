"""Parsers of the text after the colon of a `strategy`. Each raises ValueError with what was expected."""

from collections.abc import Mapping
from types import MappingProxyType

from tl_keras.utils.arguments import pairs


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


def learning_rates(argument: str) -> Mapping[str, float]:
    values = {stage: float(learning_rate) for stage, learning_rate in pairs(argument).items()}
    if not all(0 < value < float("inf") for value in values.values()):
        raise ValueError("learning rates above 0, e.g. stem=7e-3,head=1e-2,*=5e-3")
    return MappingProxyType(values)


def reset(argument: str) -> str:
    if argument not in ("never", "phase", "epoch"):
        raise ValueError("reset=never, reset=phase or reset=epoch")
    return argument
