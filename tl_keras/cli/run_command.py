"""Runs a command and turns what the user can mend into one message and an exit code. Defects keep their traceback."""

import errno
import os
import re
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tl_keras.cli.flags import as_flags
from tl_keras.errors import UserError
from tl_keras.utils.tensorflow_import import be_quiet

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as in shells
FREE_SPACE = "Free space or choose another directory, then run the command again."
OTHER_DIRECTORY = "Choose a directory that you may write to."
OTHER_PATH = "Choose another path: each part of it but the last must be a directory."
# errno -> what the user can do. Other errors of files name the file and the error alone.
ADVICE: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOSPC: FREE_SPACE,
        errno.EDQUOT: FREE_SPACE,
        errno.EFBIG: "The system limits the size of files: see `ulimit -f`.",
        errno.EACCES: OTHER_DIRECTORY,
        errno.EPERM: OTHER_DIRECTORY,
        errno.EROFS: OTHER_DIRECTORY,
        errno.EEXIST: OTHER_PATH,
        errno.ENOTDIR: OTHER_PATH,
        errno.ENOENT: OTHER_PATH,
        errno.EISDIR: "Choose another path: a directory is there.",
        errno.ENOTEMPTY: "Choose another path: a directory is there.",
        errno.ELOOP: "A link leads back to itself: replace it.",
        errno.ENAMETOOLONG: "Choose a shorter name.",
        errno.EMFILE: "The system limits the number of open files: see `ulimit -n`.",
        errno.EIO: "The device or the network share fails: choose another directory.",
        errno.ESTALE: "The network share has changed: run the command again.",
    }
)
OUT_OF_MEMORY = "out of memory. Try a smaller `batch_size` or `image_size`, or a smaller backbone."
# TensorFlow reports errors of files with their text alone, some as exhausted resources.
MESSAGES = {os.strerror(number): number for number in ADVICE}
FILE_ERROR = re.compile("|".join(map(re.escape, MESSAGES)))


def run_command(command: Callable[[], None]) -> int:
    """Call `command` and return the exit code. TensorFlow is imported without its notices."""
    be_quiet()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack the letters of a file's name
    try:
        command()
    except UserError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:  # The reader of the pipe, e.g. head, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _fail("interrupted. The same command resumes from the last checkpoint.", EXIT_INTERRUPTED)
    except Exception as error:
        if not (message := describe_failure(error)):
            raise
        return _fail(message, 1)
    return 0


def describe_failure(error: Exception) -> str:
    """Return a message for an error of the file system or of the memory, and an empty string for a defect."""
    if isinstance(error, OSError) and (error.filename or error.errno in ADVICE):
        return _file_error(error.errno or 0, error.filename or "while writing")
    if type(error).__module__.startswith("tensorflow") and (match := FILE_ERROR.search(str(error))):
        path = re.search(r"/[^\s;:]+", str(error))
        return _file_error(MESSAGES[match[0]], path[0] if path else "while writing")
    return OUT_OF_MEMORY if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError" else ""


def _file_error(number: int, path: object) -> str:
    return f"{os.strerror(number)}: {path}. {ADVICE.get(number, '')}".rstrip()


def _fail(message: str, exit_code: int) -> int:
    sys.stdout.flush()
    print(f"error: {as_flags(message)}", file=sys.stderr)
    return exit_code
