"""What is trained, when, and how fast: strategy objects that turn the stages of a backbone into phases of training.

A strategy is pure data. `parse` reads the grammar of `--strategy`; `Strategy.phases` gives the plan, and refuses one that
names a stage the backbone does not have or that selects nothing. The head is new, so every strategy trains it.
No TensorFlow and no Keras here: a plan is made, checked and printed before either loads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from tl_keras.backbones import HEAD
from tl_keras.backbones.registry import BATCH_NORM, BIAS
from tl_keras.config import TrainConfig
from tl_keras.errors import ConfigError, unknown
from tl_keras.strategies import arguments as read

OTHERS = "*"
ALL_WEIGHTS, ADAPTERS = "all", "adapters"


@dataclass(frozen=True)
class Phase:
    """One stretch of training with one trainable set.

    Attributes:
        name: what the phase is called in the result.
        epochs: how many epochs it lasts.
        trainable: stage -> which of its weights are trained (`all`, `batchnorm`, `bias` or `adapters`); one that is not named is
            frozen, and one of which adapters alone are trained runs as a frozen one.
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


def _phase(
    name: str,
    stages: Sequence[str],
    config: TrainConfig,
    *,
    kind: str = ALL_WEIGHTS,
    epochs: int = 0,
    rate_scale: Mapping[str, float] | None = None,
) -> Phase:
    """The phase that trains the head whole and `stages` as `kind` says; `epochs` 0 is all of them."""
    trainable = {stage: kind for stage in stages} | {HEAD: ALL_WEIGHTS}
    scales = {stage: scale for stage, scale in (rate_scale or {}).items() if stage in trainable}
    return Phase(name, epochs or config.epochs, MappingProxyType(trainable), MappingProxyType(scales), config.frozen_mode)


def _require_stages(names: Sequence[str], stages: Sequence[str], strategy: str) -> None:
    for name in names:
        if name not in (*stages, HEAD):
            raise ConfigError(str(unknown("stage", name, (*stages, HEAD))), setting="strategy", value=strategy)


@dataclass(frozen=True)
class Full:
    """Train everything at once (full fine-tuning, or from scratch)."""

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return (_phase("full", stages, config),)


@dataclass(frozen=True)
class HeadOnly:
    """Train the new head on frozen features (representation learning, linear probe)."""

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return (_phase("head", (), config),)


@dataclass(frozen=True)
class Last:
    """Train the last `num_stages` stages and the head; 0 is the head alone (report D's l)."""

    num_stages: int

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        if self.num_stages > len(stages):
            raise ConfigError(
                f"the backbone has {len(stages)} stages ({', '.join(stages)}); use last:0 to last:{len(stages)}.",
                setting="strategy",
                value=f"last:{self.num_stages}",
            )
        return (_phase(f"last {self.num_stages}", stages[len(stages) - self.num_stages :], config),)


@dataclass(frozen=True)
class Train:
    """Train the named stages and the head, wherever they lie."""

    stages: tuple[str, ...]

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        _require_stages(self.stages, stages, f"train:{'+'.join(self.stages)}")
        return (_phase(f"train {'+'.join(self.stages)}", [stage for stage in stages if stage in self.stages], config),)


@dataclass(frozen=True)
class Freeze:
    """Train everything but the named stages."""

    stages: tuple[str, ...]

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        spelled = f"freeze:{'+'.join(self.stages)}"
        _require_stages(self.stages, stages, spelled)
        if HEAD in self.stages:
            raise ConfigError(
                f"the head is new and random, so it is always trained; freeze stages: {', '.join(stages)}.",
                setting="strategy",
                value=spelled,
            )
        return (_phase(f"freeze {'+'.join(self.stages)}", [stage for stage in stages if stage not in self.stages], config),)


