"""Who trains, who validates, who tests: stratified, seeded and nested. NumPy alone."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_keras.config import DataConfig
from tl_keras.data.examples import Examples, Source
from tl_keras.errors import ConfigError, unknown

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
    so validation is the same for every fraction, and a larger fraction contains the smaller ones. Of that, `keep` takes its shares;
    a limit, at the end, takes each class in proportion to what is left of it.

    Raises:
        ConfigError: a split would be empty, nothing of some class would be trained on, or `keep` is impossible.
    """
    rest = order = stratified_order(source.train.labels, seed)
    validation = source.validation
    if validation is None and config.validation_fraction > 0:
        num_validation = _share("validation_fraction", config, len(order))
        validation, rest = source.train.take(order[:num_validation]), order[num_validation:]
    num_train = len(rest) if config.fraction == 1 else _share("fraction", config, len(order))
    train = _limit(keep_shares(source.train.take(rest[:num_train]), source, config.keep), config.limit_train, seed)
    _check_classes(source, train, config)
    return Splits(train, validation, _limit(source.test, config.limit_test, TEST_SEED))


def parse_keep(keep: str) -> dict[str, float]:
    """The name of each class or group of classes and the share of it to keep, from e.g. `cat:0.25,dog:0.5`.

    Raises:
        ConfigError: not name:share pairs, a share outside (0, 1], or a name that is there twice.
    """
    shares = {}
    for pair in filter(None, keep.split(",")):
        name, _, share = (part.strip() for part in pair.rpartition(":"))
        try:
            shares[name] = float(share) if name and name not in shares else 0.0
        except ValueError:
            shares[name] = 0.0
        if not 0 < shares[name] <= 1:
            raise ConfigError(
                f"{pair.strip()}: expected different names, each with a share in (0, 1], e.g. cat:0.25.", setting="keep", value=keep
            )
    return shares


def keep_shares(train: Examples, source: Source, keep: str) -> Examples:
    """Of each class or group that `keep` names, its share of the images in `train`, to the nearest image; of the others, all.

    They are the first in the order of `train`. So the choice is seeded, a larger share contains the smaller, and where that order is
    stratified, the classes of a group are thinned alike. Validation, which is carved out before, keeps all images.

    Report D's splits of Oxford-IIIT Pet (1,188 cats, 2,492 dogs), with `validation_fraction` 0.2, come out as

        ========================  ==================  ==================
        split                     train / validation  reported
        ========================  ==================  ==================
        normal                    2944 / 736          2944 / 736
        dog majority, `cat:0.25`  2232 / 736          2227 / 712
        cat majority, `dog:0.25`  1448 / 736          1450 / 726
        ========================  ==================  ==================

    The reported ones differ in validation, where every rule that gives it a share of each class, rounded up, down or to the nearest,
    by class, by species or in all, gives the three splits the same, between 734 and 739. Drawing for each image on its own whether it
    is validated, and whether it is kept, could give them: all lie within one standard deviation (24 images) of these shares.

    Raises:
        ConfigError: an unknown name, a class that is named twice, or nothing left.
    """
    taken = np.ones(len(train), bool)
    named: dict[int, str] = {}
    for name, share in parse_keep(keep).items():
        labels = _labels(name, source, keep)
        if twice := [label for label in labels if label in named]:
            names = f"{named[twice[0]]} and {name}"
            raise ConfigError(f"{names} both name the class {source.class_names[twice[0]]}. Name it once.", setting="keep", value=keep)
        named |= dict.fromkeys(labels, name)
        members = np.flatnonzero(np.isin(train.labels, labels))
        taken[members[round(share * len(members)) :]] = False
    return train.take(np.flatnonzero(taken))


def _labels(name: str, source: Source, keep: str) -> tuple[int, ...]:
    """The classes that a name of `keep` means."""
    known = {**{class_name: (label,) for label, class_name in enumerate(source.class_names)}, **source.groups}
    if name not in known:
        raise ConfigError(str(unknown("class or group of classes", name, known)), setting="keep", value=keep)
    return known[name]


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
        raise ConfigError(f"that is 0 of the {num_examples} images of {config.dataset}. Use a larger fraction.", setting=name, value=value)
    return share


def _check_classes(source: Source, train: Examples, config: DataConfig) -> None:
    missing = [source.class_names[label] for label in source.train.class_counts if label not in train.class_counts]
    if missing:
        some = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise ConfigError(
            f"The {len(train)} images to train on (`fraction={config.fraction}`, `validation_fraction={config.validation_fraction}`, "
            f"`keep={config.keep}`, `limit_train={config.limit_train}`) have none of {len(missing)} of the "
            f"{len(source.train.class_counts)} classes of {source.name}: {some}. Train on more."
        )


def _limit(examples: Examples, limit: int, seed: int) -> Examples:
    return examples.take(stratified_order(examples.labels, seed)[:limit]) if 0 < limit < len(examples) else examples
