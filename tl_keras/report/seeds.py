"""One figure over several seeds: its mean, and Student's interval of it, by the standard library alone."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Several values of one figure, e.g. over seeds; `std` is that of a sample, `interval` the 95 % one of the mean."""

    num: int
    mean: float
    std: float
    interval: tuple[float, float]


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and Student's 95 % interval of the mean; the last two are NaN for a single value."""
    num, mean = len(values), statistics.fmean(values)
    if num < 2:
        return Summary(num, mean, math.nan, (math.nan, math.nan))
    std = statistics.stdev(values)
    half = student_quantile(num - 1) * std / math.sqrt(num)
    return Summary(num, mean, std, (mean - half, mean + half))


def student_quantile(degrees: int, share: float = 0.95) -> float:
    """The t for which Student's distribution has `share` of its mass in [-t, t], by bisection of the angle."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_mass(middle, degrees) < share else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _student_mass(angle: float, degrees: int) -> float:
    """Mass in [-t, t] for t = sqrt(degrees) tan(angle) (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for factor in range(2 + odd, degrees + 1, 2):
        total += term
        term *= (factor - 1) / factor * math.cos(angle) ** 2
    mass = math.sin(angle) * total
    return 2 / math.pi * (angle + mass) if odd else mass
