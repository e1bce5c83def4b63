"""Exact resume: everything that the next training step depends on, in one file that is there whole or not at all."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_keras.errors import DamagedError
from tl_keras.results import atomic_write

STATE = "state"


def save(path: Path, variables: Sequence[keras.Variable], state: dict[str, Any]) -> None:
    """Write the values of `variables`, by position, and a JSON-able `state` to `path` (.npz) by rename."""
    arrays = {f"{index:05d}": variable.numpy() for index, variable in enumerate(variables)}
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays, **{STATE: np.array(json.dumps(state))})


def restore(path: Path, variables: Sequence[keras.Variable]) -> dict[str, Any]:
    """Set `variables` to the values in `path` and return the state saved with them.

    Raises:
        DamagedError: the file is truncated or holds other variables.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            state = json.loads(str(arrays[STATE]))
            values = [arrays[f"{index:05d}"] for index in range(len(variables))]
            expected_files = len(variables) + 1
            num_files = len(arrays.files)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedError(f"Checkpoint {path} cannot be read ({error}). Delete its directory to train this run anew.") from error
    if num_files != expected_files or any(value.shape != tuple(variable.shape) for value, variable in zip(values, variables, strict=True)):
        raise DamagedError(f"Checkpoint {path} belongs to another model. Delete its directory to train this run anew.")
    for value, variable in zip(values, variables, strict=True):
        variable.assign(value)
    return state
