"""The grammar of settings that take arguments, `name:key=value,key=value`. Its parsers raise ValueError with the expected value."""

import math
from collections.abc import Callable
from typing import Any

from tl_keras.errors import nearest


def pairs(argument: str) -> dict[str, str]:
    """Return name -> text of `name=value,name=value`."""
    parts = [part.partition("=") for part in argument.split(",")]
    if not all(name and value for name, _, value in parts) or len({name for name, _, _ in parts}) < len(parts):
        raise ValueError("different name=value pairs separated by commas")
    return {name: value for name, _, value in parts}


def options(**parsers: Callable[[str], Any]) -> Callable[[str], dict[str, Any]]:
    """Return a parser of `name=value,...` that parses the value of each name with the parser of that name."""

    def parse(argument: str) -> dict[str, Any]:
        texts = pairs(argument)
        if unexpected := sorted(set(texts) - set(parsers)):
            near = nearest(unexpected[0], parsers)
            hint = f"; the nearest is {near[0]}" if near else ""
            raise ValueError(f"the arguments {', '.join(parsers)}, not {', '.join(unexpected)}{hint}")
        return {name: parsers[name](value) for name, value in texts.items()}

    return parse


def integer(at_least: int, expected: str) -> Callable[[str], int]:
    """Return a parser of integers of at least `at_least`, which is 0 or more. `expected` is its error message."""

    def parse(argument: str) -> int:
        if not argument.isdecimal() or int(argument) < at_least:
            raise ValueError(expected)
        return int(argument)

    return parse


def number(is_allowed: Callable[[float], bool], expected: str) -> Callable[[str], float]:
    """Return a parser of the finite numbers that `is_allowed` returns True for. `expected` is its error message."""

    def parse(argument: str) -> float:
        try:
            value = float(argument)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and is_allowed(value)):
            raise ValueError(expected)
        return value

    return parse
