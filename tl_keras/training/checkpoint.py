"""Exact resume: everything that the next training step depends on, in one file that is there whole or not at all."""

import json
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_keras.errors import DamagedError
from tl_keras.results.run_directory import atomic_write
from tl_keras.strategies.freezing import content

STATE = "state"
WRITING_SHARE = 0.1


def save(path: Path, variables: Sequence[keras.Variable], best: Sequence[np.ndarray], state: dict[str, Any]) -> None:
    """Write to `path` (.npz), by rename, the values of `variables` and those of the best epoch, both by position, and a JSON-able state."""
    values = [*map(content, variables), *best]
    arrays = {f"{index:05d}": value for index, value in enumerate(values)}
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays, **{STATE: np.array(json.dumps(state))})


def restore(path: Path, variables: Sequence[keras.Variable], best_of: Sequence[keras.Variable]) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Set `variables` to the values in `path`; the values of `best_of` in the best epoch, if any were saved, and the state.

    Raises:
        DamagedError: the file is truncated or holds other variables.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            state = json.loads(str(arrays[STATE]))
            values = [arrays[f"{index:05d}"] for index in range(len(arrays.files) - 1)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedError(f"Checkpoint {path} cannot be read ({error}). Delete its directory to train this run anew.") from error
    shapes = [value.shape for value in values]
    expected = [[tuple(variable.shape) for variable in kept] for kept in (variables, [*variables, *best_of])]
    if shapes not in expected:
        raise DamagedError(f"Checkpoint {path} belongs to another model. Delete its directory to train this run anew.")
    for value, variable in zip(values, variables, strict=False):
        variable.assign(value)
    return values[len(variables) :], state


class Pace:
    """Says whether to write again: the first time, and when what it took last time is at most `WRITING_SHARE` of the time since then.

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
        self._due = now + (now - started) / WRITING_SHARE
