"""Training, validation and test splits: stratified, seeded and nested, or by the streaming rule of source report D. NumPy only."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tl_keras.config import DataConfig
from tl_keras.data.carve import carve, content_order
from tl_keras.data.examples import DatasetSource, Examples
from tl_keras.errors import ConfigError, unknown
from tl_keras.utils.text import join_names

STREAMING = "streaming"
TEST_SEED = 0  # the test split does not depend on the seed of a run
MAX_LISTED = 10
ROUNDING = 1e-9  # fractions of counts that differ by less are equal: 1 - 0.9 is not 0.1 in binary


@dataclass(frozen=True, eq=False)
class Splits:
    """The examples of a run, or of a data set. `validation` is None if there is none. A run scores `test` once, at the end."""

    train: Examples
    validation: Examples | None
    test: Examples


def streaming_split(labels: np.ndarray, train_fractions: np.ndarray, validation_fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the training and of the validation examples by the streaming rule of source report D.

    The rule takes the examples in order and counts by class. The first example of a class is for training. A later one is for
    training while train / seen is below the training fraction of its class, else for validation while validation / seen is below
    `validation_fraction`. Else it is dropped. `seen` counts the earlier examples of the class, dropped ones too.

    Nothing is random, and the sizes depend only on the number of examples in each class. They are a little smaller than the
    fractions: with 0.8 and 0.2, a class of 100 examples gives 80 and 19, and one is dropped. With 0.2 and 0.2 it gives 20 and 20.

    Args:
        labels: int64 (n,).
        train_fractions: float (classes,).
        validation_fraction: the same for all classes.

    Returns:
        Two arrays int64, in ascending order.
    """
    train: list[int] = []
    validation: list[int] = []
    num_seen, num_train, num_validation = ([0] * len(train_fractions) for _ in range(3))
    train_limits, validation_limit = (train_fractions - ROUNDING).tolist(), validation_fraction - ROUNDING
    for position, label in enumerate(labels.tolist()):
        seen = num_seen[label]
        if not seen or num_train[label] / seen < train_limits[label]:
            train.append(position)
            num_train[label] += 1
        elif num_validation[label] / seen < validation_limit:
            validation.append(position)
            num_validation[label] += 1
        num_seen[label] += 1
    return np.asarray(train, np.int64), np.asarray(validation, np.int64)


def make_splits(source: DatasetSource, config: DataConfig, seed: int) -> Splits:
    """Return the splits of a run.

    `split=stratified`: the train split of the source is put in stratified order. Its first examples are for validation, unless
    the source has an official validation split; the next ones are for training. So validation is the same for every fraction, and
    a larger fraction contains the smaller ones. Then `keep` subsamples classes.

    `split=streaming`: `streaming_split` of the train split in the order of the data set, whatever the seed. The training fraction
    of a class is 1 - `validation_fraction`, times its fraction in `keep`.

    Last, `limit_train` takes a stratified part of the training examples, which depends on the seed.

    Raises:
        ConfigError: A split would be empty, a class would have no training image, `keep` is impossible, or settings exclude
            `split=streaming`.
    """
    _require_test_images(source)
    train, validation = _streaming(source, config) if config.split == STREAMING else _stratified(source, config, seed)
    train = limit(train, config.limit_train, seed)
    _check_classes(source, train, config)
    return Splits(train, validation, limit(source.test, config.limit_test, TEST_SEED))


def _require_test_images(source: DatasetSource) -> None:
    if not len(source.test):
        raise ConfigError(
            f"No image of {source.name} is left for testing: every class has one image only, or copies of one, or images of one group. "
            "Add images, or a folder test/ beside train/."
        )


def _stratified(source: DatasetSource, config: DataConfig, seed: int) -> tuple[Examples, Examples | None]:
    num_examples, validation = len(source.train), source.validation
    if validation is None and config.validation_fraction > 0:
        carved, rest = carve(source.train, _count("validation_fraction", config, num_examples), seed)
        validation = source.train.subset(carved)
    else:
        rest = content_order(source.train, seed)
    num_train = len(rest) if config.fraction == 1 else _count("fraction", config, num_examples)
    return subsample_classes(source.train.subset(rest[:num_train]), source, config.keep), validation


