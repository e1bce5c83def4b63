"""Data sets `csv:PATH` and `table:HASH`: a table of image files with their labels and, optionally, groups and splits.

Every file is read and decoded once when the table is opened, so an unreadable image is found before training.
"""

import os
from dataclasses import replace
from pathlib import Path

from tl_keras.config import DataConfig
from tl_keras.data import table_file
from tl_keras.data.examples import DatasetSource
from tl_keras.data.folder_layout import Layout
from tl_keras.data.image_files import CheckedFiles, make_source, read_files, relative_path, stamps
from tl_keras.data.table_file import Table
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.utils.hashing import fingerprint
from tl_keras.utils.text import join_names, printable

CSV_PREFIX = "csv:"
MAX_LISTED = 10


def find(dataset: str) -> Path:
    """Return the absolute path of `csv:PATH`.

    Raises:
        ConfigError: The file does not exist.
    """
    path = Path(dataset.removeprefix(CSV_PREFIX))  # The configuration has made it absolute.
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        raise ConfigError(f"expected a CSV file; {printable(path)} is not a file.", setting="dataset", value=dataset)
    return path


def state_of(config: DataConfig) -> int:
    """Return a number that changes with any row, and with size or time of change of any file. No image is read."""
    table = _read(config)
    return hash((table.class_names, tuple((file, stamps(file.path)) for file in table.files)))


def load(config: DataConfig, url: str = "", *, for_scoring: bool = False) -> DatasetSource:
    """Find and check every image of a table.

    Paths in messages, in the record of the split and for `group_by` are relative to the directory of the CSV file, or for `table:HASH`
    to the directory that holds all files. `url` is unused: nothing is downloaded.

    Raises:
        ConfigError: A column, a cell or all files are missing, a file is listed twice with different cells, or there is one class.
        MissingError: The directory `data_dir` has no table.
        DamagedError: The table is not one, or files are missing or cannot be read as images. With `on_corrupt=skip` such images are
            left out and noted.
    """
    table = _read(config)
    if len(table.class_names) < 2 and not for_scoring:
        raise ConfigError(
            f"the table has one class, {table.class_names[0]}. Expected two or more, or another `label_column`.",
            setting="dataset",
            value=config.dataset,
        )
    layout = _without_missing(Layout(_root(config, table), table.class_names, table.files, table.notes), config)
    kept, unreadable, notes = read_files(layout, config, layout.root / config.dataset)
    identity = _fingerprint(layout, kept)
    return make_source(config, layout, kept, unreadable=unreadable, fingerprint=identity, notes=notes, for_scoring=for_scoring)


def _read(config: DataConfig) -> Table:
    if config.dataset.startswith(table_file.PREFIX):
        return Table.read(config.data_dir or ".", config.dataset)
    return Table.from_csv(
        find(config.dataset),
        image_column=config.image_column,
        label_column=config.label_column,
        group_column=config.group_column,
        split_column=config.split_column,
    )


def _root(config: DataConfig, table: Table) -> Path:
    if config.dataset.startswith(CSV_PREFIX):
        return find(config.dataset).parent
    return Path(os.path.commonpath([file.path.parent for file in table.files]))


def _without_missing(layout: Layout, config: DataConfig) -> Layout:
    """Return `layout` without files that do not exist, with a note on them.

    Raises:
        ConfigError: No file exists.
        DamagedError: Some do not exist, and `on_corrupt` is `error`.
    """
    exists = [os.path.exists(file.path) for file in layout.files]
    if all(exists):
        return layout
    present = tuple(file for file, there in zip(layout.files, exists, strict=True) if there)
    missing = [printable(relative_path(file, layout)) for file, there in zip(layout.files, exists, strict=True) if not there]
    text = f"{len(missing)} of the {len(layout.files)} files of the table do not exist: {join_names(missing, MAX_LISTED)}"
    if not present:
        windows = " Write / instead of \\." if any("\\" in name for name in missing) else ""
        raise ConfigError(
            f"{text}. Expected absolute paths, or paths relative to {printable(layout.root)}.{windows}",
            setting="dataset",
            value=config.dataset,
        )
    if config.on_corrupt == "error":
        raise DamagedError(f"{text}. Correct or remove their rows, or go on without them: `on_corrupt=skip`.")
    return replace(layout, files=present, notes=(*layout.notes, f"skipped: {text}"))


def _fingerprint(layout: Layout, kept: CheckedFiles) -> str:
    parts = [
        part
        for file, check in kept
        for part in (
            os.fsencode(relative_path(file, layout)),
            check.digest,
            *(os.fsencode(cell) for cell in (layout.class_names[file.label], file.group, file.split)),
        )
    ]
    return fingerprint("\n".join(["table", *layout.class_names]), parts)
