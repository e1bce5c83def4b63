"""The layout of a folder of images: which files belong to which split and class, whatever made the folder.

Files and folders that file managers, network storage, photo tools and annotation tools leave behind are no classes and no images.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tl_keras.errors import ConfigError
from tl_keras.utils.progress import track
from tl_keras.utils.text import join_names, printable

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLIT_WORDS = {"train": TRAIN, "training": TRAIN, "validation": VALIDATION, "validate": VALIDATION, "valid": VALIDATION,
               "val": VALIDATION, "dev": VALIDATION, "test": TEST, "testing": TEST, "tests": TEST}  # fmt: skip
SPLIT_NAME = re.compile(r"([a-z]+?)[ _-]?(set|data|images|split)?", re.IGNORECASE)
# Left behind by Windows, macOS, Linux, Synology, QNAP and photo tools. Names that begin with a dot are ignored as well.
JUNK = frozenset((
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler", "system volume information", "found.000",
    "__macosx", "icon\r", "lost+found", "@eadir", "@recycle", "@recently-snapshot",
    "@sharebin", "@tmp", "#recycle", "#snapshot", "picasa.ini",
    "zbthumbnail.info", "__pycache__",
))  # fmt: skip
# Annotations, captions, settings of photo editors, and pointers of version control that lie beside images.
SIDECARS = frozenset((
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".rst", ".html", ".log", ".xmp", ".aae", ".thm", ".pp3",
    ".dop", ".lnk", ".url", ".ini", ".db", ".dvc", ".md5", ".sha256",
))  # fmt: skip
MAX_LISTED = 10


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file and the split and label that its folder or a table gives it. A table may also name a group of images."""

    path: Path
    split: str
    label: int
    group: str = ""


@dataclass(frozen=True)
class _ClassFolder:
    """The content of a folder of a class, read once: a class may have a million files.

    Attributes:
        images: sorted; all but folders and sidecar files.
        sub_folders: sorted.
        links: links to files or folders.
        sidecars: suffix -> number of sidecar files.
    """

    path: Path
    images: Sequence[Path]
    sub_folders: Sequence[Path]
    links: Sequence[Path]
    sidecars: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> "_ClassFolder":
        found = _scan(path)
        folders = {entry.name for entry in found if _is_folder(entry)}
        others = [entry for entry in found if entry.name not in folders]
        is_sidecar = [_suffix(entry.name) in SIDECARS for entry in others]
        return cls(
            path,
            images=[path / entry.name for entry, sidecar in zip(others, is_sidecar, strict=True) if not sidecar],
            sub_folders=[path / entry.name for entry in found if entry.name in folders],
            links=[path / entry.name for entry in found if entry.is_symlink()],
            sidecars=Counter(_suffix(entry.name) for entry, sidecar in zip(others, is_sidecar, strict=True) if sidecar),
        )


Classes = Mapping[str, Sequence[_ClassFolder]]  # name of a class -> its folders


@dataclass(frozen=True)
class Layout:
    """The files of a folder of images, or of a table of them.

    Attributes:
        root: the folder that holds the classes or the splits; the directory that the paths of a table begin at.
        class_names: names of the labels, sorted, in Unicode's composed form. A table may give another order.
        files: all files, class by class, each class sorted by path.
        notes: remarks on what is not used.
    """

    root: Path
    class_names: tuple[str, ...]
    files: tuple[ImageFile, ...]
    notes: tuple[str, ...]


