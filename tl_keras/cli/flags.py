"""Settings as absl flags. The fields of the configuration define them, so each setting has one home. Only this module imports absl."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from tl_keras.config import SETTINGS
from tl_keras.errors import ConfigError, unknown

FLAG_TYPES: Mapping[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
}


def as_flags(message: str) -> str:
    """Write the settings that `message` names in backticks as flags.

    >>> as_flags("Raise `cache_budget`, or use `cache=disk`.")
    'Raise --cache_budget, or use --cache=disk.'
    """
    return re.sub(r"`([a-z_]+(?:=[^`]*)?)`", r"--\1", message)


def dispatch(arguments: Sequence[str], commands: Mapping[str, Callable[[Sequence[str]], None]], usage: str, what: str) -> None:
    """Call the command named by the first argument with the other arguments; without arguments or for `--help`, print `usage`.

    Args:
        what: what the commands are called in the message for an unknown one, e.g. `verb`.

    Raises:
        ConfigError: The command is unknown; the message lists all commands.
    """
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(usage)
        return
    name, *rest = arguments
    if name not in commands:
        raise unknown(what, name, commands)
    commands[name](rest)


class CommandFlags:
    """The flags of one command.

    Args:
        usage: text that `--help` prints before the flags; its first line is the command.
        settings: names of the settings that the command takes.
        defaults: settings whose default differs from that of the configuration.
        origins: setting -> origin of its default, which `--help` prints behind it.
        extra: name -> (default, help) of flags that are not settings; the command may require one with an empty default.
        takes_operands: True if the command takes arguments that are not flags, before, between and after them.

    Attributes:
        operands: these arguments, after `parse`. What follows `--` is one, whatever it begins with.
    """

    def __init__(
        self,
        usage: str,
        *,
        settings: Sequence[str] = (),
        defaults: Mapping[str, Any] | None = None,
        origins: Mapping[str, str] | None = None,
        extra: Mapping[str, tuple[Any, str]] | None = None,
        takes_operands: bool = False,
    ):
        self._usage, self._settings, self._origins = usage, settings, origins or {}
        self._takes_operands, self.operands = takes_operands, list[str]()
        self._values = flags.FlagValues()
        self._values.set_gnu_getopt(takes_operands)
        for name in settings:
            self._define(name, (defaults or {}).get(name, SETTINGS[name].default))
        for name, (default, help) in (extra or {}).items():
            FLAG_TYPES[type(default)](name, default, help, flag_values=self._values)

    def _define(self, name: str, default: Any) -> None:
        setting = SETTINGS[name]
        if choices := setting.metadata["choices"]:
            flags.DEFINE_enum(name, default, choices, setting.metadata["help"], flag_values=self._values)
        else:
            FLAG_TYPES[type(setting.default)](name, default, setting.metadata["help"], flag_values=self._values)

    def parse(self, arguments: Sequence[str]) -> dict[str, Any] | None:
        """Return the flags given in `arguments`, without defaults. Print the help and return None if they ask for it.

        Raises:
            ConfigError: A flag is unknown, a value has the wrong type, or an argument is not a flag.
        """
        if {"--help", "-h", "-help", "--helpfull"} & set(arguments):
            print(self.help())
            return None
        try:
            self.operands = self._values(["command", *arguments])[1:]
        except flags.Error as error:
            raise ConfigError(f"{error} See --help.") from None
        if self.operands and not self._takes_operands:
            raise ConfigError(f"Unexpected argument {self.operands[0]!r}: expected flags like --name=value. See --help.")
        return {name: self.value(name) for name in self._values if self._values[name].present}

    def value(self, name: str) -> Any:
        """Return the value of a flag, given or default. The home directory is filled in for `~`, which shells leave in `--name=~/x`."""
        value = self._values[name].value
        return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value

    def help(self) -> str:
        """Return the usage, and every flag with its default and its help text."""
        lines = [self._usage.strip(), "", "flags:"]
        for name in sorted(self._values, key=self._rank):
            flag = self._values[name]
            default = "" if flag.default in ("", None) else f" [{flag.default}{self._origin(name)}]"
            lines.append(f"  --{name}{default}: {as_flags(flag.help)}")
        return "\n".join(lines)

    def _origin(self, name: str) -> str:
        return f", {self._origins[name]}" if name in self._origins else ""

    def _rank(self, name: str) -> int:
        return [*self._settings, name].index(name)
