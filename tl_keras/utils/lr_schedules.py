"""The table of learning-rate schedules, the text form of the setting `schedule`, and their factors on the peak learning rate.

`config` checks `schedule` with `parse`, and `training/schedules.py` evaluates the functions during a run.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from tl_keras.errors import ConfigError, unknown
from tl_keras.utils.arguments import integer, number, options

STEP_FACTOR = 0.1
ONE_CYCLE_RISE = 0.3  # fraction of the run; these three are the defaults of torch's OneCycleLR
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4


@dataclass(frozen=True)
class RunLength:
    """Lengths in steps: updates of the weights, or epochs with `schedule_interval=epoch`."""

    warmup: int
    total: int
    epoch: int


ScheduleFn = Callable[[int, RunLength], float]  # (step from 0, length) -> factor


def _with_warmup(decay: ScheduleFn) -> ScheduleFn:
    """Return a linear warm-up followed by `decay`, which gets the steps and the length of the remaining run."""

    def schedule(step: int, length: RunLength) -> float:
        if step < length.warmup:
            return (step + 1) / (length.warmup + 1)
        return decay(step - length.warmup, replace(length, warmup=0, total=max(1, length.total - length.warmup)))

    return schedule


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


_constant = _with_warmup(lambda step, length: 1.0)
_cosine = _with_warmup(lambda step, length: _half_cosine(step / length.total))


def _one_cycle(step: int, length: RunLength) -> float:
    peak = max(0.0, (length.warmup or ONE_CYCLE_RISE * length.total) - 1)
    if step < peak:
        return 1 + (ONE_CYCLE_START - 1) * _half_cosine(step / peak)
    return ONE_CYCLE_END + (1 - ONE_CYCLE_END) * _half_cosine((step - peak) / max(1.0, length.total - 1 - peak))


def _staircase(every: int = 0, factor: float = STEP_FACTOR) -> ScheduleFn:
    """Return torch's StepLR, which multiplies by `factor` after `every` epochs; 0: after each third of the run."""

    def decay(step: int, length: RunLength) -> float:
        return factor ** (step // (every * length.epoch) if every else 3 * step // length.total)

    return _with_warmup(decay)


@dataclass(frozen=True)
class Plateau:
    """A multiplication by `factor` when the validation loss stagnates: torch's ReduceLROnPlateau with its mode `min`.

    As a function it is the warm-up alone. `training/schedules.py` keeps the state and multiplies.

    Attributes:
        patience: epochs without a lower loss before the factor is applied.
        factor: factor on the learning rate.
        threshold: fraction of the lowest loss by which a loss must be lower to count.
    """

    patience: int = 5
    factor: float = 0.1
    threshold: float = 1e-4

    def __call__(self, step: int, length: RunLength) -> float:
        return _constant(step, length)


@dataclass(frozen=True)
class ScheduleSpec:
    """The text form of a schedule.

    Attributes:
        help: description for `list schedules`, the help of the setting and messages.
        create: function from the values of the options to the schedule.
        parse: parser of the options that may follow a colon; None if the schedule takes none.
    """

    help: str
    create: Callable[..., ScheduleFn]
    parse: Callable[[str], dict[str, Any]] | None = None


_factor = number(lambda value: 0 < value < 1, "a factor in (0, 1), e.g. factor=0.1")

SCHEDULES: Mapping[str, ScheduleSpec] = MappingProxyType(
    {
        "constant": ScheduleSpec("no change", lambda: _constant),
        "cosine": ScheduleSpec("falls to 0 along a cosine", lambda: _cosine),
        "step": ScheduleSpec(
            "step or step:every=N,factor=F, times F (0.1) after every N epochs, or after each third of the run without N",
            _staircase,
            options(every=integer(1, "a number of epochs of at least 1, e.g. every=7"), factor=_factor),
        ),
        "one_cycle": ScheduleSpec("rises from 1/25 and falls to 1/250,000 along cosines", lambda: _one_cycle),
        "plateau": ScheduleSpec(
            "plateau or plateau:patience=N,factor=F,threshold=T, times F (0.1) when the validation loss has not fallen by a fraction T "
            "(1e-4) for more than N (5) epochs",
            Plateau,
            options(
                patience=integer(0, "a number of epochs, e.g. patience=5"),
                factor=_factor,
                threshold=number(lambda value: 0 <= value < 1, "a fraction in [0, 1), e.g. threshold=1e-4"),
            ),
        ),
    }
)


def parse(text: str) -> ScheduleFn:
    """Return the schedule that `text` describes, e.g. `step:every=7,factor=0.1`. Raise ConfigError if there is none."""
    name, colon, argument = text.partition(":")
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES, setting="schedule", value=text)
    spec = SCHEDULES[name]
    if colon and not spec.parse:
        raise ConfigError(f"expected {name} without an argument.", setting="schedule", value=text)
    try:
        return spec.create(**(spec.parse(argument) if colon and spec.parse else {}))
    except ValueError as error:
        raise ConfigError(f"expected {error}.", setting="schedule", value=text) from None