def read_layout(root: Path, *, allow_links: bool = False, min_classes: int = 2) -> Layout:
    """Return the layout of `root`: one sub-folder per class, optionally below folders of splits.

    A folder that holds nothing but one other folder is passed through, as an unpacked archive often is one. A sub-folder is a split if
    it is named like one (`train`, `Testing`, `val_set`, ...) and holds sub-folders. A test or validation split may lack classes.

    Args:
        allow_links: True if links may lead out of the folder.
        min_classes: number of classes that are needed: 1 to score a model on them.

    Raises:
        ConfigError: The folder has fewer classes than needed, a class without files to train on, classes that train lacks, folders inside
            a class, or links that lead out of it.
    """
    top = _innermost(root)
    splits = _split_folders(top)
    folders = {split: _class_folders(folder) for split, folder in splits.items()}
    names = _class_names(folders, splits, min_classes)
    classes = {split: _read_classes(found) for split, found in folders.items()}
    files = tuple(
        ImageFile(path, split, label)
        for split, found in classes.items()
        for label, name in enumerate(names)
        for folder in found.get(name, ())
        for path in folder.images
    )
    _check_files(classes, files, names, splits)
    if not allow_links:
        _check_links(classes, root)
    return Layout(top, names, files, _notes(root, top, splits, classes))


def entries(folder: Path) -> list[Path]:
    """Return the sorted content of a folder, without hidden files and junk."""
    return [folder / entry.name for entry in _scan(folder)]


