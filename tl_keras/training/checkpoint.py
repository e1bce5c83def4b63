"""Checkpoints for exact resume: everything that the next training step depends on, in one file that is written atomically."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_keras.errors import DamagedError
from tl_keras.strategies.freezing import numpy_view
from tl_keras.utils.files import READ_ERRORS, read_npz, write_npz

MAX_WRITE_FRACTION = 0.1


def save(path: Path, variables: Sequence[keras.Variable], best_values: Sequence[np.ndarray], state: dict[str, Any]) -> None:
    """Write the values of `variables`, those of the best epoch and a JSON-able `state` to `path` (.npz)."""
    values = [*map(numpy_view, variables), *best_values]
    write_npz(path, {f"{index:05d}": value for index, value in enumerate(values)}, meta=state)


def restore(
    path: Path, variables: Sequence[keras.Variable], best_variables: Sequence[keras.Variable]
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Load `path` into `variables`.

    Returns:
        The values of `best_variables` in the best epoch (empty if none were saved), and the state.

    Raises:
        DamagedError: The file is damaged or has the values of other variables.
    """
    try:
        arrays, state = read_npz(path)
        values = [arrays[f"{index:05d}"] for index in range(len(arrays))]
    except READ_ERRORS as error:
        raise DamagedError(f"Checkpoint {path} cannot be read ({error}). Delete its directory to train this run again.") from error
    shapes = [value.shape for value in values]
    expected = [[tuple(variable.shape) for variable in saved] for saved in (variables, [*variables, *best_variables])]
    if shapes not in expected:
        raise DamagedError(f"Checkpoint {path} belongs to another model. Delete its directory to train this run again.")
    for value, variable in zip(values, variables, strict=False):
        variable.assign(value)
    return values[len(variables) :], state


class SavePolicy:
    """Decides when to write the next checkpoint, so that writing takes at most 10 % of the training time.

    The first is due at once. An interruption costs about ten times the duration of a write.
    """

    def __init__(self) -> None:
        self._next_save = 0.0

    @property
    def is_due(self) -> bool:
        return time.perf_counter() >= self._next_save

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measure the writing in this block."""
        started = time.perf_counter()
        yield
        now = time.perf_counter()
        self._next_save = now + (now - started) / MAX_WRITE_FRACTION
