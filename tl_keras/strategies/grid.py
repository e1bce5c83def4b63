"""The grammar of `--grid`: which heads are trained at once. No TensorFlow: a grid is read, checked and counted before it loads."""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_keras.config import RunConfig
from tl_keras.errors import ConfigError, unknown

MAX_HEADS = 512


@dataclass(frozen=True)
class Head:
    """The settings in which the heads of a grid may differ; each means what the flag of its name means in a single run.

    Attributes:
        seed: of the initial weights. The split and the order of the batches are those of the run, the same for all heads.
    """

    learning_rate: float
    l2: float
    weight_decay: float
    label_smoothing: float
    seed: int


NAMES = tuple(item.name for item in dataclasses.fields(Head))


def parse(text: str, config: RunConfig) -> tuple[Head, ...]:
    """The heads of `--grid=text`, as `learning_rate=1e-4:1e-1:7,l2=0:1e-2:3,seed=0|1|2`: all combinations, the last name fastest.

    `name=a|b|c` lists values. `name=low:high:count` spaces them geometrically, to six digits; from 0 it is 0 and count - 1 values
    up to high, each ten times the one before. What is not named is as in `config`.

    Raises:
        ConfigError: the grammar, a name or a value is wrong, there are more than `MAX_HEADS`, or `config` is not for a grid.
    """
    try:
        _require_constant_features(config)
        axes = _axes(text)
        count = math.prod(len(values) for values in axes.values())
        if count > MAX_HEADS:
            raise ValueError(f"at most {MAX_HEADS} heads, not {count:,}")
        settings = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        configs = [config.replace(**values).to_dict() for values in settings]
    except ConfigError as error:
        raise ConfigError(str(error), setting="grid", value=text) from None
    except ValueError as error:
        raise ConfigError(f"expected {error}.", setting="grid", value=text) from None
    return tuple(Head(**{name: flat[name] for name in NAMES}) for flat in configs)


def _require_constant_features(config: RunConfig) -> None:
    if config.train.strategy != "head" or config.train.frozen_mode != "inference":
        raise ConfigError("a grid shares one set of features: it needs `strategy=head` and `frozen_mode=inference`.")
    if config.data.augmentation != "none" or config.runtime.distribution != "none":
        raise ConfigError("a grid trains on kept features on one device: it needs `augmentation=none` and `distribution=none`.")
    if not config.data.validation_fraction:
        raise ConfigError("the best head is chosen on validation: it needs `validation_fraction` above 0.")


def _axes(text: str) -> dict[str, list[float] | list[int]]:
    """Name -> its values, in the order of `text`."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    names = [name for name, _, _ in pairs]
    if not all(name and value for name, _, value in pairs) or len(set(names)) < len(names):
        raise ValueError("different name=values separated by commas, e.g. learning_rate=1e-4:1e-1:7,l2=0|1e-3")
    if strange := [name for name in names if name not in NAMES]:
        raise unknown("setting of a head", strange[0], NAMES)
    return {name: _values(name, value) for name, _, value in pairs}


def _values(name: str, text: str) -> list[Any]:
    try:
        if name == "seed":
            values = [int(value) for value in text.split("|")]
        else:
            values = _spaced(*text.split(":")) if ":" in text else [float(value) for value in text.split("|")]
    except (ValueError, TypeError):
        form = "seeds, e.g. seed=0|1|2" if name == "seed" else f"{name}=a|b|c or {name}=low:high:count, 0 <= low < high, count at least 2"
        raise ValueError(f"{form}; not {name}={text}") from None
    if len(set(values)) < len(values):
        raise ValueError(f"different values of {name}, not {text}")
    return values


def _spaced(low_text: str, high_text: str, count_text: str) -> list[float]:
    low, high, count = float(low_text), float(high_text), int(count_text)
    if not 0 <= low < high < math.inf or not 2 <= count <= MAX_HEADS:
        raise ValueError
    spaced = np.geomspace(low, high, count) if low else [0.0, *(high * 10.0**power for power in range(2 - count, 1))]
    return [float(f"{value:.6g}") for value in spaced]