def _scan(folder: Path) -> list["os.DirEntry[str]"]:
    """Return the content of `entries`, with what the file system says of it without a further call."""
    with os.scandir(folder) as found:
        named = [entry for entry in found if not entry.name.startswith(".") and entry.name.lower() not in JUNK]
    return sorted(named, key=lambda entry: entry.name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # `is_dir` raises an error for a link to itself


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _sub_folders(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_dir()]


def _images(folder: Path) -> Iterator[Path]:
    """Yield what is no sidecar file in the folder of a class."""
    return (path for path in entries(folder) if path.suffix.lower() not in SIDECARS or path.is_dir())


def _innermost(root: Path) -> Path:
    """Return the first folder, from `root` down, that is not just the wrapper of another one with sub-folders."""
    content = [path for path in entries(root) if path.suffix.lower() not in SIDECARS]
    if len(content) != 1 or not content[0].is_dir() or _split_of(content[0]):
        return root
    inner = _innermost(content[0])
    folders = _sub_folders(inner)
    return inner if len(folders) > 1 or any(map(_split_of, folders)) else root


def split_of(name: str) -> str:
    """Return the split that is spelt `name`, e.g. `train` for `Training_Set`, or an empty string."""
    match = SPLIT_NAME.fullmatch(name)
    return SPLIT_WORDS.get(match[1].lower(), "") if match else ""


def _split_of(folder: Path) -> str:
    """Return the split that `folder` holds, or an empty string. A folder of images without sub-folders is a class of that name."""
    split = split_of(folder.name)
    return split if split and _sub_folders(folder) else ""


def _unlabelled(root: Path) -> list[Path]:
    """Return folders that are named like a split and hold images without classes, as competitions hand out their test images."""
    return [
        folder for folder in _sub_folders(root) if split_of(folder.name) and not _split_of(folder) and any(True for _ in _images(folder))
    ]


def _split_folders(root: Path) -> dict[str, Path]:
    """Return split -> folder. Without a folder of training images, all of `root` is the train split."""
    folders = _sub_folders(root)
    splits = [_split_of(folder) for folder in folders]
    if TRAIN not in splits and set(splits) != {TEST}:
        return {TRAIN: root}
    unlabelled = _unlabelled(root)
    others = [
        folder.name
        for folder, split in zip(folders, splits, strict=True)
        if not split and folder not in unlabelled and any(True for _ in _images(folder))
    ]
    used = [split for split in splits if split]
    if others or len(set(used)) < len(used):
        raise ConfigError(
            f"{printable(root)}: beside the training images, expected at most one folder for validation (e.g. validation/ or val/) and one "
            f"for testing (test/); found {join_names([printable(folder.name) for folder in folders], MAX_LISTED)}. Move the others away."
        )
    return {split: folder for folder, split in zip(folders, splits, strict=True) if split}


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    """Return class -> its folders. Names that differ in Unicode's normal form alone are one class: file systems write both."""
    found: dict[str, list[Path]] = {}
    for path in _sub_folders(folder):
        found.setdefault(unicodedata.normalize("NFC", printable(path.name)), []).append(path)
    return found


def _class_names(classes: Mapping[str, Mapping[str, object]], splits: Mapping[str, Path], min_classes: int) -> tuple[str, ...]:
    main = TRAIN if TRAIN in classes else TEST
    names = sorted(classes[main])
    if len(names) < min_classes:
        raise ConfigError(
            f"{printable(splits[main])}: expected sub-folders of images for {('one', 'two')[min_classes - 1]} or more classes, found "
            f"{join_names(names) or 'no sub-folder'}."
        )
    for split, found in classes.items():
        if unknown := sorted(set(found) - set(names)):
            raise ConfigError(
                f"{printable(splits[split])}: expected classes of {printable(splits[main])}; it lacks {join_names(unknown, MAX_LISTED)}. "
                "Add them there or move them away."
            )
    return tuple(names)


def _read_classes(found: Mapping[str, Sequence[Path]]) -> dict[str, list[_ClassFolder]]:
    """Return class -> the content of its folders."""
    tracked = track(found.items(), "reading folders", len(found), "classes")
    return {name: [_ClassFolder.read(path) for path in paths] for name, paths in tracked}


def _check_files(classes: Mapping[str, Classes], files: Sequence[ImageFile], names: Sequence[str], splits: Mapping[str, Path]) -> None:
    for folder in _all_folders(classes):
        if folder.sub_folders:
            raise ConfigError(
                f"{printable(folder.sub_folders[0])}: expected an image, found a folder. Put the images of a class right into its folder, "
                "or make each such folder a class."
            )
    trained = {file.label for file in files if file.split == TRAIN}
    if TRAIN in splits and (empty := [name for label, name in enumerate(names) if label not in trained]):
        raise ConfigError(
            f"{printable(splits[TRAIN])}: the folder of the class {empty[0]!r} {_content(splits[TRAIN] / empty[0])}. Add images or remove "
            "it in every split."
        )


def _content(folder: Path) -> str:
    """Return that the folder of a class is empty, or holds no images but other files, e.g. labels of a detector."""
    others = Counter(path.suffix.lower() for path in entries(folder)) if folder.is_dir() else Counter()
    found = ", ".join(f"{number} {kind}" for kind, number in sorted(others.items()))
    return f"holds no images, only {found}" if found else "is empty"


def _all_folders(classes: Mapping[str, Classes]) -> Iterator[_ClassFolder]:
    return (folder for found in classes.values() for part in found.values() for folder in part)


def _check_links(classes: Mapping[str, Classes], root: Path) -> None:
    """Raise ConfigError for a link out of `root`. One that leads nowhere, or to itself, is an unreadable file."""
    real_root = Path(os.path.realpath(root))
    for path in [path for folder in _all_folders(classes) for path in (folder.path, *folder.links)]:
        if not Path(os.path.realpath(path)).is_relative_to(real_root):
            raise ConfigError(
                f"{printable(path)}: a link to outside {printable(root)}. Replace it by the file itself, or allow such links with "
                "`links=anywhere`."
            )


def _notes(root: Path, top: Path, splits: Mapping[str, Path], classes: Mapping[str, Classes]) -> tuple[str, ...]:
    """Return remarks on what is passed through, and on files that are not used."""
    sidecars: Counter[str] = Counter()
    for folder in _all_folders(classes):
        sidecars.update(folder.sidecars)
    loose = [path for folder in splits.values() for path in _images(folder) if not path.is_dir()]
    unlabelled = _unlabelled(top) if top not in splits.values() else []
    return (
        *([f"the images are those of {printable(top.relative_to(root))}/"] if top != root else []),
        *(f"{printable(path.name)}/ holds images without classes, so it is not used" for path in unlabelled),
        *([f"{len(loose)} files beside the folders of the classes are not used: {_listed(loose)}"] if loose else []),
        *(
            [f"files beside the images are not read: {', '.join(f'{n} {kind}' for kind, n in sorted(sidecars.items()))}"]
            if sidecars
            else []
        ),
    )


def _listed(paths: Sequence[Path]) -> str:
    return join_names([printable(path.name) for path in paths], MAX_LISTED)
