"""The arguments of augmentations, with their defaults and parsers. A parser raises ValueError with the expected value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tl_keras.utils.arguments import integer, number


@dataclass(frozen=True)
class Argument:
    """An argument of an augmentation: the text of its default, and the parser of its values."""

    default: str
    parse: Callable[[str], Any]


Arguments = Mapping[str, Argument]


def _range(is_allowed: Callable[[float], bool], expected: str) -> Callable[[str], tuple[float, float]]:
    """Return a parser of LOW-HIGH, two allowed numbers in order. `expected` is its error message."""
    bound = number(is_allowed, expected)

    def parse(text: str) -> tuple[float, float]:
        low, high = (bound(part) for part in (text.split("-") if text.count("-") == 1 else ("", "")))
        if low > high:
            raise ValueError(expected)
        return low, high

    return parse


def _interpolation(text: str) -> str:
    if text not in ("nearest", "bilinear"):
        raise ValueError("interpolation=nearest or interpolation=bilinear")
    return text


def _strength(name: str) -> Argument:
    return Argument("0.2", number(lambda value: 0 <= value <= 1, f"{name} from 0 (unchanged) to 1, e.g. {name}=0.2"))


# Defaults are those of torchvision. It has none for padding, degrees and strengths, which are those of the source reports.
CROP: Arguments = MappingProxyType({"padding": Argument("4", integer(1, "a padding of at least 1 pixel, e.g. padding=4"))})
RESIZED_CROP: Arguments = MappingProxyType(
    {
        "scale": Argument("0.08-1", _range(lambda area: 0 < area <= 1, "two fractions of the area in (0, 1], e.g. scale=0.08-1")),
        "ratio": Argument("0.75-1.3333", _range(lambda ratio: ratio > 0, "two ratios of width to height above 0, e.g. ratio=0.75-1.3333")),
    }
)
ROTATE: Arguments = MappingProxyType(
    {
        "degrees": Argument("10", number(lambda degrees: 0 < degrees <= 180, "degrees in (0, 180], e.g. degrees=10")),
        "interpolation": Argument("nearest", _interpolation),
    }
)
JITTER: Arguments = MappingProxyType({name: _strength(name) for name in ("brightness", "contrast", "saturation")})
