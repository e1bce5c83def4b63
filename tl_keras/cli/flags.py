"""Settings as absl flags. The fields of the configuration define them, so each setting has one home. Only this module imports absl."""

import dataclasses
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from tl_keras.config import GROUPS, SETTINGS
from tl_keras.errors import ConfigError, nearest, unknown

FLAG_TYPES: Mapping[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
}

FEW_FLAGS = 15  # a message lists so many
MOST_USED = "most used"
# Heading of the help -> the settings below it. Those that are most used are listed once.
HEADINGS: Mapping[str, Sequence[str]] = {
    MOST_USED: (
        "dataset",
        "backbone",
        "weights",
        "strategy",
        "epochs",
        "learning_rate",
        "batch_size",
        "image_size",
        "augmentation",
        "limit_train",
        "seed",
    ),
    "data (which images, and their augmentation)": [item.name for item in dataclasses.fields(GROUPS["data"])],
    "model (its backbone, initial weights and input)": [item.name for item in dataclasses.fields(GROUPS["model"])],
    "training (what is trained, with which optimizer, for how long)": [item.name for item in dataclasses.fields(GROUPS["train"])],
    "runtime (arithmetic, devices and caches)": [item.name for item in dataclasses.fields(GROUPS["runtime"])],
}

_flag_names = set(SETTINGS)  # and the other flags of the commands of this process


def as_flags(message: str) -> str:
    """Write the settings that `message` names in backticks as flags. Other names in backticks stay, such as that of a class.

    >>> as_flags("Raise `cache_budget`, or use `cache=disk` for `rm`.")
    'Raise --cache_budget, or use --cache=disk for `rm`.'
    """
    # The backtick that ends a value is followed by neither a letter nor another one, so the value may contain some.
    return re.sub(
        r"`(\w+)((?:=.*?)?)`(?![\w`])",
        lambda match: f"--{match[1]}{match[2]}" if match[1] in _flag_names else match[0],
        message,
        flags=re.DOTALL,
    )


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
        defaults: settings whose default differs from that of the configuration; None: it is not known before, and `--help` shows none.
        origins: setting -> origin of its default, which `--help` prints behind it.
        extra: name -> (default, help) of flags that are not settings; the command may require one with an empty default.
        takes_operands: True if the command takes arguments that are not flags, before, between and after them.
        examples: command lines that `--help` prints before the flags.

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
        examples: Sequence[str] = (),
    ):
        self._usage, self._settings, self._origins, self._examples = usage, settings, origins or {}, examples
        self._takes_operands, self.operands = takes_operands, list[str]()
        self._values = flags.FlagValues()
        self._values.set_gnu_getopt(takes_operands)
        for name in settings:
            self._define(name, (defaults or {}).get(name, SETTINGS[name].default))
        self._order = list(extra or ())
        _flag_names.update(self._order)
        for name, (default, help) in (extra or {}).items():
            FLAG_TYPES[type(default)](name, default, help, flag_values=self._values)

    def _define(self, name: str, default: Any) -> None:
        setting = SETTINGS[name]
        choices = f"<{'|'.join(setting.metadata['choices'])}>: " if setting.metadata["choices"] else ""
        FLAG_TYPES[type(setting.default)](name, default, choices + setting.metadata["help"], flag_values=self._values)

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
        except flags.UnrecognizedFlagError as error:
            raise self._unknown_flag(error.flagname) from None
        except flags.Error as error:
            raise ConfigError(f"{error} See --help.") from None
        if self.operands and not self._takes_operands:
            raise ConfigError(f"Unexpected argument {self.operands[0]!r}: expected flags like --name=value. See --help.")
        return {name: self.value(name) for name in self._values if self._values[name].present}

    def value(self, name: str) -> Any:
        """Return the value of a flag, given or default. The home directory is filled in for `~`, which shells leave in `--name=~/x`."""
        value = self._values[name].value
        return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value

    def _unknown_flag(self, name: str) -> ConfigError:
        near = [f"--{flag}" for flag in nearest(name, self._values)]
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        known_flags = [f"--{flag}" for flag in self._values]
        known = f" Known: {', '.join(known_flags) or 'none'}." if len(known_flags) <= FEW_FLAGS else ""
        return ConfigError(f"Unknown flag --{name}.{hint}{known} See --help.")

    def help(self) -> str:
        """Return the usage, the examples, and every flag with its default and its help text, under headings."""
        examples = ["", "examples:", *(f"  {example}" for example in self._examples)] if self._examples else []
        lines = [self._usage.strip(), *examples]
        for heading, names in self._headings():
            lines += ["", f"{heading}:", *(self._describe(name) for name in names)]
        return "\n".join(lines)

    def _headings(self) -> Iterator[tuple[str, list[str]]]:
        """Yield headings and the names of their flags: those of the command first, then its settings, the most used first."""
        if own := [name for name in self._values if name not in self._settings]:
            yield "flags", sorted(own, key=self._order.index)
        listed: set[str] = set()
        for heading, names in HEADINGS.items():
            found = [name for name in names if name in self._settings and name not in listed]
            if found and (heading != MOST_USED or len(self._settings) > len(names)):
                listed.update(found)
                yield heading, found

    def _describe(self, name: str) -> str:
        """Return a flag with its default and its help, in one line, or wrapped on a terminal."""
        flag = self._values[name]
        default = "" if flag.default in ("", None) else f" [{flag.default}{self._origin(name)}]"
        line = f"  --{name}{default}: {as_flags(flag.help)}"
        if not sys.stdout.isatty():
            return line
        return textwrap.fill(line, shutil.get_terminal_size().columns, subsequent_indent="      ", break_on_hyphens=False)

    def _origin(self, name: str) -> str:
        return f", {self._origins[name]}" if name in self._origins else ""
