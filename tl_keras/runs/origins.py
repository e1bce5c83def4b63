"""Settings with their origins: said by the text of a source report, shown by its code, or chosen here."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from tl_keras.results.experiment_file import CHOSEN, SAID, SHOWN

# Settings that need an origin in every row of every experiment, also where they have their default.
REQUIRED = (
    "dataset", "fraction", "validation_fraction", "augmentation", "crop_fraction", "interpolation",
    "backbone", "weights", "image_size", "normalization", "head",
    "strategy", "frozen_mode", "batch_norm", "batch_norm_momentum", "eval_mode_after", "loss", "optimizer", "learning_rate", "momentum",
    "nesterov", "weight_decay", "l2", "schedule", "schedule_interval", "epochs", "batch_size", "last_batch", "selection", "precision",
)  # fmt: skip


class Settings(Mapping[str, Any]):
    """A read-only mapping of settings, of which each has an origin. `a | b` merges two; those of `b` win.

    Attributes:
        origins: setting -> said, shown or chosen.
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
