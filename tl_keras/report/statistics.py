"""Statistics of a report: McNemar's test, p-values over seeds, Holm's correction, and Student's interval of a mean."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from scipy import stats

EXACT_BELOW = 25  # discordant pairs; from this number on the chi-square approximation is close


def mcnemar(num_first: int, num_second: int) -> float:
    """Return the two-sided p-value of McNemar's test (1947).

    The test is the exact binomial test for fewer than `EXACT_BELOW` discordant examples. Otherwise it is the chi-square test with
    continuity correction (Edwards 1948).

    Args:
        num_first: number of examples that only the first classifier predicts correctly.
        num_second: number of examples that only the second classifier predicts correctly.
    """
    num_discordant = num_first + num_second
    if num_discordant == 0:
        return 1.0
    if num_discordant < EXACT_BELOW:
        return float(stats.binomtest(num_first, num_discordant).pvalue)
    statistic = max(0, abs(num_first - num_second) - 1) ** 2 / num_discordant
    return float(stats.chi2.sf(statistic, df=1))


def sign_flip_test(differences: np.ndarray, groups: np.ndarray, num_flips: int = 10_000) -> float:
    """Return the two-sided p-value of a paired comparison whose images belong to groups, such as patients.

    Images of one group are not independent, so whole groups change sign: their sums of differences, each with either sign at random
    (Fisher's randomization test). All signs are tried if there are at most `num_flips` of them; otherwise they are drawn with a fixed
    seed.

    Args:
        differences: int (n,), 1 where the first classifier alone is correct, -1 where the second alone is, else 0.
        groups: int (n,), number of the group of each image.
        num_flips: number of random signs.
    """
    _, members = np.unique(groups, return_inverse=True)
    sums = np.bincount(members, differences)
    sums = sums[sums != 0]
    if 2 ** len(sums) <= num_flips:
        signs = np.array(list(itertools.product((-1, 1), repeat=len(sums))))
    else:
        signs = np.random.default_rng(0).choice((-1, 1), (num_flips, len(sums)))
        signs[0] = 1  # The observed signs are one of those that were possible.
    return float((np.abs(signs @ sums) >= abs(sums.sum())).mean())


def combine_p_values(p_values: Sequence[float]) -> float:
    """Return one p-value for several seeds.

    Seeds share their test images, so their p-values are not independent. The rule of Rüger (1978) is valid under any dependence:
    n / k times the k-th smallest of n p-values. Here k is n / 2 rounded up, which gives about twice the median. A single p-value
    is returned unchanged. `scipy.stats.combine_pvalues` does not have this rule; its methods assume independence.
    """
    rank = math.ceil(len(p_values) / 2)
    return min(1.0, len(p_values) / rank * sorted(p_values)[rank - 1])


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values, in the order given, after Holm's correction for their number (1979)."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


@dataclass(frozen=True)
class Summary:
    """Mean and spread of a metric over several runs.

    Attributes:
        num_values: number of runs.
        std: sample standard deviation; NaN for a single value.
        interval: Student's 95 % interval of the mean; NaN for a single value.
    """

    num_values: int
    mean: float
    std: float
    interval: tuple[float, float]


def summarize(values: Sequence[float]) -> Summary:
    """Return the mean of `values`, their standard deviation and the interval of the mean."""
    num_values, mean = len(values), fmean(values)
    if num_values < 2:
        return Summary(num_values, mean, math.nan, (math.nan, math.nan))
    std = stdev(values)
    half_width = float(stats.t.ppf(0.975, df=num_values - 1)) * std / math.sqrt(num_values)
    return Summary(num_values, mean, std, (mean - half_width, mean + half_width))
