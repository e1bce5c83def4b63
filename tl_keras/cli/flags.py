"""Settings <-> absl flags. The flags are made from the fields of the configuration, so each has one home; no other module imports absl."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from tl_keras.config import SETTINGS
from tl_keras.errors import ConfigError, unknown

DEFINERS = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_boolean}


def dispatch(arguments: Sequence[str], commands: Mapping[str, Callable[[Sequence[str]], None]], usage: str, kind: str) -> None:
    """Call the command that the first argument names with the rest, or print `usage` where it asks for help or there is none.

    Raises:
        ConfigError: there is no such command; the message lists them and says what `kind` they are.
    """
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(usage)
        return
    name, *rest = arguments
    if name not in commands:
        raise unknown(kind, name, commands)
    commands[name](rest)


class CommandFlags:
    """The flags of one command.

    Args:
        usage: what is printed before the flags by `--help`; its first line is the command.
        settings: names of the run settings that the command takes.
        defaults: settings whose default differs from the configuration's.
        extra: name -> (default, help) of flags that are not run settings; an empty default may be required by the command.
    """

    def __init__(
        self,
        usage: str,
        *,
        settings: Sequence[str] = (),
        defaults: Mapping[str, Any] | None = None,
        extra: Mapping[str, tuple[Any, str]] | None = None,
    ):
        self._usage, self._settings = usage, settings
        self._values = flags.FlagValues()
        for name in settings:
            self._define(name, (defaults or {}).get(name, SETTINGS[name].default))
        for name, (default, help) in (extra or {}).items():
            DEFINERS[type(default)](name, default, help, flag_values=self._values)

    def _define(self, name: str, default: Any) -> None:
        setting = SETTINGS[name]
        if choices := setting.metadata["choices"]:
            flags.DEFINE_enum(name, default, choices, setting.metadata["help"], flag_values=self._values)
        else:
            DEFINERS[setting.type](name, default, setting.metadata["help"], flag_values=self._values)

    def parse(self, arguments: Sequence[str]) -> dict[str, Any] | None:
        """The flags that `arguments` give, without defaults; None where they ask for help, which is printed.

        Raises:
            ConfigError: an unknown flag, a value of the wrong kind, or an argument that is not a flag.
        """
        if {"--help", "-h", "-help", "--helpfull"} & set(arguments):
            print(self.help())
            return None
        try:
            rest = self._values(["command", *arguments])[1:]
        except flags.Error as error:
            raise ConfigError(f"{error} See --help.") from None
        if rest:
            raise ConfigError(f"Unexpected argument {rest[0]!r}: expected flags like --name=value. See --help.")
        return {name: self._values[name].value for name in self._values if self._values[name].present}

    def value(self, name: str) -> Any:
        """The value of a flag, given or default."""
        return self._values[name].value

    def help(self) -> str:
        """The usage and every flag with its default and its help text."""
        lines = [self._usage.strip(), "", "flags:"]
        for name in sorted(self._values, key=self._rank):
            flag = self._values[name]
            default = "" if flag.default in ("", None) else f" [{flag.default}]"
            lines.append(f"  --{name}{default}: {flag.help}")
        return "\n".join(lines)

    def _rank(self, name: str) -> int:
        return [*self._settings, name].index(name)
