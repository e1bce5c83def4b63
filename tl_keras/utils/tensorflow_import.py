"""Keeps TensorFlow's start-up notices from burying our own lines."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def import_tensorflow() -> None:
    """Import TensorFlow, if it is not yet, without what its C++ code prints; errors of the import itself are raised as ever."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS warns of its own deprecations
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it takes the functions of several runs for one that is traced again
    if "tensorflow" not in sys.modules:
        with _no_standard_error():
            import tensorflow  # noqa: F401


@contextmanager
def _no_standard_error() -> Iterator[None]:
    """Discard what is written to file descriptor 2, by whatever language."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
