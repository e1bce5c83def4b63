"""Errors that a user can act on: each says what happened, what was expected and how to fix it.

The command line prints them as one message without a traceback; anything else is a defect and keeps its traceback.
"""


class UserError(Exception):
    """Base of every error that the user can mend. `exit_code` is what the command line returns."""

    exit_code = 1


class ConfigError(UserError, ValueError):
    """A setting is impossible; found before anything expensive starts."""

    exit_code = 2


class MissingError(UserError):
    """Data or weights are not at hand and cannot be fetched. The message says what, where it was looked for and how to get it."""

    exit_code = 3


class DamagedError(UserError):
    """A file is there but is not what it should be: truncated, corrupt, or with the wrong hash."""

    exit_code = 4


class TrainingError(UserError):
    """Training cannot go on: a non-finite loss, or an audit that found weights moving against the strategy."""

    exit_code = 5


def unknown(what: str, name: str, known: object) -> ConfigError:
    """A ConfigError for a name that is not in a table, with the nearest and all known names."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"Unknown {what} {name!r}.{hint} Known: {', '.join(names)}.")
