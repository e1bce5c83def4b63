"""The table of learning-rate schedules: functions of the number of updates done, which return a factor on the peak learning rate.

`config` takes the values of `schedule` from it, and `training/schedules.py` evaluates the functions during a run.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

STEP_FACTOR = 0.1  # after each third of the run
ONE_CYCLE_RISE = 0.3  # fraction of the run; these three are the defaults of torch's OneCycleLR
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4

ScheduleFn = Callable[[int, int, int], float]  # (step, warmup_steps, num_steps) -> factor


def _with_warmup(decay: Callable[[float], float]) -> ScheduleFn:
    """Return a linear warm-up followed by `decay`, a function of the fraction of the remaining run that is done."""

    def schedule(step: int, warmup_steps: int, num_steps: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return decay((step - warmup_steps) / max(1, num_steps - warmup_steps))

    return schedule


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _staircase(progress: float) -> float:
    return STEP_FACTOR ** int(3 * progress)


def _one_cycle(step: int, warmup_steps: int, num_steps: int) -> float:
    peak = max(0.0, (warmup_steps or ONE_CYCLE_RISE * num_steps) - 1)
    if step < peak:
        return 1 + (ONE_CYCLE_START - 1) * _cosine(step / peak)
    return ONE_CYCLE_END + (1 - ONE_CYCLE_END) * _cosine((step - peak) / max(1.0, num_steps - 1 - peak))


SCHEDULES: Mapping[str, ScheduleFn] = MappingProxyType(
    {
        "constant": _with_warmup(lambda progress: 1.0),
        "cosine": _with_warmup(_cosine),
        "step": _with_warmup(_staircase),
        "one_cycle": _one_cycle,
        "plateau": _with_warmup(lambda progress: 1.0),
    }
)
