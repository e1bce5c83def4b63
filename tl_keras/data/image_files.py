"""Data sets of image files, listed by a folder or a table: every file is checked, copies and groups are found, splits are assigned."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tl_keras.config import DataConfig
from tl_keras.data.examples import DatasetSource, Examples, ImageStore
from tl_keras.data.file_checks import FileCheck, check_files
from tl_keras.data.folder_layout import TEST, TRAIN, VALIDATION, ImageFile, Layout
from tl_keras.data.groups import connect_groups, group_names
from tl_keras.data.near_copies import THUMBNAIL_BYTES
from tl_keras.data.splits import assign_splits
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.utils.text import join_names, printable

MAX_LISTED = 10

CheckedFiles = Sequence[tuple[ImageFile, FileCheck]]
Unreadable = tuple[tuple[str, str], ...]  # path in the data set, and the reason


def stamps(path: str | Path) -> tuple[int, ...]:
    """Return numbers that change with a file, or with the one that a link leads to. An absent file has none."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_files(layout: Layout, config: DataConfig, cached_for: Path) -> tuple[CheckedFiles, Unreadable, tuple[str, ...]]:
    """Read and decode every file of `layout`. Return those that can be used, with their checks, the others, and notes on both.

    Args:
        cached_for: path that the kept results belong to.

    Raises:
        DamagedError: Files cannot be read as images. With `on_corrupt=skip` they are left out and noted instead.
    """
    checks = check_files([file.path for file in layout.files], cached_for, rehash=config.rehash)
    errors = [check.error for check in checks if check.error]
    if errors and config.on_corrupt == "error":
        raise DamagedError(f"{_list_errors(errors)}\nReplace or remove them, or go on without them: `on_corrupt=skip`.")
    checked = list(zip(layout.files, checks, strict=True))
    kept = [(file, check) for file, check in checked if not check.error]
    unreadable = tuple(_reason(file, check, layout) for file, check in checked if check.error)
    return kept, unreadable, (*layout.notes, *_notes(kept, errors))


def _reason(file: ImageFile, check: FileCheck, layout: Layout) -> tuple[str, str]:
    """Return the path of an unreadable file in the data set, and the reason, which the error names behind the whole path."""
    return printable(relative_path(file, layout)), check.error.removeprefix(f"{printable(file.path)}: ")


def relative_path(file: ImageFile, layout: Layout) -> str:
    """Return the path of a file as the data set writes it: relative to the root, with `..` if it is elsewhere."""
    path, beginning = os.fspath(file.path), os.path.join(layout.root, "")
    return path[len(beginning) :] if path.startswith(beginning) else os.path.relpath(path, layout.root)


def make_source(
    config: DataConfig,
    layout: Layout,
    kept: CheckedFiles,
    *,
    unreadable: Unreadable,
    fingerprint: str,
    notes: tuple[str, ...],
    for_scoring: bool,
) -> DatasetSource:
    """Return the data set of the files that can be used.

    Raises:
        ConfigError: A class has no image to train on, or `group_by` does not match.
    """
    paths = [printable(relative_path(file, layout)) for file, _ in kept]
    groups = group_names(paths, config.group_by, [file.group for file, _ in kept])
    found = _examples(kept, paths, groups)
    if for_scoring and found:  # a class may lack images: a model can be scored on the others
        everything = found.get(TEST) or found.get(TRAIN) or found[VALIDATION]
        found = {TRAIN: everything, TEST: everything}
    else:
        _check_classes(found, layout)
    splits, split_notes = assign_splits(found, config.test_fraction)
    return DatasetSource(
        name=config.dataset,
        class_names=layout.class_names,
        train=splits.train,
        validation=splits.validation,
        test=splits.test,
        fingerprint=fingerprint,
        notes=(*notes, *_divided(kept, groups), *split_notes),
        has_groups=any(groups),
        unreadable=unreadable,
    )


