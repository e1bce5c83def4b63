"""Who trains, who validates, who tests: stratified, seeded and nested. NumPy alone."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_keras.config import DataConfig
from tl_keras.data.examples import Examples, Source
from tl_keras.errors import ConfigError

TEST_FRACTION = 0.2
TEST_SEED = 0  # the test split is the same whatever the seed of a run


@dataclass(frozen=True, eq=False)
class Splits:
    """The examples of a run; `validation` is None where there is none. `test` is scored once, at the end."""

    train: Examples
    validation: Examples | None
    test: Examples


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order of which every prefix has, of every class, its share to within one example; every block to within two.

    The j-th of a class's m examples among n may come from place j n / m on, and must before place (j + 1) n / m; whichever must
    soonest comes next (the earliest-due-date schedule of Steiner and Yeomans 1993, which keeps all of these windows).

    Args:
        labels: int64 (n,).
        seed: decides which examples of a class come first, and ties.

    Returns:
        A permutation of range(n), int64 (n,).
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    opens, closes = _windows(labels[shuffled])
    arrivals = iter(np.argsort(opens, kind="stable").tolist())
    order, waiting, arrival = [], [], next(arrivals, None)
    for place in range(len(labels)):
        while arrival is not None and opens[arrival] <= place:
            heapq.heappush(waiting, (closes[arrival], arrival))
            arrival = next(arrivals, None)
        order.append(heapq.heappop(waiting)[1])
    return shuffled[np.asarray(order, np.int64)]


def _windows(labels: np.ndarray) -> tuple[list[int], list[int]]:
    """The first place that each example may take, and the place that it must come before, by its rank in its class."""
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    ranks = np.empty(len(labels), np.int64)
    ranks[np.argsort(classes, kind="stable")] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    sizes = counts[classes]
    return (ranks * len(labels) // sizes).tolist(), (-(-(ranks + 1) * len(labels) // sizes)).tolist()


def make_splits(source: Source, config: DataConfig, seed: int) -> Splits:
    """The splits of a run.

    In the stratified order of the train split, validation comes first (unless the source has its own), then what is trained on:
    so validation is the same for every fraction, and a larger fraction contains the smaller ones.

    Raises:
        ConfigError: a split would be empty, or nothing of some class would be trained on.
    """
    rest = order = stratified_order(source.train.labels, seed)
    validation = source.validation
    if validation is None and config.validation_fraction > 0:
        num_validation = _share("validation_fraction", config, len(order))
        validation, rest = source.train.take(order[:num_validation]), order[num_validation:]
    num_train = len(rest) if config.fraction == 1 else _share("fraction", config, len(order))
    train = source.train.take(rest[: min(num_train, config.limit_train or num_train)])
    _check_classes(source, train, config)
    return Splits(train, validation, _limit_test(source.test, config.limit_test))


def arrange(found: Mapping[str, Examples]) -> dict[str, Any]:
    """The fields train, validation, test and notes of a Source, from the splits that a data set has.

    Without a test split that is labelled, validation is the test split; without that, a fifth of train is carved out.

    Raises:
        ConfigError: the train split is empty or unlabelled.
    """
    labelled = {name: examples for name, examples in found.items() if len(examples) and examples.labels.min() >= 0}
    if "train" not in labelled:
        raise ConfigError("The train split has no labelled images. Choose another data set or label.")
    train, validation, test = (labelled.get(name) for name in ("train", "validation", "test"))
    if test is not None:
        return {"train": train, "validation": validation, "test": test, "notes": ()}
    if validation is not None:
        return {"train": train, "validation": None, "test": validation, "notes": ("no labelled test split: the validation split is it",)}
    order = stratified_order(train.labels, TEST_SEED)
    num_test = max(1, round(TEST_FRACTION * len(order)))
    rest, carved = (train.take(np.sort(part)) for part in (order[num_test:], order[:num_test]))
    note = f"no test split: {num_test} of the {len(order)} images carved out, stratified, with seed {TEST_SEED}"
    return {"train": rest, "validation": None, "test": carved, "notes": (note,)}


def _share(name: str, config: DataConfig, num_examples: int) -> int:
    value = getattr(config, name)
    if not (share := round(value * num_examples)):
        raise ConfigError(f"flag --{name}={value}: that is none of the {num_examples} images of {config.dataset}. Choose a larger share.")
    return share


def _check_classes(source: Source, train: Examples, config: DataConfig) -> None:
    missing = [source.class_names[label] for label in source.train.class_counts if label not in train.class_counts]
    if missing:
        raise ConfigError(
            f"The {len(train)} images to train on (--fraction={config.fraction}, --validation_fraction={config.validation_fraction}, "
            f"--limit_train={config.limit_train}) have none of {len(missing)} of the {len(source.train.class_counts)} classes of "
            f"{source.name}: {', '.join(missing[:10])}{', ...' if len(missing) > 10 else ''}. Train on more."
        )


def _limit_test(test: Examples, limit: int) -> Examples:
    return test.take(stratified_order(test.labels, TEST_SEED)[:limit]) if 0 < limit < len(test) else test
