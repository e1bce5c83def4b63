"""Tables of labelled image files: read from CSV files and data frames, checked, and stored in one canonical form. No TensorFlow.

A table names its files explicitly, so any readable path is allowed, also outside the directory of the table. A folder is different:
there a link can bring in files that nobody has listed.
"""

import csv
import hashlib
import io
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.data.folder_layout import SPLIT_WORDS, TRAIN, ImageFile, split_of
from tl_keras.errors import ConfigError, DamagedError, MissingError, unknown
from tl_keras.utils.files import atomic_write
from tl_keras.utils.text import join_names, printable

PREFIX = "table:"
FILE = "data.csv"
COLUMNS = ("image", "label", "group", "split")  # of the canonical form; also the settings without `_column`
DELIMITERS = ",;\t"
MAX_BYTES = 2**28
MAX_LISTED = 10
HASH_DIGITS = 16
MISSING_TYPES = ("NAType", "NaTType")  # pandas.NA and pandas.NaT, whose comparisons have no truth value

Cells = Mapping[str, Sequence[str]]  # a column of COLUMNS -> its cells


@dataclass(frozen=True)
class Table:
    """Labelled image files.

    Attributes:
        class_names: names of the labels. Sorted as text, unless they were given in another order.
        files: the files with absolute paths, sorted by label and path, so that the order of rows does not matter.
        notes: remarks on the rows.
    """

    class_names: tuple[str, ...]
    files: tuple[ImageFile, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def from_columns(
        cls,
        frame: Any,
        *,
        image_column: str = "image",
        label_column: str = "label",
        group_column: str | None = None,
        split_column: str | None = None,
        directory: str | Path = ".",
        class_names: Sequence[str] | None = None,
    ) -> "Table":
        """Return the table of a data frame: anything with `frame[column]`, such as a dictionary of lists or a frame of pandas or Polars.

        Args:
            image_column: column of paths: text, bytes or `Path`.
            label_column: column of class names: text or whole numbers, which are names too. 2 is the class named "2".
            group_column: column of groups that stay in one split, e.g. patients. An image without a group is a group of its own.
            split_column: column with train, validation or test in any usual spelling. None: the splits are carved out.
            directory: directory that relative paths begin at.
            class_names: names of the classes in their order; default: all labels, sorted as text.

        Raises:
            ConfigError: A column or a cell is missing, a label is not in `class_names`, or a file has two labels, groups or splits.
        """
        names = _column_names(image_column, label_column, group_column, split_column)
        known = _columns_of(frame)
        cells: dict[str, list[str]] = {}
        for column, name in names.items():
            if name not in known:
                raise _no_column(column, name, known)
            cells[column] = [_text(cell, name) for cell in _cells_of(frame, name)]
        if len(lengths := {name: len(cells[column]) for column, name in names.items()}) > 1 and len(set(lengths.values())) > 1:
            raise ConfigError(f"The columns have different lengths: {join_names(f'{name} {n}' for name, n in lengths.items())}.")
        _require_groups(cells, names)
        return _build(cells, Path(directory), class_names, lambda index: f"row {index + 1}")

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        *,
        image_column: str = "image",
        label_column: str = "label",
        group_column: str | None = None,
        split_column: str | None = None,
        directory: str | Path | None = None,
        class_names: Sequence[str] | None = None,
    ) -> "Table":
        """Return the table of a CSV file. The arguments are those of `from_columns`; `directory` is by default that of the file.

        The file is UTF-8, with or without a byte-order mark. Its first line names the columns. Commas, semicolons or tabs separate
        the cells; quoted cells may contain them. Empty lines are ignored, and so are spaces around cells.

        Raises:
            ConfigError: As `from_columns`, or the file does not exist.
            DamagedError: The file is not such a table, or larger than `MAX_BYTES`.
        """
        path = Path(os.path.expanduser(path))
        if not os.path.isfile(path):
            raise ConfigError(f"Expected a CSV file; {printable(path)} is not a file.")
        names = _column_names(image_column, label_column, group_column, split_column)
        cells, lines = _parse(_decode(_read(path), path), names, path)
        cells = {column: [cell.strip() for cell in values] for column, values in cells.items()}
        _require_groups(cells, names)
        return _build(cells, path.parent if directory is None else Path(directory), class_names, lambda index: f"line {lines[index]}")

    @classmethod
    def read(cls, directory: str | Path, name: str) -> "Table":
        """Return the table `name`, e.g. `table:0123456789abcdef`, that `write_table` wrote into `directory`.

        Raises:
            MissingError: The directory has no table.
            DamagedError: It has another one.
        """
        path = Path(os.path.expanduser(directory)) / FILE
        if not os.path.isfile(path):
            raise MissingError(f"The data set {name} is not in {printable(path)}. Point `data_dir` at the directory that holds it.")
        content = _read(path)
        if _name_of(content) != name:
            raise DamagedError(
                f"{printable(path)}: expected {name}, found {_name_of(content)}. The file was changed or belongs to another data set. "
                "Make the table again, or point `data_dir` at the directory that holds it."
            )
        cells, lines = _parse(content.decode("utf-8", "surrogateescape"), dict(zip(COLUMNS, COLUMNS, strict=True)), path)
        return _build(cells, path.parent, tuple(dict.fromkeys(cells["label"])), lambda index: f"line {lines[index]}")

    @property
    def name(self) -> str:
        """The value of the setting `dataset`: `table:` and the beginning of the SHA-256 of the canonical form."""
        return _name_of(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the canonical form: a CSV file with the columns of `COLUMNS` and absolute paths."""
        text = io.StringIO()
        # All cells are quoted: the csv module leaves a carriage return in a file name bare, and reads it back as the end of a line.
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        writer.writerows((str(file.path), self.class_names[file.label], file.group, file.split) for file in self.files)
        return text.getvalue().encode("utf-8", "surrogateescape")


def write_table(directory: str | Path, table: Table) -> str:
    """Write the canonical form of `table` to `data.csv` in `directory`, and return `table.name`.

    Raises:
        ConfigError: The directory holds another table.
    """
    path, content = Path(os.path.expanduser(directory)) / FILE, table.to_bytes()
    if os.path.exists(path) and _name_of(_read(path)) != _name_of(content):
        raise ConfigError(f"{printable(path)} is another table. Choose another directory, or delete it.")
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return _name_of(content)


def _name_of(content: bytes) -> str:
    return PREFIX + hashlib.sha256(content).hexdigest()[:HASH_DIGITS]


def _column_names(image: str, label: str, group: str | None, split: str | None) -> dict[str, str]:
    """Return column -> its name, without those that are not given; ConfigError if two have one name."""
    names = {column: name for column, name in zip(COLUMNS, (image, label, group, split), strict=True) if name}
    for column in ("image", "label"):
        if column not in names:
            raise ConfigError("expected the name of a column.", setting=f"{column}_column", value="")
    first: dict[str, str] = {}
    for column, name in names.items():
        if (other := first.setdefault(name, column)) != column:
            raise ConfigError(f"`{other}_column` is the same column. Name different ones.", setting=f"{column}_column", value=name)
    return names


def _no_column(column: str, name: str, known: Iterable[str]) -> ConfigError:
    advice = " Leave it empty if there is none." if column in ("group", "split") else " The first line names the columns."
    return ConfigError(f"{unknown('column', name, known)}{advice}", setting=f"{column}_column", value=name)


def _columns_of(frame: Any) -> list[str]:
    """Return the names of the columns of a frame of pandas or Polars, or the keys of a dictionary."""
    return [name for name in (frame.columns if hasattr(frame, "columns") else frame) if isinstance(name, str)]


def _cells_of(frame: Any, name: str) -> list[Any]:
    column = frame[name]
    if isinstance(column, (str, bytes)):
        raise ConfigError(f"The column {name} is one text. Expected a sequence of cells.")
    return list(column)


def _text(cell: Any, column: str) -> str:
    """Return a cell of a data frame as text, empty if it is missing. Whole numbers are names; 3.0 is 3, as a gap makes integers floats."""
    if cell is None or type(cell).__name__ in MISSING_TYPES:
        return ""
    if isinstance(cell, (str, bytes, os.PathLike)):
        return _file_name(os.fspath(cell), column)
    if isinstance(cell, (bool, np.bool_)):
        return str(bool(cell))
    if isinstance(cell, (float, np.floating)) and np.isnan(cell):
        return ""
    if isinstance(cell, (int, np.integer)) or (isinstance(cell, (float, np.floating)) and cell.is_integer()):
        return str(int(cell))
    raise ConfigError(f"The column {column} has {cell!r:.50}. Expected text or whole numbers.")


def _file_name(text: str | bytes, column: str) -> str:
    """Return text that can be written to a file and that can name one; ConfigError otherwise."""
    try:
        text = os.fsdecode(text)
        os.fsencode(text)
        if "\0" not in text:
            return text
    except UnicodeError:
        pass
    raise ConfigError(f"The column {column} has {text!r:.50}, which is no text.")


def _read(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DamagedError(f"{printable(path)}: {size:,} bytes; a table may have at most {MAX_BYTES:,}.")
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{printable(path)} cannot be read ({error.strerror}).") from error


def _decode(content: bytes, path: Path) -> str:
    """Return UTF-8 text without its byte-order mark."""
    if b"\0" in content:
        raise DamagedError(f"{printable(path)}: expected a CSV file in UTF-8, found NUL bytes. Save it as CSV UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DamagedError(f"{printable(path)}: line {line} is not UTF-8. Save it as CSV UTF-8.") from None


def _parse(text: str, names: Mapping[str, str], path: Path) -> tuple[Cells, list[int]]:
    """Return the cells of the named columns, and the line of each row."""
    delimiter, header = _header(text, set(names.values()), path)
    for column, name in names.items():
        if header.count(name) != 1:
            raise _twice(column, name) if name in header else _no_column(column, name, filter(None, header))
    positions = [header.index(name) for name in names.values()]
    rows, lines = [], []
    reader = _reader(text, delimiter)
    try:
        next(row for row in reader if row)
        for row in reader:
            if any(row):
                row = _full(row, header, path, reader.line_num)
                rows.append([row[position] for position in positions])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DamagedError(f"{printable(path)}: line {reader.line_num} is not one of a table ({error}).") from None
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return dict(zip(names, columns, strict=True)), lines


def _reader(text: str, delimiter: str) -> Any:
    # strict: an opening quote that is never closed would swallow the rest of the file
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)


def _header(text: str, wanted: set[str], path: Path) -> tuple[str, list[str]]:
    """Return the delimiter under which the first line has the most wanted columns, then the most columns, and these columns."""
    found: list[tuple[int, int, str, list[str]]] = []
    for delimiter in DELIMITERS:
        try:
            header = [name.strip() for name in next((row for row in _reader(text, delimiter) if row), [])]
        except csv.Error:
            continue
        found.append((len(wanted & set(header)), len(header), delimiter, header))
    if not found or not (best := max(found, key=lambda entry: entry[:2]))[1]:
        raise DamagedError(f"{printable(path)}: expected a first line with the names of the columns, e.g. image,label.")
    return best[2], best[3]


def _twice(column: str, name: str) -> ConfigError:
    return ConfigError("the table has two columns of this name. Rename one.", setting=f"{column}_column", value=name)


def _full(row: list[str], header: Sequence[str], path: Path, line: int) -> list[str]:
    """Return a row with as many cells as the header. Empty cells after the last column are dropped, as some programs write them."""
    if any(row[len(header) :]):
        raise DamagedError(
            f"{printable(path)}: line {line} has {len(row)} cells, the first line {len(header)}. Quote cells that contain the delimiter."
        )
    return [*row, *[""] * (len(header) - len(row))]


def _build(cells: Cells, directory: Path, class_names: Sequence[str] | None, place: Callable[[int], str]) -> Table:
    """Return the table of these cells. `place` names a row in messages."""
    for column, what in (("image", "path"), ("label", "label")):
        _require_all(cells[column], what, place)
    labels = [unicodedata.normalize("NFC", printable(label)).strip() for label in cells["label"]]
    names = _class_names(labels, class_names)
    numbers_of = {name: label for label, name in enumerate(names)}
    groups = [group.strip() for group in cells.get("group", [""] * len(labels))]
    files = [
        ImageFile(_absolute(directory, image), split, numbers_of[label], group)
        for image, label, group, split in zip(cells["image"], labels, groups, _splits(cells, len(labels), place), strict=True)
    ]
    unique = _without_repeats(files, names)
    alone = groups.count("") if "group" in cells and any(groups) else 0
    notes = (
        *([f"{len(files) - len(unique)} rows repeat others and are used once"] if len(unique) < len(files) else []),
        *([f"{alone} images without a group are groups of their own"] if alone else []),
    )
    return Table(names, tuple(sorted(unique, key=lambda file: (file.label, str(file.path)))), notes)


def _require_all(cells: Sequence[str], what: str, place: Callable[[int], str]) -> None:
    if not cells:
        raise ConfigError("The table has no rows.")
    if empty := [place(index) for index, cell in enumerate(cells) if not cell.strip()]:
        raise ConfigError(f"{len(empty)} rows of the table have no {what}: {join_names(empty, MAX_LISTED)}. Complete or remove them.")


def _require_groups(cells: Cells, names: Mapping[str, str]) -> None:
    if "group" in names and not any(cell.strip() for cell in cells["group"]):
        raise ConfigError("the column is empty. Leave it out if there are no groups.", setting="group_column", value=names["group"])


def _class_names(labels: Sequence[str], given: Sequence[str] | None) -> tuple[str, ...]:
    found = sorted(set(labels))
    if given is None:
        return tuple(found)
    names = tuple(unicodedata.normalize("NFC", str(name)) for name in given)
    if len(set(names)) < len(names):
        raise ConfigError(f"The class names {join_names(names, MAX_LISTED)} are not all different.")
    if extra := [name for name in found if name not in names]:
        raise unknown("class", extra[0], names)
    if empty := [name for name in names if name not in found]:
        raise ConfigError(f"The table has no image of the classes {join_names(empty, MAX_LISTED)}. Leave them out of the class names.")
    return names


def _splits(cells: Cells, num_rows: int, place: Callable[[int], str]) -> list[str]:
    """Return the split of each row; without a column of splits, all rows are for training, and the others are carved out."""
    if "split" not in cells:
        return [TRAIN] * num_rows
    splits = [split_of(cell.strip()) for cell in cells["split"]]
    if wrong := [f"{cells['split'][index]!r} in {place(index)}" for index, split in enumerate(splits) if not split]:
        raise ConfigError(
            f"{len(wrong)} rows of the table have an unknown split: {join_names(wrong, MAX_LISTED)}. "
            f"Expected one of {', '.join(SPLIT_WORDS)}."
        )
    return splits


def _absolute(directory: Path, image: str) -> Path:
    return Path(os.path.abspath(os.path.join(os.path.expanduser(directory), os.path.expanduser(image))))


def _without_repeats(files: Sequence[ImageFile], names: Sequence[str]) -> list[ImageFile]:
    """Return each file once; ConfigError if one is listed with two labels, groups or splits."""
    first: dict[Path, ImageFile] = {}
    conflicts = [
        f"{printable(file.path)} ({_describe(other, names)}; {_describe(file, names)})"
        for file in files
        if (other := first.setdefault(file.path, file)) != file
    ]
    if conflicts:
        raise ConfigError(
            f"{len(conflicts)} rows list a file again with another label, group or split: {join_names(conflicts, MAX_LISTED)}. "
            "Keep one row for each file."
        )
    return list(first.values())


def _describe(file: ImageFile, names: Sequence[str]) -> str:
    return " ".join(filter(None, (names[file.label], file.group, file.split)))
