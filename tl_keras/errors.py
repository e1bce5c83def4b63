"""Errors that a user can act on: each says what happened, what was expected and how to fix it.

Messages write settings in backticks, as `name` or `name=value`. The command line shows them as `--name=value`, prints the
message without a traceback and returns `exit_code`. Any other exception is a defect and keeps its traceback.

    0    done
    1    another error that the user can fix, e.g. a full disk
    2    a setting or an argument is impossible
    3    data, weights or a file are missing
    4    a file is damaged, or is not what it should be
    5    training cannot continue
    6    done, but files that are no images were left out
    130  interrupted
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Base of all errors that the user can fix. `exit_code` is returned by the command line.

    Example:
        >>> try:
        ...     tl_keras.RunConfig().replace(epohcs=3)
        ... except tl_keras.UserError as error:
        ...     print(str(error)[:53])
        Unknown setting 'epohcs'. Did you mean 'epochs'? Know
    """

    exit_code = 1


class ConfigError(UserError, ValueError):
    """A setting is impossible. Raised before anything expensive starts.

    Args:
        message: what was expected, and how to fix it.
        setting, value: the setting at fault, e.g. `fraction`, and the value received; the message then begins with them.
    """

    exit_code = 2

    def __init__(self, message: str, *, setting: str = "", value: object = None) -> None:
        super().__init__(f"`{setting}={value}`: {message}" if setting else message)
        self.setting, self.value, self.expected = setting, value, message


class MissingError(UserError):
    """Data or weights are absent and cannot be fetched. The message says what, where it was searched, and how to get it."""

    exit_code = 3


class DamagedError(UserError):
    """A file is not what it should be: truncated, corrupt, or with another hash."""

    exit_code = 4


class TrainingError(UserError):
    """Training cannot continue: the loss is not finite, or a frozen weight has changed."""

    exit_code = 5


class SkippedError(UserError):
    """Files were left out, and everything else was done. The message lists them."""

    exit_code = 6


MAX_KNOWN = 80  # names in a message; of a longer table the nearest are named alone


def unknown(what: str, name: str, known: Iterable[str], *, setting: str = "", value: object = None) -> ConfigError:
    """Return a ConfigError for a name that is not in a table, with the nearest and the known names.

    Args:
        what: description of the names, e.g. `backbone`.
        known: all names of the table.
        setting, value: as those of ConfigError.

    Example:
        >>> print(tl_keras.errors.unknown("optimizer", "Adam-W", ["sgd", "adam", "adamw"]))
        Unknown optimizer 'Adam-W'. Did you mean 'adamw'? Known: adam, adamw, sgd.
    """
    names = sorted(known)
    few = len(names) <= MAX_KNOWN
    listed = f"Known: {', '.join(names)}." if few else f"{len(names):,} are known, e.g. {', '.join(nearest(name, names) or names[:3])}."
    return ConfigError(f"Unknown {what} {name!r}.{did_you_mean(name, names)} {listed}", setting=setting, value=value)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question for the end of a message, with the name of `known` that is nearest to `name`; empty if none resembles it.

    Example:
        >>> tl_keras.errors.did_you_mean("epohcs", ["epochs", "seed"])
        " Did you mean 'epochs'?"
    """
    near = nearest(name, known)
    return f" Did you mean {near[0]!r}?" if near else ""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three names of `known` that resemble `name`, the nearest first. Case, spaces and hyphens do not matter."""
    plain: dict[str, str] = {}
    for candidate in known:
        plain.setdefault(_plain(candidate), candidate)
    return [plain[match] for match in difflib.get_close_matches(_plain(name), plain, n=3)]


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")
