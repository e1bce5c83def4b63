"""What is trained, when, and how fast: strategy objects that turn the stages of a backbone into phases of training.

A strategy is pure data. `parse` reads the grammar of `--strategy`; `Strategy.phases` gives the plan, and refuses one that
names a stage the backbone does not have or that selects nothing. The head is new, so every strategy trains it.
No TensorFlow and no Keras here: a plan is made, checked and printed before either loads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from tl_keras.config import TrainConfig
from tl_keras.errors import ConfigError, unknown

HEAD = "head"
ALL_WEIGHTS, BATCH_NORM = "all", "batchnorm"


@dataclass(frozen=True)
class Phase:
    """One stretch of training with one trainable set.

    Attributes:
        name: what the phase is called in the result.
        epochs: how many epochs it lasts.
        trainable: stage -> which of its weights are trained (`all`, or those of its `batchnorm` layers); one that is not named is frozen.
        rate_scale: stage -> factor on the learning rate; 1 where not named.
        frozen_mode: how the frozen stages run: `inference` (running statistics, no dropout) or `training`
            (BatchNorm normalises with the batch and updates its running statistics, dropout on).
    """

    name: str
    epochs: int
    trainable: Mapping[str, str]
    rate_scale: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    frozen_mode: str = "inference"


class Strategy(Protocol):
    """Anything that plans phases from the ordered stage names of a backbone (without the head)."""

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]: ...


def _one_phase(name: str, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
    trainable = {stage: ALL_WEIGHTS for stage in (*stages, HEAD)}
    return (Phase(name, config.epochs, MappingProxyType(trainable), frozen_mode=config.frozen_mode),)


def _require_stages(names: Sequence[str], stages: Sequence[str], strategy: str) -> None:
    for name in names:
        if name not in (*stages, HEAD):
            raise ConfigError(f"flag --strategy={strategy}: {unknown('stage', name, (*stages, HEAD))}")


@dataclass(frozen=True)
class Full:
    """Train everything at once (full fine-tuning, or from scratch)."""

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return _one_phase("full", stages, config)


@dataclass(frozen=True)
class HeadOnly:
    """Train the new head on frozen features (representation learning, linear probe)."""

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return _one_phase("head", (), config)


@dataclass(frozen=True)
class Last:
    """Train the last `num_stages` stages and the head; 0 is the head alone (report D's l)."""

    num_stages: int

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        if self.num_stages > len(stages):
            raise ConfigError(
                f"flag --strategy=last:{self.num_stages}: the backbone has {len(stages)} stages ({', '.join(stages)}); "
                f"use last:0 to last:{len(stages)}."
            )
        return _one_phase(f"last {self.num_stages}", stages[len(stages) - self.num_stages :], config)


@dataclass(frozen=True)
class Train:
    """Train the named stages and the head, wherever they lie."""

    stages: tuple[str, ...]

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        _require_stages(self.stages, stages, f"train:{'+'.join(self.stages)}")
        return _one_phase(f"train {'+'.join(self.stages)}", [stage for stage in stages if stage in self.stages], config)


@dataclass(frozen=True)
class Freeze:
    """Train everything but the named stages."""

    stages: tuple[str, ...]

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        spelled = f"freeze:{'+'.join(self.stages)}"
        _require_stages(self.stages, stages, spelled)
        if HEAD in self.stages:
            raise ConfigError(
                f"flag --strategy={spelled}: the head is new and random, so it is always trained; freeze stages: {', '.join(stages)}."
            )
        return _one_phase(f"freeze {'+'.join(self.stages)}", [stage for stage in stages if stage not in self.stages], config)


def _count(argument: str) -> int:
    if not argument.isdecimal():
        raise ValueError("a number of stages, e.g. last:2")
    return int(argument)


def _names(argument: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in argument.split("+"))
    if not all(names) or len(set(names)) < len(names):
        raise ValueError("different stage names joined by +, e.g. layer1+layer2")
    return names


# name -> (class, parser of the argument or None, what it does)
STRATEGIES = MappingProxyType(
    {
        "full": (Full, None, "train everything"),
        "head": (HeadOnly, None, "train the head alone"),
        "last": (Last, _count, "last:N, train the last N stages and the head"),
        "train": (Train, _names, "train:a+b, train these stages and the head"),
        "freeze": (Freeze, _names, "freeze:a+b, train all but these stages"),
    }
)


def parse(text: str) -> Strategy:
    """The strategy that `--strategy=text` names; ConfigError where the grammar does not have it."""
    name, colon, argument = text.partition(":")
    if name not in STRATEGIES:
        raise ConfigError(f"flag --strategy={text}: {unknown('strategy', name, STRATEGIES)}")
    kind, read, help = STRATEGIES[name]
    if (read is None) == bool(colon):
        raise ConfigError(f"flag --strategy={text}: expected {help if read else name + ' without an argument'}.")
    try:
        return kind(read(argument)) if read else kind()
    except ValueError as error:
        raise ConfigError(f"flag --strategy={text}: expected {error}.") from None


def plan(stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
    """The phases of `config.strategy` on a backbone with these stages, in order."""
    return parse(config.strategy).phases(stages, config)
