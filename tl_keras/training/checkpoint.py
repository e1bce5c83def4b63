"""Exact resume: everything that the next training step depends on, in one file that is there whole or not at all."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_keras.errors import DamagedError
from tl_keras.strategies.freezing import content
from tl_keras.utils.files import READ_ERRORS, read_npz, write_npz

MAX_WRITE_FRACTION = 0.1


def save(path: Path, variables: Sequence[keras.Variable], best_values: Sequence[np.ndarray], state: dict[str, Any]) -> None:
    """Write to `path` (.npz), by rename, the values of `variables` and those of the best epoch, both by position, and a JSON-able state."""
    values = [*map(content, variables), *best_values]
    arrays = {f"{index:05d}": value for index, value in enumerate(values)}
    write_npz(path, arrays, meta=state)


def restore(
    path: Path, variables: Sequence[keras.Variable], best_variables: Sequence[keras.Variable]
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Set `variables` to the values in `path`; the values of `best_variables` in the best epoch, if any were saved, and the state.

    Raises:
        DamagedError: the file is truncated or holds other variables.
    """
    try:
        arrays, state = read_npz(path)
        values = [arrays[f"{index:05d}"] for index in range(len(arrays))]
    except READ_ERRORS as error:
        raise DamagedError(f"Checkpoint {path} cannot be read ({error}). Delete its directory to train this run anew.") from error
    shapes = [value.shape for value in values]
    expected = [[tuple(variable.shape) for variable in kept] for kept in (variables, [*variables, *best_variables])]
    if shapes not in expected:
        raise DamagedError(f"Checkpoint {path} belongs to another model. Delete its directory to train this run anew.")
    for value, variable in zip(values, variables, strict=False):
        variable.assign(value)
    return values[len(variables) :], state


class SavePolicy:
    """Says whether to write again: the first time, and when what it took last time is at most `MAX_WRITE_FRACTION` of the time since then.

    So a large model with short epochs is not mostly written, and an interruption costs at most some ten times what writing takes.
    """

    def __init__(self) -> None:
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        return time.perf_counter() >= self._due

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around the writing."""
        started = time.perf_counter()
        yield
        now = time.perf_counter()
        self._due = now + (now - started) / MAX_WRITE_FRACTION