def _examples(kept: CheckedFiles, paths: Sequence[str], groups: Sequence[Sequence[str]]) -> dict[str, Examples]:
    """Return split -> examples."""
    sizes = {check.size for _, check in kept}
    digests = [check.pixels for _, check in kept]
    images = ImageStore(
        [file.path for file, _ in kept],
        size=next(iter(sizes)) if len(sizes) == 1 else None,
        paths=paths,
        digests=digests,
        groups=connect_groups(digests, groups),
        thumbnails=np.frombuffer(b"".join(check.thumbnail for _, check in kept), np.uint8).reshape(-1, THUMBNAIL_BYTES),
    )
    labels = np.array([file.label for file, _ in kept], np.int64)
    splits = np.array([file.split for file, _ in kept])
    indices = {split: np.flatnonzero(splits == split) for split in dict.fromkeys(splits.tolist())}
    return {split: Examples(images, chosen, labels[chosen]) for split, chosen in indices.items()}


def _check_classes(found: Mapping[str, Examples], layout: Layout) -> None:
    counts = found[TRAIN].class_counts if TRAIN in found else {}
    if empty := [name for label, name in enumerate(layout.class_names) if label not in counts]:
        raise ConfigError(
            f"{printable(layout.root)}: no readable image to train on in the classes {join_names(empty, MAX_LISTED)}. "
            "Add images or remove the classes."
        )


def _notes(kept: CheckedFiles, errors: Sequence[str]) -> tuple[str, ...]:
    """Return remarks on unreadable files and on training images that occur in another split too."""
    notes: tuple[str, ...] = (f"skipped {_list_errors(errors)}",) if errors else ()
    remarks: dict[str, list[str]] = {}
    for file, check in kept:
        if check.note:
            remarks.setdefault(check.note, []).append(printable(file.path.name))
    notes += tuple(f"{remark}: {join_names(names, MAX_LISTED)}" for remark, names in remarks.items())
    return (*notes, *_copies(kept))


def _copies(kept: CheckedFiles) -> tuple[str, ...]:
    """Return remarks on equal pictures: across given splits, under two labels, and those that a carved split keeps together."""
    pixels = np.frombuffer(b"".join(check.pixels for _, check in kept), "<u8")
    splits = np.array([file.split for file, _ in kept])
    leaked = _named(kept, (splits != TRAIN) & np.isin(pixels, pixels[splits == TRAIN]))
    selected = _named(kept, (splits == TEST) & np.isin(pixels, pixels[splits == VALIDATION]))
    doubtful = _named(kept, np.isin(pixels, _under_two_labels(pixels, np.array([file.label for file, _ in kept]))))
    num_copies = len(kept) - len(np.unique(pixels))
    return (
        *([f"{len(leaked)} images outside train are copies of training images: {join_names(leaked, MAX_LISTED)}"] if leaked else []),
        *([f"{len(selected)} test images are copies of validation images: {join_names(selected, MAX_LISTED)}"] if selected else []),
        *([f"{len(doubtful)} images are of one picture under two labels: {join_names(doubtful, MAX_LISTED)}"] if doubtful else []),
        *(
            [f"{num_copies} images are copies of others; a carved split keeps copies together"]
            if num_copies and not leaked and not selected
            else []
        ),
    )


def _named(kept: CheckedFiles, chosen: np.ndarray) -> list[str]:
    return [printable(kept[index][0].path.name) for index in np.flatnonzero(chosen).tolist()]


def _under_two_labels(pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the hashes that occur with more than one label, uint64 (k,)."""
    order = np.lexsort((labels, pixels))
    same = pixels[order][1:] == pixels[order][:-1]
    return np.unique(pixels[order][1:][same & (labels[order][1:] != labels[order][:-1])])


def _divided(kept: CheckedFiles, groups: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return a remark on groups whose images the given splits divide. Given splits are used as they are."""
    splits: dict[str, set[str]] = {}
    for (file, _), names in zip(kept, groups, strict=True):
        for name in names:
            splits.setdefault(name, set()).add(file.split)
    divided = sorted(name for name, found in splits.items() if len(found) > 1)
    return (f"{len(divided)} groups have images in several given splits: {join_names(divided, MAX_LISTED)}",) if divided else ()


def _list_errors(errors: Sequence[str]) -> str:
    hidden = len(errors) - MAX_LISTED
    rest = [f"... and {hidden} more"] if hidden > 0 else []
    return "\n".join([f"{len(errors)} unreadable files:", *errors[:MAX_LISTED], *rest])
