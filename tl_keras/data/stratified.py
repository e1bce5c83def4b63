"""A random order with stratified prefixes. NumPy only."""

import heapq

import numpy as np


def stratified_order(labels: np.ndarray, seed: int, contents: np.ndarray | None = None) -> np.ndarray:
    """Return a random order with stratified prefixes.

    In every prefix each class is within one example of its proportion, in every contiguous block within two.

    Example j of a class with m of n examples gets the window [j n / m, (j + 1) n / m). Positions are filled earliest deadline
    first, which meets all windows (Steiner and Yeomans 1993).

    Args:
        labels: int64 (n,).
        seed: decides which examples of a class come first, and ties.
        contents: hashes of the examples, uint64 (n,), on which chance depends instead of on their positions.

    Returns:
        A permutation of range(n), int64 (n,).
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels)) if contents is None else np.argsort(_mix(contents, seed), kind="stable")
    releases, deadlines = _windows(labels[shuffled])
    by_release = iter(np.argsort(releases, kind="stable").tolist())
    upcoming = next(by_release, None)
    released: list[tuple[int, int]] = []  # heap of (deadline, example)
    order = []
    for position in range(len(labels)):
        while upcoming is not None and releases[upcoming] <= position:
            heapq.heappush(released, (deadlines[upcoming], upcoming))
            upcoming = next(by_release, None)
        order.append(heapq.heappop(released)[1])
    return shuffled[np.asarray(order, np.int64)]


def _windows(labels: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the window of each example: its first allowed position, and the position that it must precede."""
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    ranks = np.empty(len(labels), np.int64)
    ranks[np.argsort(classes, kind="stable")] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    sizes = counts[classes]
    return (ranks * len(labels) // sizes).tolist(), (-(-(ranks + 1) * len(labels) // sizes)).tolist()


def _mix(contents: np.ndarray, seed: int) -> np.ndarray:
    """Return hashes of contents and seed, uint64 (n,), by the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    words = contents ^ np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    return words
