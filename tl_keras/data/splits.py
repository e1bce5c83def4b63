"""Training, validation and test splits: stratified, seeded and nested. NumPy only."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tl_keras.config import DataConfig
from tl_keras.data.examples import DatasetSource, Examples
from tl_keras.errors import ConfigError, unknown
from tl_keras.utils.text import join_names

TEST_FRACTION = 0.2
TEST_SEED = 0  # the test split does not depend on the seed of a run
MAX_LISTED = 10


@dataclass(frozen=True, eq=False)
class Splits:
    """The examples of a run, or of a data set. `validation` is None if there is none. A run scores `test` once, at the end."""

    train: Examples
    validation: Examples | None
    test: Examples


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return a random order with stratified prefixes.

    In every prefix each class is within one example of its proportion, in every contiguous block within two.

    Example j of a class with m of n examples gets the window [j n / m, (j + 1) n / m). Positions are filled earliest deadline
    first, which meets all windows (Steiner and Yeomans 1993).

    Args:
        labels: int64 (n,).
        seed: decides which examples of a class come first, and ties.

    Returns:
        A permutation of range(n), int64 (n,).
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
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


def make_splits(source: DatasetSource, config: DataConfig, seed: int) -> Splits:
    """Return the splits of a run.

    The train split of the source is put in stratified order. Its first examples are for validation, unless the source has an
    official validation split; the next ones are for training. So validation is the same for every fraction, and a larger fraction
    contains the smaller ones. Then `keep` subsamples classes. Last, `limit_train` takes a stratified part of what is left.

    Raises:
        ConfigError: A split would be empty, a class would have no training image, or `keep` is impossible.
    """
    rest = order = stratified_order(source.train.labels, seed)
    validation = source.validation
    if validation is None and config.validation_fraction > 0:
        num_validation = _count("validation_fraction", config, len(order))
        validation, rest = source.train.subset(order[:num_validation]), order[num_validation:]
    num_train = len(rest) if config.fraction == 1 else _count("fraction", config, len(order))
    train = _limit(subsample_classes(source.train.subset(rest[:num_train]), source, config.keep), config.limit_train, seed)
    _check_classes(source, train, config)
    return Splits(train, validation, _limit(source.test, config.limit_test, TEST_SEED))


def parse_keep(keep: str) -> dict[str, float]:
    """Return class or superclass -> fraction to keep, e.g. `{"cat": 0.25, "dog": 0.5}` for `cat:0.25,dog:0.5`.

    Raises:
        ConfigError: A pair is not name:fraction, a fraction is outside (0, 1], or a name occurs twice.
    """
    fractions = {}
    for pair in filter(None, keep.split(",")):
        name, _, fraction = (part.strip() for part in pair.rpartition(":"))
        try:
            fractions[name] = float(fraction) if name and name not in fractions else 0.0
        except ValueError:
            fractions[name] = 0.0
        if not 0 < fractions[name] <= 1:
            raise ConfigError(
                f"{pair.strip()}: expected different names, each with a fraction in (0, 1], e.g. cat:0.25.", setting="keep", value=keep
            )
    return fractions


def subsample_classes(train: Examples, source: DatasetSource, keep: str) -> Examples:
    """Subsample the classes or superclasses in `keep` to their fractions, rounded to the nearest image.

    Other classes are unchanged. The first examples in the order of `train` are kept, so the seed of that order decides which, and
    a larger fraction contains the smaller ones. In a stratified order the classes of a superclass keep their proportions.
    Validation examples are carved out before and are all kept.

    The splits of source report D on Oxford-IIIT Pet (1,188 cats, 2,492 dogs) with `validation_fraction=0.2`:

        ========================  ==================  ==================
        train / validation        ours                published
        ========================  ==================  ==================
        normal                    2944 / 736          2944 / 736
        dog majority, `cat:0.25`  2232 / 736          2227 / 712
        cat majority, `dog:0.25`  1448 / 736          1450 / 726
        ========================  ==================  ==================

    The published validation sizes differ between the three splits. No rule that takes a fraction of each class gives that. Rounded
    up, down or to the nearest, by class, by species or in total, all three sizes are equal and between 734 and 739. An independent
    random draw for every image could: all published sizes are within one standard deviation (24 images) of its mean.

    Raises:
        ConfigError: A name is unknown, or a class is named twice.
    """
    is_kept = np.ones(len(train), bool)
    named: dict[int, str] = {}  # label -> the name in `keep` that covers it
    for name, fraction in parse_keep(keep).items():
        labels = _labels(name, source, keep)
        if twice := [label for label in labels if label in named]:
            names = f"{named[twice[0]]} and {name}"
            raise ConfigError(f"{names} both name the class {source.class_names[twice[0]]}. Name it once.", setting="keep", value=keep)
        named |= dict.fromkeys(labels, name)
        members = np.flatnonzero(np.isin(train.labels, labels))
        is_kept[members[round(fraction * len(members)) :]] = False
    return train.subset(np.flatnonzero(is_kept))


def _labels(name: str, source: DatasetSource, keep: str) -> tuple[int, ...]:
    """Return the labels of a class or superclass. A superclass hides a class of the same name."""
    known = {**{class_name: (label,) for label, class_name in enumerate(source.class_names)}, **source.superclasses}
    if name not in known:
        raise ConfigError(str(unknown("class or superclass", name, known)), setting="keep", value=keep)
    return known[name]


def assign_splits(found: Mapping[str, Examples]) -> tuple[Splits, tuple[str, ...]]:
    """Return the splits of a data set and notes on them, given those that it has.

    Without a labelled test split, the validation split is used for testing. Without that too, a fifth of train is carved out.

    Raises:
        ConfigError: The train split is empty or unlabelled.
    """
    labelled = {name: examples for name, examples in found.items() if len(examples) and examples.labels.min() >= 0}
    if "train" not in labelled:
        raise ConfigError("The train split has no labelled images. Choose another data set or label.")
    train = labelled["train"]
    if "test" in labelled:
        return Splits(train, labelled.get("validation"), labelled["test"]), ()
    if "validation" in labelled:
        return Splits(train, None, labelled["validation"]), ("no labelled test split: the validation split is used for testing",)
    order = stratified_order(train.labels, TEST_SEED)
    num_test = max(1, round(TEST_FRACTION * len(order)))
    rest, carved = (train.subset(np.sort(part)) for part in (order[num_test:], order[:num_test]))
    note = f"no test split: {num_test} of the {len(order)} images carved out, stratified, with seed {TEST_SEED}"
    return Splits(rest, None, carved), (note,)


def _count(setting: str, config: DataConfig, num_examples: int) -> int:
    """Return the number of examples that a fraction stands for, at least one."""
    value = getattr(config, setting)
    if not (count := round(value * num_examples)):
        raise ConfigError(
            f"that is 0 of the {num_examples} images of {config.dataset}. Use a larger fraction.", setting=setting, value=value
        )
    return count


def _check_classes(source: DatasetSource, train: Examples, config: DataConfig) -> None:
    missing = [source.class_names[label] for label in source.train.class_counts if label not in train.class_counts]
    if missing:
        raise ConfigError(
            f"The {len(train)} images to train on (`fraction={config.fraction}`, `validation_fraction={config.validation_fraction}`, "
            f"`keep={config.keep}`, `limit_train={config.limit_train}`) include none of {len(missing)} of the "
            f"{len(source.train.class_counts)} classes of {source.name}: {join_names(missing, MAX_LISTED)}. Train on more images."
        )


def _limit(examples: Examples, limit: int, seed: int) -> Examples:
    """Return at most `limit` examples, stratified; 0: all."""
    return examples.subset(stratified_order(examples.labels, seed)[:limit]) if 0 < limit < len(examples) else examples