@dataclass(frozen=True)
class Gradual:
    """Unfreeze from the head to the stem, one stage more in each phase (report D, strategy 2; Howard and Ruder 2018).

    `every` epochs a phase, the last one taking the rest; 0 spreads the epochs evenly over all phases. With `decay` below 1
    the rate falls by that factor from the head to the last stage and from each stage to the one before it: report D's
    "0.01 on the last, divided by ten for each earlier layer" is `gradual:decay=0.1` at a learning rate of 0.01.
    """

    every: int = 0
    decay: float = 1.0

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        num_phases = len(stages) + 1
        starts = [number * self.every or number * config.epochs // num_phases for number in range(num_phases)]
        if starts[-1] >= config.epochs or len(set(starts)) < num_phases:
            needed = max(1, self.every) * len(stages) + 1
            raise ConfigError(
                f"gradual unfreezing of {len(stages)} stages needs at least {needed} to reach the first.",
                setting="epochs",
                value=config.epochs,
            )
        ends = [*starts[1:], config.epochs]
        scales = _falling(stages, self.decay)
        return tuple(
            _phase(f"gradual {number}", stages[len(stages) - number :], config, epochs=end - start, rate_scale=scales)
            for number, (start, end) in enumerate(zip(starts, ends, strict=True))
        )


@dataclass(frozen=True)
class HeadThenFull:
    """A linear probe, then full fine-tuning from it (LP-FT; Kumar et al. 2022). `probe` epochs of the first; 0 is a fifth."""

    probe: int = 0

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        probe = self.probe or max(1, config.epochs // 5)
        if probe >= config.epochs:
            raise ConfigError(
                f"head_then_full needs more than its {probe} epochs of the head alone.", setting="epochs", value=config.epochs
            )
        return (_phase("head", (), config, epochs=probe), _phase("full", stages, config, epochs=config.epochs - probe))


@dataclass(frozen=True)
class BatchNorm:
    """Train the head, and of every stage the batch-norm layers alone (report D; Frankle et al. 2021)."""

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return (_phase("batchnorm", stages, config, kind=BATCH_NORM),)


@dataclass(frozen=True)
class Bias:
    """Train the head, and of every stage the biases alone, those of its norms among them (BitFit; Ben Zaken et al. 2022)."""

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return (_phase("bias", stages, config, kind=BIAS),)


@dataclass(frozen=True)
class LayerDecay:
    """Train everything; the rate falls by `decay` from each stage to the one before it (Clark et al. 2020)."""

    decay: float

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return (_phase("layer decay", stages, config, rate_scale=_falling(stages, self.decay)),)


@dataclass(frozen=True)
class Rates:
    """Train everything, each stage at a rate of its own; `*` is the rate of stages that are not named (report C)."""

    rates: Mapping[str, float]

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        spelled = "rates:" + ",".join(f"{stage}={rate:g}" for stage, rate in self.rates.items())
        _require_stages([stage for stage in self.rates if stage != OTHERS], stages, spelled)
        rates = {stage: self.rates.get(stage, self.rates.get(OTHERS)) for stage in (*stages, HEAD)}
        if missing := [stage for stage, rate in rates.items() if rate is None]:
            raise ConfigError(
                f"no rate for {', '.join(missing)}. Name them, or give the rest a rate with *=.", setting="strategy", value=spelled
            )
        return (_phase("rates", stages, config, rate_scale={stage: rate / config.learning_rate for stage, rate in rates.items()}),)


@dataclass(frozen=True)
class Lora:
    """Train the head and low-rank adapters of frozen layers: W + (alpha / rank) A B (LoRA; Hu et al. 2021).

    `alpha` 0 is `rank`, a factor of 1. `targets` name the layers that are adapted, as `lora.find_targets` reads them; the
    default is the query and value projections, as in the paper.
    """

    rank: int = 8
    alpha: float = 0.0
    targets: tuple[str, ...] = ("attention",)

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return (_phase("lora", stages, config, kind=ADAPTERS),)


def _falling(stages: Sequence[str], decay: float) -> dict[str, float]:
    """Stage -> decay to the power of its distance from the head."""
    return {stage: decay**distance for distance, stage in enumerate([HEAD, *reversed(stages)])}


@dataclass(frozen=True)
class Form:
    """How `--strategy` spells a strategy: its class, the reader of what follows the colon, and whether that may be left out."""

    kind: Callable[..., Strategy]
    help: str
    read: Callable[[str], Any] | None = None
    optional: bool = False


STRATEGIES: Mapping[str, Form] = MappingProxyType(
    {
        "full": Form(Full, "train everything"),
        "head": Form(HeadOnly, "train the head alone"),
        "last": Form(Last, "last:N, train the last N stages and the head", read.count),
        "train": Form(Train, "train:a+b, train these stages and the head", read.names),
        "freeze": Form(Freeze, "freeze:a+b, train all but these stages", read.names),
        "gradual": Form(
            Gradual,
            "gradual or gradual:every=N,decay=R, one stage more from the head down, every N epochs, at rates falling by R",
            read.options(every=read.count, decay=read.decay),
            optional=True,
        ),
        "head_then_full": Form(
            HeadThenFull,
            "head_then_full or head_then_full:probe=N, the head alone for N epochs, then all",
            read.options(probe=read.count),
            optional=True,
        ),
        "batchnorm": Form(BatchNorm, "train the batch-norm layers and the head"),
        "bias": Form(Bias, "train the biases and the head"),
        "layer_decay": Form(LayerDecay, "layer_decay:R, train everything at rates falling by R from stage to stage", read.decay),
        "rates": Form(Rates, "rates:a=X,b=Y,*=Z, train everything, each stage at its rate", read.rates),
        "lora": Form(
            Lora,
            "lora or lora:rank=R,alpha=A,targets=a+b, train the head and low-rank adapters of frozen layers: attention (query and value), "
            "all, stages, or ends of the names of layers (query, mlp1, conv2, ...)",
            read.options(rank=read.rank, alpha=read.alpha, targets=read.names),
            optional=True,
        ),
    }
)


def parse(text: str) -> Strategy:
    """The strategy that `--strategy=text` names; ConfigError where the grammar does not have it."""
    name, colon, argument = text.partition(":")
    if name not in STRATEGIES:
        raise ConfigError(str(unknown("strategy", name, STRATEGIES)), setting="strategy", value=text)
    form = STRATEGIES[name]
    if (colon and not form.read) or (not colon and form.read and not form.optional):
        raise ConfigError(f"expected {form.help if form.read else name + ' without an argument'}.", setting="strategy", value=text)
    try:
        value = form.read(argument) if colon and form.read else {}
        return form.kind(**value) if not colon or form.optional else form.kind(value)
    except ValueError as error:
        raise ConfigError(f"expected {error}.", setting="strategy", value=text) from None


def plan(stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
    """The phases of `config.strategy` on a backbone with these stages, in order."""
    return parse(config.strategy).phases(stages, config)
