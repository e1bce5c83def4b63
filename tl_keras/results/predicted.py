"""Predictions for images without labels: class names and probabilities, as tables and files. No TensorFlow."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tl_keras.errors import ConfigError
from tl_keras.utils.files import csv_text, write_text
from tl_keras.utils.text import plain_cell, printable

COLUMNS = ("file", "label", "confidence")
UNCERTAIN = "uncertain"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted classes of images, in their order.

    Attributes:
        files: path of each image; for arrays `image 0`, `image 1`, ...
        class_names: names of the columns of `probabilities`.
        probabilities: float32 (n, classes); each row adds up to 1.
        indices: int64 (n,), number of the predicted class: the one of highest probability.
        temperature: temperature that logits were divided by (Guo et al. 2017); None: they were not.
        skipped: file -> reason why it has no prediction.

    Example:
        >>> import numpy as np
        >>> found = Predictions(("a.png",), ("cat", "dog"), np.array([[0.25, 0.75]], np.float32), np.array([1]), None)
        >>> found.labels, found.confidences, found.top(2)
        (('dog',), array([0.75], dtype=float32), [[('dog', 0.75), ('cat', 0.25)]])
    """

    files: tuple[str, ...]
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    indices: np.ndarray
    temperature: float | None
    skipped: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"<Predictions of {len(self)} images, {len(self.class_names)} classes{skipped}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields alone, with a plain mapping of the skipped files."""
        return type(self), (*(getattr(self, name) for name in list(vars(self))[:-1]), dict(self.skipped))

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of the predicted class of each image."""
        return tuple(self.class_names[index] for index in self.indices)

    @property
    def confidences(self) -> np.ndarray:
        """Probability of the predicted class, float32 (n,)."""
        return self.probabilities[np.arange(len(self)), self.indices]

    def labels_above(self, threshold: float) -> tuple[str, ...]:
        """Return the labels, with `uncertain` in place of those whose confidence is below `threshold`."""
        pairs = zip(self.labels, self.confidences, strict=True)
        return tuple(label if confidence >= threshold else UNCERTAIN for label, confidence in pairs)

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """Return the `k` likeliest classes of each image with their probabilities, in descending order; the label comes first."""
        is_label = np.arange(len(self.class_names)) == self.indices[:, None]
        order = np.lexsort((~is_label, -self.probabilities))[:, :k]
        return [
            [(self.class_names[index], float(row[index])) for index in chosen]
            for row, chosen in zip(self.probabilities, order, strict=True)
        ]

    def to_records(self, k: int = 5, *, threshold: float = 0.0) -> list[dict[str, Any]]:
        """Return one mapping for each image, as JSON has it: file, label, confidence, and `top`, the `k` likeliest classes."""
        rows = zip(self.files, self.labels_above(threshold), self.confidences, self.top(k), strict=True)
        return [
            {"file": printable(file), "label": label, "confidence": float(confidence), "top": dict(top)}
            for file, label, confidence, top in rows
        ]

    def to_csv(self, path: str | Path, *, threshold: float = 0.0) -> None:
        """Write the table to `path`: file, label, confidence, and a column for each class. See `table_text`."""
        write_text(Path(path).expanduser(), self.table_text(threshold=threshold))

    def table_text(self, *, threshold: float = 0.0) -> str:
        """Return the table as CSV. Text that a spreadsheet would run as a formula begins with an apostrophe."""
        columns = [plain_cell(name) for name in self._columns()]
        rows = zip(self.files, self.labels_above(threshold), self.confidences, self.probabilities, strict=True)
        return csv_text(
            columns,
            (
                [plain_cell(printable(file)), plain_cell(label), f"{confidence:.6f}", *(f"{p:.6f}" for p in row)]
                for file, label, confidence, row in rows
            ),
        )

    def _columns(self) -> list[str]:
        """Return the headings. A class that is called like another column is `class NAME`."""
        return [*COLUMNS, *(f"class {name}" if name in COLUMNS else name for name in self.class_names)]

    def to_dataframe(self) -> Any:
        """Return a pandas DataFrame with the columns of `to_csv`.

        Raises:
            ConfigError: pandas is not installed.
        """
        columns = [self.files, self.labels, self.confidences, *self.probabilities.T]
        return import_pandas().DataFrame(dict(zip(self._columns(), columns, strict=True)))


def import_pandas() -> Any:
    """Return the package pandas.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module("pandas")
    except ImportError:
        raise ConfigError("a DataFrame needs pandas, which is not installed: `pip install pandas`.") from None
