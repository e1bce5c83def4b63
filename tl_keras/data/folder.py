"""`folder:PATH`: a sub-folder of images for each class, optionally under train/, validation/ and test/. Every file is checked first."""

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
from tl_keras.data.examples import Examples, Images, Source
from tl_keras.data.splits import arrange
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.utils.hashing import fingerprint

PREFIX = "folder:"
SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
MAX_NAMED = 10


@dataclass(frozen=True)
class _File:
    path: Path
    split: str
    label: int


@dataclass(frozen=True)
class _Checked:
    """What was found of a file: the SHA-256 of its content and (height, width), or what is wrong with it."""

    digest: bytes = b""
    size: tuple[int, int] = (0, 0)
    fault: str = ""


def find(dataset: str) -> Path:
    """The folder that `folder:PATH` names; ConfigError where there is none."""
    path = Path(dataset.removeprefix(PREFIX)).expanduser().absolute()
    if not path.is_dir():
        raise ConfigError(f"expected a folder of class sub-folders; {path} is none.", setting="dataset", value=dataset)
    return path


def load(config: DataConfig, url: str = "") -> Source:
    """Find and check every image.

    Class names are those of the sub-folders, sorted; so are the images. Hidden files and those that file managers leave are ignored.

    Raises:
        ConfigError: not class sub-folders of images, fewer than two, an empty one, other ones in one split than in another, or a
            link that leads out of the folder.
        DamagedError: files that are no images; with `on_corrupt` "skip" they are left out and noted.
    """
    root = find(config.dataset)
    folders = _split_folders(root)
    class_names = _class_names(folders)
    files = [file for split, folder in folders.items() for file in _files(folder, split, class_names, root)]
    checked = _check(files)
    faults = [one.fault for one in checked if one.fault]
    if faults and config.on_corrupt == "error":
        raise DamagedError(f"{_listed(faults)}\nReplace or remove them, or go on without them: `on_corrupt=skip`.")
    kept = [(file, one) for file, one in zip(files, checked, strict=True) if not one.fault]
    return _source(config.dataset, root, class_names, kept, _notes(kept, faults))


def _split_folders(root: Path) -> dict[str, Path]:
    """split -> its folder; all of `root` is the train split where it has no sub-folder train/."""
    names = [path.name for path in _sub_folders(root)]
    if "train" not in names:
        return {"train": root}
    splits = [SPLIT_FOLDERS.get(name, "") for name in names]
    if "" in splits or len(set(splits)) < len(splits):
        raise ConfigError(
            f"{root}: beside train/, expected at most one folder for validation (validation/, val/ or valid/) and test/; found "
            f"{', '.join(names)}. Move the others away."
        )
    return {split: root / name for split, name in zip(splits, names, strict=True)}


def _class_names(folders: Mapping[str, Path]) -> tuple[str, ...]:
    names = {split: [path.name for path in _sub_folders(folder)] for split, folder in folders.items()}
    if len(names["train"]) < 2:
        raise ConfigError(
            f"{folders['train']}: expected a sub-folder of images for each of two or more classes, found "
            f"{', '.join(names['train']) or 'no sub-folder'}."
        )
    for split, found in names.items():
        if other := sorted(set(found) ^ set(names["train"])):
            raise ConfigError(f"{folders[split]}: expected the classes of {folders['train']}; these are in only one: {_some(other)}.")
    return tuple(names["train"])


def _sub_folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted, without hidden files and junk."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower() not in JUNK)


def _files(folder: Path, split: str, class_names: Sequence[str], root: Path) -> Iterable[_File]:
    inside = root.resolve()
    for label, name in enumerate(class_names):
        entries = _entries(folder / name)
        if not entries:
            raise ConfigError(f"{folder / name}: the folder of the class {name!r} is empty. Add images or remove it in every split.")
        for path in entries:
            if not path.resolve().is_relative_to(inside):
                raise ConfigError(f"{path}: a link that leads out of {root}. Put the file itself there.")
            if path.is_dir():
                raise ConfigError(f"{path}: expected an image, found a folder. The images of a class lie directly in its folder.")
            yield _File(path, split, label)


def _check(files: Sequence[_File]) -> list[_Checked]:
    """Read and decode every file, in parallel."""
    checked = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for one in pool.map(_check_file, files):
            checked.append(one)
            if sys.stderr.isatty():
                print(f"\rChecking images: {len(checked)} of {len(files)}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return checked


def _check_file(file: _File) -> _Checked:
    try:
        content = read_bytes(file.path)
        return _Checked(hashlib.sha256(content).digest(), decode_image(content, str(file.path)).shape[:2])
    except DamagedError as error:
        return _Checked(fault=str(error))


def _source(name: str, root: Path, class_names: tuple[str, ...], kept: Sequence[tuple[_File, _Checked]], notes: tuple[str, ...]) -> Source:
    files = [file for file, _ in kept]
    sizes = {one.size for _, one in kept}
    images = Images([file.path for file in files], size=sizes.pop() if len(sizes) == 1 else None)
    labels = np.array([file.label for file in files], np.int64)
    found = {}
    for split in {file.split: None for file in files}:
        indices = np.array([index for index, file in enumerate(files) if file.split == split])
        found[split] = Examples(images, indices, labels[indices])
    _check_classes(found, class_names, root)
    parts = [part for file, one in kept for part in (str(file.path.relative_to(root)).encode(), one.digest)]
    arranged = arrange(found)
    arranged["notes"] = (*notes, *arranged["notes"])
    return Source(name=name, class_names=class_names, fingerprint=fingerprint("folder", parts), **arranged)


def _check_classes(found: Mapping[str, Examples], class_names: Sequence[str], root: Path) -> None:
    counts = found["train"].class_counts if "train" in found else {}
    if empty := [name for label, name in enumerate(class_names) if label not in counts]:
        raise ConfigError(f"{root}: no readable image to train on in the classes {_some(empty)}. Add images or remove their folders.")


def _notes(kept: Sequence[tuple[_File, _Checked]], faults: Sequence[str]) -> tuple[str, ...]:
    """What to say of unreadable files, and of images that lie in more than one split."""
    notes = (f"skipped {_listed(faults)}",) if faults else ()
    trained = {one.digest for file, one in kept if file.split == "train"}
    copies = [file.path.name for file, one in kept if file.split != "train" and one.digest in trained]
    return (*notes, f"{len(copies)} images outside train are copies of training images: {_some(copies)}") if copies else notes


def _listed(faults: Sequence[str]) -> str:
    more = f"\n... and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
    return f"{len(faults)} unreadable files:\n" + "\n".join(faults[:MAX_NAMED]) + more


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
