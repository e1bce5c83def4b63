"""The data of a run and what has happened to them since: the one place where evaluation, resuming and finished runs compare.

A data set is known by its fingerprint. If that has changed, the images of the recorded split are looked for by their content. As
long as those that are needed are there under their labels, the recorded split is used; additions and new names change nothing.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tl_keras.data import DatasetSource, Examples, Splits
from tl_keras.errors import ConfigError
from tl_keras.results.split_record import TEST, TRAIN, UNUSED, VALIDATION, SplitRecord
from tl_keras.utils.text import join_names

ALL = (TRAIN, VALIDATION, TEST)
NAMES = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}
MAX_LISTED = 5


@dataclass(frozen=True)
class Changes:
    """Images that a data set has gained or lost since a split was recorded, by path, or by number without paths."""

    added: Sequence[str]
    removed: Sequence[str]
    renamed: Sequence[str]
    relabelled: Sequence[str]

    def __str__(self) -> str:
        parts = ((names, word) for word, names in vars(self).items() if names)
        return "; ".join(f"{len(names)} {word} ({join_names(names, MAX_LISTED)})" for names, word in parts) or "other settings of it"


def record_split(source: DatasetSource, splits: Splits) -> SplitRecord:
    """Return the record of the splits of a run. Of data sets with paths the unused images are recorded too."""
    images = splits.train.images
    parts = [(TRAIN, splits.train), (VALIDATION, splits.validation), (TEST, splits.test)]
    used = [(split, examples.indices, examples.labels) for split, examples in parts if examples]
    if images.paths:
        rest = np.setdiff1d(np.arange(len(images)), np.concatenate([indices for _, indices, _ in used]))
        used.append((UNUSED, rest, _labels(source)[rest]))
    indices = np.concatenate([part for _, part, _ in used])
    return SplitRecord(
        fingerprint=source.fingerprint,
        class_names=source.class_names,
        digests=images.digests[indices],
        labels=np.concatenate([labels for _, _, labels in used]),
        splits=np.concatenate([np.full(len(part), split, np.uint8) for split, part, _ in used]),
        paths=np.array([images.paths[index] if images.paths else "" for index in indices.tolist()]),
        groups=images.groups[indices] if source.has_groups and images.groups is not None else None,
    )


def restore_splits(record: SplitRecord, source: DatasetSource, needed: Collection[int] = ALL, run: str = "the run") -> tuple[Splits, str]:
    """Return the recorded splits of `source`, and a note on what has changed; empty if nothing has.

    Args:
        needed: splits whose images must all be there. Of the others, those that are gone are left out.
        run: name of the run for messages.

    Raises:
        ConfigError: Images of the needed splits are gone, changed or under another label.
    """
    if source.class_names != record.class_names:
        raise ConfigError(
            f"The classes of {run} are {join_names(record.class_names)}; {source.name} has {join_names(source.class_names)}. "
            "Choose a data set with the same classes, or train a new run in another `run_dir`."
        )
    found = _find(record, source)
    is_needed = np.isin(record.splits, list(needed))
    if len(lost := np.flatnonzero((found < 0) & is_needed)):
        counts = ", ".join(f"{number} {NAMES[split]}" for split in needed if (number := int((record.splits[lost] == split).sum())))
        raise ConfigError(
            f"The data set {source.name} has changed since {run} began, and {counts} images of it are not there any more: "
            f"{describe_changes(record, source)}. Put them back, or train a new run in another `run_dir`."
        )
    note = ""
    if source.fingerprint != record.fingerprint:
        changes = describe_changes(record, source)
        note = f"the data set has changed since the run began: {changes}. The images of the recorded split are used"

    def examples(split: int) -> Examples:
        chosen = (record.splits == split) & (found >= 0)
        return Examples(source.train.images, found[chosen], record.labels[chosen])

    validation = examples(VALIDATION)
    return Splits(examples(TRAIN), validation if len(validation) else None, examples(TEST)), note


def with_recorded_splits(record: SplitRecord, source: DatasetSource) -> DatasetSource:
    """Return `source` with the recorded splits instead of its own.

    Raises:
        ConfigError: Images of the record are gone, changed or under another label.
    """
    splits, note = restore_splits(record, source, run="the recorded split")
    notes = (*source.notes, *([note] if note else []))
    return replace(source, train=splits.train, validation=splits.validation, test=splits.test, notes=notes)


def require_same_split(given: SplitRecord, recorded: SplitRecord, run_dir: str) -> None:
    """Raise ConfigError if a run has put images into other splits than those that are given.

    A run may leave out images, and take its validation images out of the training images that are given.
    """
    allowed = {TRAIN: {TRAIN}, VALIDATION: {VALIDATION} if VALIDATION in given.splits else {TRAIN}, TEST: {TEST}}
    before: dict[int, set[int]] = defaultdict(set)  # copies of an image may be in several splits
    for digest, split in zip(given.digests.tolist(), given.splits.tolist(), strict=True):
        before[digest].add(split)
    pairs = zip(recorded.digests.tolist(), recorded.splits.tolist(), strict=True)
    moved = sum(split != UNUSED and not before[digest] & allowed[split] for digest, split in pairs)
    if moved:
        raise ConfigError(
            f"{run_dir} holds a run with other splits of these images: {moved} of {len(recorded.digests)} are in another one. Choose "
            "another `run_dir`, or delete this one."
        )


def describe_changes(record: SplitRecord, source: DatasetSource) -> Changes:
    """Return what has happened to the images of `source` since `record` was made."""
    images, found = source.train.images, _find(record, source)
    paths = list(images.paths) or [f"image {index}" for index in range(len(images))]
    before = [path or f"image {index}" for index, path in enumerate(record.paths.tolist())]
    kept, gone = np.flatnonzero(found >= 0).tolist(), np.flatnonzero(found < 0).tolist()
    new = np.setdiff1d(np.arange(len(images)), found).tolist() if images.paths else []  # other records hold the used images alone
    gone_contents, new_contents = set(record.digests[gone].tolist()), set(images.digests[new].tolist())
    return Changes(
        added=[paths[index] for index in new if int(images.digests[index]) not in gone_contents],
        removed=[before[index] for index in gone if int(record.digests[index]) not in new_contents],
        renamed=[before[index] for index in kept if images.paths and before[index] != paths[found[index]]],
        relabelled=[before[index] for index in gone if int(record.digests[index]) in new_contents],
    )


def _find(record: SplitRecord, source: DatasetSource) -> np.ndarray:
    """Return the index in `source` of each recorded image, int64 (n,); -1 if no image has its content and label.

    Of several copies, the one with the recorded path is preferred.
    """
    images = source.train.images
    keys = list(zip(images.digests.tolist(), _labels(source).tolist(), strict=True))
    recorded = list(zip(record.digests.tolist(), record.labels.tolist(), strict=True))
    by_path = {(key, path): index for index, (key, path) in enumerate(zip(keys, images.paths, strict=bool(images.paths)))}
    found = [by_path.get((key, path), -1) for key, path in zip(recorded, record.paths.tolist(), strict=True)]
    taken, others = set(found), defaultdict[tuple[int, int], deque[int]](deque)
    for index, key in enumerate(keys):
        if index not in taken:
            others[key].append(index)
    for number, key in enumerate(recorded):
        if found[number] < 0 and key in others and others[key]:
            found[number] = others[key].popleft()
    return np.array(found, np.int64)


def _labels(source: DatasetSource) -> np.ndarray:
    """Return the label of each image of the data set, int64 (n,); -1 for an image in no split."""
    labels = np.full(len(source.train.images), -1, np.int64)
    for examples in source.splits.values():
        labels[examples.indices] = examples.labels
    return labels
