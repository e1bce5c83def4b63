"""Parser of the setting `grid`, which lists the heads that are trained at once. It needs no TensorFlow."""

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
class HeadConfig:
    """Settings that may differ between the heads of a grid. Each has the meaning that it has in a single run.

    Attributes:
        seed: seed of the initial weights. The split and the order of the batches depend on the seed of the run, for all heads.
    """

    learning_rate: float
    l2: float
    weight_decay: float
    label_smoothing: float
    seed: int


HEAD_SETTINGS = tuple(item.name for item in dataclasses.fields(HeadConfig))


def parse(text: str, config: RunConfig) -> tuple[HeadConfig, ...]:
    """Return all combinations of the values in `text`; the last name varies fastest.

    For example, `learning_rate=1e-4:1e-1:7,l2=0:1e-2:3,seed=0|1|2` is 63 heads. `name=a|b|c` lists values. `name=low:high:count` is a
    geometric sequence, rounded to six digits. If low is 0, it is 0 and count - 1 values up to high, each ten times the one before.
    Other settings are those of `config`.

    Raises:
        ConfigError: A name, a value or the syntax is wrong, there are more than `MAX_HEADS` heads, or `config` does not allow a grid.
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
    return tuple(HeadConfig(**{name: flat[name] for name in HEAD_SETTINGS}) for flat in configs)


def _require_constant_features(config: RunConfig) -> None:
    if config.train.strategy != "head" or config.train.frozen_mode != "inference":
        raise ConfigError("a grid shares one set of features: it needs `strategy=head` and `frozen_mode=inference`.")
    if config.train.eval_mode_after != -1:
        raise ConfigError("the frozen network of a grid always runs in evaluation mode: it needs `eval_mode_after=-1`.")
    if config.train.stage_learning_rates:
        raise ConfigError("each head of a grid has its own learning rate: it needs `stage_learning_rates` empty.")
    if config.model.head_dropout:
        raise ConfigError("the features of a grid reach its heads without dropout: it needs `head_dropout=0`.")
    if config.data.augmentation != "none" or config.runtime.distribution != "none":
        raise ConfigError("a grid trains on cached features on one device: it needs `augmentation=none` and `distribution=none`.")
    if not config.data.validation_fraction:
        raise ConfigError("the best head is chosen on the validation split: it needs `validation_fraction` above 0.")


def _axes(text: str) -> dict[str, list[float] | list[int]]:
    """Return setting -> values, in the order of `text`."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    names = [name for name, _, _ in pairs]
    if not all(name and value for name, _, value in pairs) or len(set(names)) < len(names):
        raise ValueError("different name=values separated by commas, e.g. learning_rate=1e-4:1e-1:7,l2=0|1e-3")
    if unexpected := [name for name in names if name not in HEAD_SETTINGS]:
        raise unknown("setting of a head", unexpected[0], HEAD_SETTINGS)
    return {name: _values(name, value) for name, _, value in pairs}


def _values(name: str, text: str) -> list[Any]:
    try:
        values: list[float] | list[int]
        if name == "seed":
            values = [int(value) for value in text.split("|")]
        else:
            values = _geometric(*text.split(":")) if ":" in text else [float(value) for value in text.split("|")]
    except (ValueError, TypeError):
        expected = (
            "seeds, e.g. seed=0|1|2" if name == "seed" else f"{name}=a|b|c or {name}=low:high:count, 0 <= low < high, count at least 2"
        )
        raise ValueError(f"{expected}; not {name}={text}") from None
    if len(set(values)) < len(values):
        raise ValueError(f"different values of {name}, not {text}")
    return values


def _geometric(low_text: str, high_text: str, count_text: str) -> list[float]:
    low, high, count = float(low_text), float(high_text), int(count_text)
    if not 0 <= low < high < math.inf or not 2 <= count <= MAX_HEADS:
        raise ValueError
    values = np.geomspace(low, high, count) if low else [0.0, *(high * 10.0**power for power in range(2 - count, 1))]
    return [float(f"{value:.6g}") for value in values]
