"""Data sets `folder:PATH`: one sub-folder of images per class, optionally below train/, validation/ and test/.

Every file is read and decoded once when the folder is opened, so an unreadable image is found before training.
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_keras.config import DataConfig
from tl_keras.data.decode import decode_image, read_bytes
from tl_keras.data.examples import DatasetSource, Examples, ImageStore
from tl_keras.data.splits import assign_splits
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.utils.hashing import fingerprint
from tl_keras.utils.text import join_names

PREFIX = "folder:"
SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
MAX_LISTED = 10


@dataclass(frozen=True)
class ImageFile:
    """An image file and the split and label that its folder gives it."""

    path: Path
    split: str
    label: int


@dataclass(frozen=True)
class FileCheck:
    """Result of reading a file: SHA-256 of its content and (height, width) of the image, or an error message."""

    digest: bytes = b""
    size: tuple[int, int] = (0, 0)
    error: str = ""


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


def load(config: DataConfig, url: str = "") -> DatasetSource:
    """Find and check every image of a folder.

    Class names are the sorted names of the sub-folders. Images are sorted by path. Hidden files and files that file managers
    leave behind are ignored. `url` is unused: nothing is downloaded.

    Raises:
        ConfigError: The folder has fewer than two class sub-folders, an empty one, different ones in different splits, or a
            link to outside the folder.
        DamagedError: Files cannot be read as images. With `on_corrupt=skip` they are left out and noted instead.
    """
    root = find(config.dataset)
    folders = _split_folders(root)
    class_names = _class_names(folders)
    files = [file for split, folder in folders.items() for file in _files(folder, split, class_names, root)]
    checks = _check(files)
    errors = [check.error for check in checks if check.error]
    if errors and config.on_corrupt == "error":
        raise DamagedError(f"{_list_errors(errors)}\nReplace or remove them, or go on without them: `on_corrupt=skip`.")
    kept = [(file, check) for file, check in zip(files, checks, strict=True) if not check.error]
    return _source(config.dataset, root, class_names, kept, _notes(kept, errors))


def _split_folders(root: Path) -> dict[str, Path]:
    """Return split -> folder. Without a sub-folder train/, all of `root` is the train split."""
    names = [path.name for path in _sub_folders(root)]
    if "train" not in names:
        return {"train": root}
    splits = [SPLIT_FOLDERS.get(name, "") for name in names]
    if "" in splits or len(set(splits)) < len(splits):
        raise ConfigError(
            f"{root}: beside train/, expected at most one folder for validation (validation/, val/ or valid/) and test/; found "
            f"{join_names(names, MAX_LISTED)}. Move the others away."
        )
    return {split: root / name for split, name in zip(splits, names, strict=True)}


def _class_names(folders: Mapping[str, Path]) -> tuple[str, ...]:
    names = {split: [path.name for path in _sub_folders(folder)] for split, folder in folders.items()}
    if len(names["train"]) < 2:
        raise ConfigError(
            f"{folders['train']}: expected a sub-folder of images for each of two or more classes, found "
            f"{join_names(names['train']) or 'no sub-folder'}."
        )
    for split, found in names.items():
        if differing := sorted(set(found) ^ set(names["train"])):
            raise ConfigError(
                f"{folders[split]}: expected the classes of {folders['train']}; these are in only one: {join_names(differing, MAX_LISTED)}."
            )
    return tuple(names["train"])


def _sub_folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """Return the sorted content of a folder, without hidden files and junk."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower() not in JUNK)


def _files(folder: Path, split: str, class_names: Sequence[str], root: Path) -> Iterable[ImageFile]:
    real_root = root.resolve()
    for label, name in enumerate(class_names):
        entries = _entries(folder / name)
        if not entries:
            raise ConfigError(f"{folder / name}: the folder of the class {name!r} is empty. Add images or remove it in every split.")
        for path in entries:
            if not path.resolve().is_relative_to(real_root):
                raise ConfigError(f"{path}: a link to outside {root}. Replace it by the file itself.")
            if path.is_dir():
                raise ConfigError(f"{path}: expected an image, found a folder. Put the images of a class directly into its folder.")
            yield ImageFile(path, split, label)


def _check(files: Sequence[ImageFile]) -> list[FileCheck]:
    """Read and decode all files in parallel, with a progress line on a terminal."""
    checks = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for check in pool.map(_check_file, files):
            checks.append(check)
            if sys.stderr.isatty():
                print(f"\rChecking images: {len(checks)} of {len(files)}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return checks


def _check_file(file: ImageFile) -> FileCheck:
    try:
        content = read_bytes(file.path)
        return FileCheck(hashlib.sha256(content).digest(), decode_image(content, str(file.path)).shape[:2])
    except DamagedError as error:
        return FileCheck(error=str(error))


def _source(name: str, root: Path, class_names: tuple[str, ...], kept: CheckedFiles, notes: tuple[str, ...]) -> DatasetSource:
    found = _examples([file for file, _ in kept], {check.size for _, check in kept})
    _check_classes(found, class_names, root)
    splits, split_notes = assign_splits(found)
    parts = [part for file, check in kept for part in (str(file.path.relative_to(root)).encode(), check.digest)]
    return DatasetSource(
        name=name,
        class_names=class_names,
        train=splits.train,
        validation=splits.validation,
        test=splits.test,
        fingerprint=fingerprint("folder", parts),
        notes=(*notes, *split_notes),
    )


def _examples(files: Sequence[ImageFile], sizes: set[tuple[int, int]]) -> dict[str, Examples]:
    """Return split -> examples. `sizes` are those that occur."""
    images = ImageStore([file.path for file in files], size=next(iter(sizes)) if len(sizes) == 1 else None)
    labels = np.array([file.label for file in files], np.int64)
    splits = np.array([file.split for file in files])
    indices = {split: np.flatnonzero(splits == split) for split in dict.fromkeys(splits.tolist())}
    return {split: Examples(images, chosen, labels[chosen]) for split, chosen in indices.items()}


def _check_classes(found: Mapping[str, Examples], class_names: Sequence[str], root: Path) -> None:
    counts = found["train"].class_counts if "train" in found else {}
    if empty := [name for label, name in enumerate(class_names) if label not in counts]:
        raise ConfigError(
            f"{root}: no readable image to train on in the classes {join_names(empty, MAX_LISTED)}. Add images or remove their folders."
        )


def _notes(kept: CheckedFiles, errors: Sequence[str]) -> tuple[str, ...]:
    """Return remarks on unreadable files and on training images that occur in another split too."""
    notes = (f"skipped {_list_errors(errors)}",) if errors else ()
    trained = {check.digest for file, check in kept if file.split == "train"}
    copies = [file.path.name for file, check in kept if file.split != "train" and check.digest in trained]
    if not copies:
        return notes
    return (*notes, f"{len(copies)} images outside train are copies of training images: {join_names(copies, MAX_LISTED)}")


def _list_errors(errors: Sequence[str]) -> str:
    hidden = len(errors) - MAX_LISTED
    rest = [f"... and {hidden} more"] if hidden > 0 else []
    return "\n".join([f"{len(errors)} unreadable files:", *errors[:MAX_LISTED], *rest])
