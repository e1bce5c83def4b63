"""Imports TensorFlow: quietly for the command line, and without a lasting effect on loggers for library code."""

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_is_quiet = False  # set by a command line, which owns the process


def import_tensorflow() -> None:
    """Import TensorFlow and leave the levels of all loggers as they were. Its notices are printed, except after `be_quiet`."""
    if _is_quiet:
        quiet_tensorflow()
        return
    with preserve_logger_levels():
        importlib.import_module("tensorflow")


def be_quiet() -> None:
    """Let `import_tensorflow` be quiet for the rest of the process. TensorFlow is not imported."""
    global _is_quiet
    _is_quiet = True


def quiet_tensorflow() -> None:
    """Import TensorFlow without its notices and silence its loggers for the rest of the process.

    Call it once from a command line, which owns the process. Standard error of the whole process is discarded during the
    import, since the notices come from C++. Errors of the import are raised as usual.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        with _discard_standard_error():
            importlib.import_module("tensorflow")
    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS warns about its own deprecated calls
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it mistakes the functions of several runs for one that is retraced


@contextmanager
def preserve_logger_levels() -> Iterator[None]:
    """Restore the level of every existing logger, the root logger included, when the block ends."""
    loggers = [logging.root, *(logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger))]
    levels = [(logger, logger.level) for logger in loggers]
    try:
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)


@contextmanager
def _discard_standard_error() -> Iterator[None]:
    """Discard everything that the process writes to file descriptor 2, from any language."""
    sys.stderr.flush()
    original, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
        os.close(null)
