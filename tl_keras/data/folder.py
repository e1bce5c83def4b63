"""Data sets `folder:PATH`: one sub-folder of images per class, optionally below train/, validation/ and test/.

Every file is read and decoded once when the folder is opened, so an unreadable image is found before training.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tl_keras.config import DataConfig
from tl_keras.data.examples import DatasetSource, Examples, ImageStore
from tl_keras.data.file_checks import FileCheck, check_files
from tl_keras.data.folder_layout import TEST, TRAIN, VALIDATION, ImageFile, Layout, read_layout
from tl_keras.data.groups import find_groups
from tl_keras.data.splits import assign_splits
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.utils.hashing import fingerprint
from tl_keras.utils.text import join_names, printable

PREFIX = "folder:"
MAX_LISTED = 10


CheckedFiles = Sequence[tuple[ImageFile, FileCheck]]


def find(dataset: str) -> Path:
    """Return the absolute path of `folder:PATH`.

    Raises:
        ConfigError: The folder does not exist.
    """
    path = Path(dataset.removeprefix(PREFIX)).expanduser().absolute()
    if not path.is_dir():
        raise ConfigError(f"expected a folder of class sub-folders; {path} is not a folder.", setting="dataset", value=dataset)
    return path


def state_of(dataset: str) -> int:
    """Return a number that changes with any name, size or time of change in the folder. No file is read."""
    root = str(find(dataset))
    entries = (os.scandir(folder) for folder, _, _ in os.walk(root))
    return hash(tuple((entry.path, *_stamp(entry.stat(follow_symlinks=False))) for found in entries for entry in found))


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def load(config: DataConfig, url: str = "", *, for_scoring: bool = False) -> DatasetSource:
    """Find and check every image of a folder.

    `folder_layout.read_layout` says which files are images of which class. `url` is unused: nothing is downloaded.

    Raises:
        ConfigError: The layout is not one of classes, see `read_layout`.
        DamagedError: Files cannot be read as images. With `on_corrupt=skip` they are left out and noted instead.
    """
    root = find(config.dataset)
    layout = read_layout(root, allow_links=config.links == "anywhere", min_classes=1 if for_scoring else 2)
    checks = check_files([file.path for file in layout.files], root, rehash=config.rehash)
    errors = [check.error for check in checks if check.error]
    if errors and config.on_corrupt == "error":
        raise DamagedError(f"{_list_errors(errors)}\nReplace or remove them, or go on without them: `on_corrupt=skip`.")
    kept = [(file, check) for file, check in zip(layout.files, checks, strict=True) if not check.error]
    return _source(config, layout, kept, (*layout.notes, *_notes(kept, errors)), for_scoring)


def _source(config: DataConfig, layout: Layout, kept: CheckedFiles, notes: tuple[str, ...], for_scoring: bool) -> DatasetSource:
    found = _examples(layout.root, kept, config.group_by)
    if for_scoring and found:
        everything = found.get(TEST) or found.get(TRAIN) or found[VALIDATION]
        found = {TRAIN: everything, **found, TEST: everything}
    _check_classes(found, layout)
    splits, split_notes = assign_splits(found)
    parts = [part for file, check in kept for part in (os.fsencode(file.path.relative_to(layout.root)), check.digest)]
    return DatasetSource(
        name=config.dataset,
        class_names=layout.class_names,
        train=splits.train,
        validation=splits.validation,
        test=splits.test,
        fingerprint=fingerprint("folder", parts),
        notes=(*notes, *split_notes),
    )


def _examples(root: Path, kept: CheckedFiles, group_by: str) -> dict[str, Examples]:
    """Return split -> examples."""
    paths = [printable(file.path.relative_to(root)) for file, _ in kept]
    sizes = {check.size for _, check in kept}
    images = ImageStore(
        [file.path for file, _ in kept],
        size=next(iter(sizes)) if len(sizes) == 1 else None,
        paths=paths,
        digests=[check.pixels for _, check in kept],
        groups=find_groups([check.pixels for _, check in kept], paths, group_by),
    )
    labels = np.array([file.label for file, _ in kept], np.int64)
    splits = np.array([file.split for file, _ in kept])
    indices = {split: np.flatnonzero(splits == split) for split in dict.fromkeys(splits.tolist())}
    return {split: Examples(images, chosen, labels[chosen]) for split, chosen in indices.items()}


def _check_classes(found: Mapping[str, Examples], layout: Layout) -> None:
    counts = found["train"].class_counts if "train" in found else {}
    if empty := [name for label, name in enumerate(layout.class_names) if label not in counts]:
        raise ConfigError(
            f"{printable(layout.root)}: no readable image to train on in the classes {join_names(empty, MAX_LISTED)}. "
            "Add images or remove their folders."
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
    trained = {check.pixels for file, check in kept if file.split == TRAIN}
    leaked = [printable(file.path.name) for file, check in kept if file.split != TRAIN and check.pixels in trained]
    labels: dict[bytes, set[int]] = {}
    for file, check in kept:
        labels.setdefault(check.pixels, set()).add(file.label)
    doubtful = [printable(file.path.name) for file, check in kept if len(labels[check.pixels]) > 1]
    num_copies = len(kept) - len(labels)
    return (
        *([f"{len(leaked)} images outside train are copies of training images: {join_names(leaked, MAX_LISTED)}"] if leaked else []),
        *([f"{len(doubtful)} images are of one picture under two labels: {join_names(doubtful, MAX_LISTED)}"] if doubtful else []),
        *([f"{num_copies} images are copies of others; a carved split keeps copies together"] if num_copies and not leaked else []),
    )


def _list_errors(errors: Sequence[str]) -> str:
    hidden = len(errors) - MAX_LISTED
    rest = [f"... and {hidden} more"] if hidden > 0 else []
    return "\n".join([f"{len(errors)} unreadable files:", *errors[:MAX_LISTED], *rest])
