"""Settings with their origins: said by the text of a source report, shown by its code, or chosen here."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

SAID, SHOWN, CHOSEN = "said", "shown", "chosen"
ORIGINS = (SAID, SHOWN, CHOSEN)


class Settings(Mapping[str, Any]):
    """A read-only mapping of settings, of which each has an origin. `a | b` merges two; those of `b` win.

    Attributes:
        origins: setting -> one of `ORIGINS`.
    """

    def __init__(self, values: Mapping[str, Any], origins: Mapping[str, str]):
        self._values, self.origins = MappingProxyType(dict(values)), MappingProxyType(dict(origins))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __or__(self, other: "Settings") -> "Settings":
        return Settings({**self, **other}, {**self.origins, **other.origins})


def said(**settings: Any) -> Settings:
    """Return settings that the text of the source report names."""
    return Settings(settings, dict.fromkeys(settings, SAID))


def shown(**settings: Any) -> Settings:
    """Return settings that only the code of the source report shows."""
    return Settings(settings, dict.fromkeys(settings, SHOWN))


def chosen(**settings: Any) -> Settings:
    """Return settings that the source report leaves open, or that it does not have."""
    return Settings(settings, dict.fromkeys(settings, CHOSEN))
