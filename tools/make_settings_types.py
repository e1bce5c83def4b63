"""Writes `tl_keras/interface/settings.py`: the settings by name with their types, for editors and type checkers (PEP 692).

`python -m tools.make_settings_types` after a change of `tl_keras/config.py`; a test compares the two.
"""

from pathlib import Path

from tl_keras.config import SETTINGS
from tl_keras.runs.resolve import SOURCE_SETTINGS

FILE = Path(__file__).parents[1] / "tl_keras" / "interface" / "settings.py"
WIDER = {"strategy": "str | Strategy", "weights": "str | Path | Run | None"}  # settings that Python also takes as objects
HEADER = '''"""The settings of `fit` by name, made from `tl_keras.config` by tools/make_settings_types.py. Do not edit."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from tl_keras.strategies import Strategy

if TYPE_CHECKING:
    from tl_keras.interface.run import Run


class Settings(TypedDict, total=False):
    """The settings that `fit`, `dry_run` and `lr_find` take by name."""

'''


def settings_module() -> str:
    """Return the text of the module."""
    return HEADER + "".join(f"    {name}: {_type(name)}\n" for name in SETTINGS if name not in SOURCE_SETTINGS)


def _type(name: str) -> str:
    if name in WIDER:
        return f'"{WIDER[name]}"'
    choices = SETTINGS[name].metadata["choices"]
    values = ", ".join(f'"{choice}"' for choice in choices)
    return f"Literal[{values}]" if choices else SETTINGS[name].type.__name__


if __name__ == "__main__":
    FILE.write_text(settings_module(), encoding="utf-8")
