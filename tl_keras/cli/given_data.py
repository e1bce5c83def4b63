"""Flags of data that a finished run takes in place of its own: for `evaluate` and `export`."""

from collections.abc import Mapping
from typing import Any

import tl_keras
from tl_keras.runs.resolve import SOURCE_SETTINGS

DATA_FLAGS = tuple(name for name in SOURCE_SETTINGS if name != "test_fraction")


def given_data(run: "tl_keras.Run", given: Mapping[str, Any]) -> "tl_keras.ImageData | None":
    """Return the images that the flags of data in `given` name, others being those of the run; None without such a flag."""
    settings = {name: value for name, value in given.items() if name in DATA_FLAGS}
    return tl_keras.ImageData(run.config.with_data(**settings).data) if settings else None
