"""The command line: flags to arguments, results to text, errors to exit codes."""

from tl_keras.cli.verbs import main

__all__ = ["main"]
