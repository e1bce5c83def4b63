"""Data sets `folder:PATH`: one sub-folder of images per class, optionally below train/, validation/ and test/.

Every file is read and decoded once when the folder is opened, so an unreadable image is found before training.
"""

import os
import tarfile
import zipfile
from pathlib import Path

from tl_keras.config import DataConfig
from tl_keras.data.examples import DatasetSource
from tl_keras.data.folder_layout import read_layout
from tl_keras.data.image_files import make_source, read_files, relative_path, stamps
from tl_keras.errors import ConfigError
from tl_keras.utils.hashing import fingerprint
from tl_keras.utils.progress import track

PREFIX = "folder:"


def find(dataset: str) -> Path:
    """Return the absolute path of `folder:PATH`.

    Raises:
        ConfigError: The folder does not exist.
    """
    path = Path(dataset.removeprefix(PREFIX)).expanduser().absolute()
    if not path.is_dir():
        is_archive = path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))
        advice = " Unpack it first." if is_archive else ""
        raise ConfigError(f"expected a folder of class sub-folders; {path} is not a folder.{advice}", setting="dataset", value=dataset)
    return path


def state_of(config: DataConfig) -> int:
    """Return a number that changes with any name, size or time of change in the folder. No file is read."""
    state = 0
    for folder, _, _ in track(os.walk(str(find(config.dataset))), "looking for changed files", unit="folders"):
        for entry in os.scandir(folder):
            state = hash((state, entry.path, *stamps(entry.path)))
    return state


def load(config: DataConfig, url: str = "", *, for_scoring: bool = False) -> DatasetSource:
    """Find and check every image of a folder.

    `folder_layout.read_layout` says which files are images of which class. `url` is unused: nothing is downloaded.

    Raises:
        ConfigError: The layout is not one of classes, see `read_layout`.
        DamagedError: Files cannot be read as images. With `on_corrupt=skip` they are left out and noted instead.
    """
    root = find(config.dataset)
    layout = read_layout(root, allow_links=config.links == "anywhere", min_classes=1 if for_scoring else 2)
    kept, unreadable, notes = read_files(layout, config, root)
    parts = (part for file, check in kept for part in (os.fsencode(relative_path(file, layout)), check.digest))
    identity = fingerprint("folder", parts)
    return make_source(config, layout, kept, unreadable=unreadable, fingerprint=identity, notes=notes, for_scoring=for_scoring)
