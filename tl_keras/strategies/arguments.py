"""Parsers of the text after the colon of a `strategy`. Each raises ValueError with what was expected."""

from collections.abc import Mapping
from types import MappingProxyType

from tl_keras.utils.arguments import integer, number, pairs

count = integer(0, "a number of stages or epochs, e.g. last:2")
rank = integer(1, "a rank of at least 1, e.g. lora:rank=8")
decay = number(lambda factor: 0 < factor <= 1, "a factor in (0, 1], e.g. layer_decay:0.75")
alpha = number(lambda alpha: alpha > 0, "an alpha above 0, e.g. lora:rank=8,alpha=16")
learning_rate = number(lambda value: value > 0, "learning rates above 0, e.g. stem=7e-3,head=1e-2,*=5e-3")


def names(argument: str) -> tuple[str, ...]:
    values = tuple(name.strip() for name in argument.split("+"))
    if not all(values) or len(set(values)) < len(values):
        raise ValueError("different names joined by +, e.g. layer1+layer2")
    return values


def learning_rates(argument: str) -> Mapping[str, float]:
    return MappingProxyType({stage: learning_rate(value) for stage, value in pairs(argument).items()})


def reset(argument: str) -> str:
    if argument not in ("never", "phase", "epoch"):
        raise ValueError("reset=never, reset=phase or reset=epoch")
    return argument