def _streaming(source: DatasetSource, config: DataConfig) -> tuple[Examples, Examples]:
    if source.validation is not None:
        raise ConfigError(f"{source.name} has a validation split of its own. Use `split=stratified`.", setting="split", value=STREAMING)
    kept = np.ones(len(source.class_names))
    for labels, fraction in _kept_fractions(source, config.keep):
        kept[list(labels)] = fraction
    positions = streaming_split(source.train.labels, (1 - config.validation_fraction) * kept, config.validation_fraction)
    train, validation = map(source.train.subset, positions)
    if not len(validation):
        raise ConfigError(f"no class of {source.name} has a second image, for validation.", setting="split", value=STREAMING)
    return train, validation


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
    """Subsample the classes in `keep`, and every class of the superclasses in it, to their fractions of the images in `train`.

    The number of images of each class is rounded to the nearest. Other classes are unchanged. The first examples in the order of
    `train` are kept, so the seed of that order decides which, and a larger fraction contains the smaller ones. Validation examples
    are carved out before and are all kept.

    Source report D describes the imbalanced sets of Oxford-IIIT Pet so: 20 % of each class for validation, and a quarter of the
    remaining images of each breed of cats (or of dogs) for training. That is `split=stratified`, `validation_fraction=0.2` and
    `keep=cat:0.25` (or `dog:0.25`). Validation then has 20 % of each breed to the nearest image. The code of the report has the
    rule of `streaming_split` instead, and a list of cats that is shifted by one class. The sizes, train / validation:

        ============  =======================================  ====================
        set           rule of the code and its shifted list    as described
        ============  =======================================  ====================
        dog majority  2227 / 712, as published                 2230 or 2231 / 736
        cat majority  1450 / 726, as published                 1448 or 1449 / 736
        ============  =======================================  ====================

    The larger number is for a subsampled breed of 99 images (the data set has one: Siamese, a cat, or scottish_terrier, a dog).

    Raises:
        ConfigError: A name is unknown, or a class is named twice.
    """
    is_kept = np.ones(len(train), bool)
    for labels, fraction in _kept_fractions(source, keep):
        for label in labels:
            members = np.flatnonzero(train.labels == label)
            is_kept[members[round(fraction * len(members)) :]] = False
    return train.subset(np.flatnonzero(is_kept))


def _kept_fractions(source: DatasetSource, keep: str) -> list[tuple[tuple[int, ...], float]]:
    """Return the labels and the fraction of each name in `keep`.

    Raises:
        ConfigError: A name is unknown, or a class is named twice.
    """
    named: dict[int, str] = {}  # label -> the name in `keep` that covers it
    fractions = []
    for name, fraction in parse_keep(keep).items():
        labels = _labels(name, source, keep)
        if twice := [label for label in labels if label in named]:
            names = f"{named[twice[0]]} and {name}"
            raise ConfigError(f"{names} both name the class {source.class_names[twice[0]]}. Name it once.", setting="keep", value=keep)
        named |= dict.fromkeys(labels, name)
        fractions.append((labels, fraction))
    return fractions


def _labels(name: str, source: DatasetSource, keep: str) -> tuple[int, ...]:
    """Return the labels of a class or superclass. A superclass hides a class of the same name."""
    known = {**{class_name: (label,) for label, class_name in enumerate(source.class_names)}, **source.superclasses}
    if name not in known:
        raise unknown("class or superclass", name, known, setting="keep", value=keep)
    return known[name]


def assign_splits(found: Mapping[str, Examples], test_fraction: float) -> tuple[Splits, tuple[str, ...]]:
    """Return the splits of a data set and notes on them, given those that it has.

    Without a labelled test split, the validation split is used for testing. Without that too, `test_fraction` of train is carved out.

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
    num_test = min(max(1, round(test_fraction * len(train))), len(train) - 1)
    carved, rest = (train.subset(np.sort(part)) for part in carve(train, num_test, TEST_SEED))
    note = f"no test split: {len(carved)} of the {len(train)} images carved out, stratified, with seed {TEST_SEED}"
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


def limit(examples: Examples, limit: int, seed: int) -> Examples:
    """Return at most `limit` examples, stratified; 0: all."""
    return examples.subset(content_order(examples, seed)[:limit]) if 0 < limit < len(examples) else examples


def untested_classes(test: Examples, class_names: Sequence[str], ignored: Collection[str] = ()) -> tuple[str, ...]:
    """Return a note that names the classes without a test image, or nothing. Those of `ignored` have no images at all."""
    missing = [name for label, name in enumerate(class_names) if label not in test.class_counts and name not in ignored]
    if not missing:
        return ()
    names = join_names(missing, MAX_LISTED)
    return (f"{len(missing)} of {len(class_names)} classes have no test image, so balanced accuracy is over the others: {names}",)
