"""Fine-tuning strategies: they turn the stages of a backbone into phases of training.

A strategy is pure data. `parse` reads the text of the setting `strategy`, and `Strategy.phases` returns its phases or raises
ConfigError for stages that the backbone does not have. The head is new, so every strategy trains it. Neither TensorFlow nor Keras is
imported, so that phases are checked and printed before either loads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Protocol

from tl_keras.backbones import HEAD, Backbone
from tl_keras.backbones.registry import ATTENTION, BATCH_NORM, BIAS
from tl_keras.config import TrainConfig
from tl_keras.errors import ConfigError, did_you_mean, unknown
from tl_keras.strategies import arguments as parsers
from tl_keras.utils.arguments import options

WILDCARD = "*"
ALL_WEIGHTS, ADAPTERS = "all", "adapters"


@dataclass(frozen=True)
class Phase:
    """A number of epochs that train the same weights.

    Attributes:
        name: name of the phase in the result.
        epochs: number of epochs.
        trainable: stage -> weight group that is trained (`all`, `batchnorm`, `bias` or `adapters`). Other stages are frozen. A stage of
            which only the adapters are trained also runs as a frozen one.
        lr_multipliers: stage -> factor on the learning rate; 1 for other stages.
        frozen_mode: `inference` (frozen stages use running statistics and no dropout) or `training` (BatchNorm normalises with the
            batch and updates its running statistics, dropout is on).
        batch_norm: statistics of BatchNorm in trained stages: `train` (of the batch) or `inference` (fixed running ones).
        eval_mode: True if every layer runs as in evaluation while weights train. It overrides `frozen_mode` and `batch_norm`.
        layers: stage -> ends of the names of its trained layers; other stages of `trainable` train all layers.
        reset_optimizer: `never`, or the moments of the optimizer start at zero with each `phase` or each `epoch`.
    """

    name: str
    epochs: int
    trainable: Mapping[str, str]
    lr_multipliers: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    frozen_mode: str = "inference"
    batch_norm: str = "train"
    eval_mode: bool = False
    layers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    reset_optimizer: str = "never"


class Strategy(Protocol):
    """Anything that returns phases for the ordered stage names of a backbone, without the head."""

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]: ...


class _WithText:
    """Base of the classes in `STRATEGIES`. `str` gives the text of the setting `strategy`, which `parse` reads back."""

    def __str__(self) -> str:
        return to_text(self)


def _phase(
    name: str,
    stages: Sequence[str],
    config: TrainConfig,
    *,
    weight_group: str = ALL_WEIGHTS,
    epochs: int = 0,
    lr_multipliers: Mapping[str, float] | None = None,
) -> Phase:
    """Return the phase that trains the head and the `weight_group` of `stages`. All epochs if `epochs` is 0."""
    trainable = {stage: weight_group for stage in stages} | {HEAD: ALL_WEIGHTS}
    return Phase(
        name,
        epochs or config.epochs,
        MappingProxyType(trainable),
        _of_trained(trainable, lr_multipliers or {}),
        config.frozen_mode,
        config.batch_norm,
    )


def _of_trained(trainable: Mapping[str, str], lr_multipliers: Mapping[str, float]) -> Mapping[str, float]:
    return MappingProxyType({stage: factor for stage, factor in lr_multipliers.items() if stage in trainable})


def _require_stages(names: Sequence[str], stages: Sequence[str], text: str) -> None:
    for name in names:
        if name not in (*stages, HEAD):
            raise unknown("stage", name, (*stages, HEAD), setting="strategy", value=text)


@dataclass(frozen=True)
class Full(_WithText):
    """Train everything at once (full fine-tuning, or from scratch)."""

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return (_phase("full", stages, config),)


@dataclass(frozen=True)
class HeadOnly(_WithText):
    """Train the new head on frozen features (representation learning, linear probe)."""

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return (_phase("head", (), config),)


@dataclass(frozen=True)
class Last(_WithText):
    """Train the last `num_stages` stages and the head; 0 is the head alone (`l` of source report D)."""

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
class Train(_WithText):
    """Train the named stages and the head. Of a stage named as `stage/layer`, train the layers called `layer` or ending in `_layer`."""

    names: tuple[str, ...]

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        parts = [name.partition("/") for name in self.names]
        _require_stages([stage for stage, _, _ in parts], stages, self._text)
        layers: dict[str, tuple[str, ...]] = {}
        for stage, slash, end in parts:
            layers[stage] = (*layers.get(stage, ()), *([end] if slash else []))
            if slash and (not end or stage == HEAD or stage in self.names):
                raise ConfigError(
                    "expected of each stage its name, or layers of it as stage/layer. The head is always trained.",
                    setting="strategy",
                    value=self._text,
                )
        phase = _phase(f"train {'+'.join(self.names)}", [stage for stage in stages if stage in layers], config)
        return (replace(phase, layers=MappingProxyType({stage: ends for stage, ends in layers.items() if ends})),)

    @property
    def _text(self) -> str:
        return f"train:{'+'.join(self.names)}"


@dataclass(frozen=True)
class Freeze(_WithText):
    """Train everything but the named stages."""

    stages: tuple[str, ...]

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        text = f"freeze:{'+'.join(self.stages)}"
        _require_stages(self.stages, stages, text)
        if HEAD in self.stages:
            raise ConfigError(
                f"the head is new and random, so it is always trained; freeze stages: {', '.join(stages)}.",
                setting="strategy",
                value=text,
            )
        return (_phase(f"freeze {'+'.join(self.stages)}", [stage for stage in stages if stage not in self.stages], config),)


@dataclass(frozen=True)
class Gradual(_WithText):
    """Unfreeze from the last stage to the first, one more in each phase (Howard and Ruder 2018; source report D, strategy 2).

    Attributes:
        start: first stage that the first phase trains, with all after it; empty: the head alone.
        end: first stage that the last phase trains; empty: the first of the backbone.
        every: epochs of each phase but the last, which has the rest; 0 spreads the epochs evenly over all phases.
        decay: factor on the learning rate from the head to the last stage, and from each stage to the one before it.
        reset: `never`, or the moments of the optimizer start at zero with each `phase` or each `epoch`.
    """

    start: str = ""
    end: str = ""
    every: int = 0
    decay: float = 1.0
    reset: str = "never"

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        _require_stages([name for name in (self.start, self.end) if name], stages, config.strategy)
        order = (*stages, HEAD)
        first, last = order.index(self.start or HEAD), order.index(self.end or order[0])
        if first < last:
            raise ConfigError(
                f"`start` is unfrozen first, so it is `end` or a stage after it. The stages are {', '.join(order)}.",
                setting="strategy",
                value=config.strategy,
            )
        multipliers = _layer_decay(stages, self.decay)
        return tuple(
            replace(
                _phase(f"gradual {len(stages) - position}", stages[position:], config, epochs=epochs, lr_multipliers=multipliers),
                reset_optimizer=self.reset,
            )
            for position, epochs in zip(range(first, last - 1, -1), self._epochs(first - last + 1, config.epochs), strict=True)
        )

    def _epochs(self, num_phases: int, epochs: int) -> list[int]:
        """Return the number of epochs of each phase. Raise ConfigError if `epochs` are too few."""
        starts = [number * self.every or number * epochs // num_phases for number in range(num_phases)]
        if starts[-1] >= epochs or len(set(starts)) < num_phases:
            needed = max(1, self.every) * (num_phases - 1) + 1
            raise ConfigError(f"gradual unfreezing in {num_phases} phases needs at least {needed}.", setting="epochs", value=epochs)
        return [end - start for start, end in pairwise([*starts, epochs])]


@dataclass(frozen=True)
class HeadThenFull(_WithText):
    """Train the head for `probe` epochs (0: a fifth of all), then everything (LP-FT; Kumar et al. 2022)."""

    probe: int = 0

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        probe = self.probe or max(1, config.epochs // 5)
        if probe >= config.epochs:
            raise ConfigError(
                f"head_then_full needs more than its {probe} epochs of the head alone.", setting="epochs", value=config.epochs
            )
        return (_phase("head", (), config, epochs=probe), _phase("full", stages, config, epochs=config.epochs - probe))


@dataclass(frozen=True)
class BatchNorm(_WithText):
    """Train the head and the BatchNorm layers of every stage (source report D; Frankle et al. 2021)."""

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return (_phase("batchnorm", stages, config, weight_group=BATCH_NORM),)


@dataclass(frozen=True)
class Bias(_WithText):
    """Train the head and the biases of every stage, those of norms included (BitFit; Ben Zaken et al. 2022)."""

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return (_phase("bias", stages, config, weight_group=BIAS),)


@dataclass(frozen=True)
class LayerDecay(_WithText):
    """Train everything, with a learning rate that falls by `decay` from each stage to the one before it (Clark et al. 2020)."""

    decay: float

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return (_phase("layer decay", stages, config, lr_multipliers=_layer_decay(stages, self.decay)),)


@dataclass(frozen=True)
class Lora(_WithText):
    """Train the head and low-rank adapters of frozen layers: W + (alpha / rank) A B (LoRA; Hu et al. 2021).

    Attributes:
        rank: rank of the update.
        alpha: numerator of its scale; 0 is `rank`, a scale of 1.
        targets: layers with adapters, see `lora.match_layers`. The default is the query and value projections, as in the paper.
    """

    rank: int = 8
    alpha: float = 0.0
    targets: tuple[str, ...] = ("attention",)

    def phases(self, stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
        return (_phase("lora", stages, config, weight_group=ADAPTERS),)


def _layer_decay(stages: Sequence[str], decay: float) -> dict[str, float]:
    """Return stage -> `decay` to the power of its distance from the head."""
    return {stage: decay**distance for distance, stage in enumerate([HEAD, *reversed(stages)])}


@dataclass(frozen=True)
class StrategySpec:
    """The text form of a strategy.

    Attributes:
        create: the class of the strategy.
        help: description for `list strategies` and for messages.
        parse: parser of the text after the colon; None if the strategy takes no argument.
        is_optional: True if colon and argument may be left out. The parser then returns keyword arguments of the class.
    """

    create: Callable[..., Strategy]
    help: str
    parse: Callable[[str], Any] | None = None
    is_optional: bool = False


STRATEGIES: Mapping[str, StrategySpec] = MappingProxyType(
    {
        "full": StrategySpec(Full, "train everything"),
        "head": StrategySpec(HeadOnly, "train the head alone"),
        "last": StrategySpec(Last, "last:N, train the last N stages and the head", parsers.count),
        "train": StrategySpec(
            Train,
            "train:a+b, train these stages and the head; train:a/conv1+b, of stage a only the layers that end in conv1",
            parsers.names,
        ),
        "freeze": StrategySpec(Freeze, "freeze:a+b, train all but these stages", parsers.names),
        "gradual": StrategySpec(
            Gradual,
            "gradual or gradual:start=a,end=b,every=N,decay=R,reset=phase, train the stages from the last to a (default: the head alone), "
            "and every N epochs one more until b (default: the first), each at R times the learning rate of the one after it; reset=phase "
            "or reset=epoch restarts the moments of the optimizer",
            options(start=str, end=str, every=parsers.count, decay=parsers.decay, reset=parsers.reset),
            is_optional=True,
        ),
        "head_then_full": StrategySpec(
            HeadThenFull,
            "head_then_full or head_then_full:probe=N, the head alone for N epochs, then all",
            options(probe=parsers.count),
            is_optional=True,
        ),
        "batchnorm": StrategySpec(BatchNorm, "train the batch-norm layers and the head"),
        "bias": StrategySpec(Bias, "train the biases and the head"),
        "layer_decay": StrategySpec(
            LayerDecay, "layer_decay:R, train everything, each stage at R times the learning rate of the one after it", parsers.decay
        ),
        "lora": StrategySpec(
            Lora,
            "lora or lora:rank=R,alpha=A,targets=a+b, train the head and low-rank adapters of frozen layers: attention (query and value), "
            "all, stages, or ends of layer names (query, mlp1, conv2, ...)",
            options(rank=parsers.rank, alpha=parsers.alpha, targets=parsers.names),
            is_optional=True,
        ),
    }
)


def parse(text: str) -> Strategy:
    """Return the strategy that `text` describes, e.g. `last:2`. Raise ConfigError if there is none."""
    name, colon, argument = text.partition(":")
    if name not in STRATEGIES:
        raise unknown("strategy", name, STRATEGIES, setting="strategy", value=text)
    spec = STRATEGIES[name]
    if (colon and not spec.parse) or (not colon and spec.parse and not spec.is_optional):
        raise ConfigError(f"expected {spec.help if spec.parse else name + ' without an argument'}.", setting="strategy", value=text)
    try:
        value = spec.parse(argument) if colon and spec.parse else {}
        return spec.create(**value) if not colon or spec.is_optional else spec.create(value)
    except ValueError as error:
        raise ConfigError(f"expected {error}.", setting="strategy", value=text) from None


def to_text(strategy: object) -> str:
    """Return the text that `parse` reads back as `strategy`. Options with their default value are left out.

    >>> to_text(Lora(rank=4, targets=("mlp1", "mlp2")))
    'lora:rank=4,targets=mlp1+mlp2'

    Raises:
        ConfigError: The class of `strategy` is not in `STRATEGIES`.
    """
    name = next((name for name, spec in STRATEGIES.items() if spec.create is type(strategy)), "")
    if not name:
        raise ConfigError(f"expected a strategy of {', '.join(STRATEGIES)}.", setting="strategy", value=repr(strategy))
    options = [(item, getattr(strategy, item.name)) for item in fields(strategy)]  # type: ignore[arg-type]
    if STRATEGIES[name].is_optional:
        texts = [f"{item.name}={_argument(value)}" for item, value in options if value != item.default]
    else:
        texts = [_argument(value) for _, value in options]
    return f"{name}:{','.join(texts)}" if texts else name


def _argument(value: object) -> str:
    return "+".join(value) if isinstance(value, tuple) else str(value)


def build_phases(stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
    """Return the phases of `config.strategy` in order, on a backbone with these stages.

    Raises:
        ConfigError: The strategy is unknown, or does not fit the stages or the number of epochs, or `stage_learning_rates` does not fit it.
    """
    phases = parse(config.strategy).phases(stages, config)
    if config.stage_learning_rates:
        phases = _with_learning_rates(phases, stages, config)
    return phases if config.eval_mode_after < 0 else _with_eval_mode(phases, config.eval_mode_after)


def _with_learning_rates(phases: Sequence[Phase], stages: Sequence[str], config: TrainConfig) -> tuple[Phase, ...]:
    """Return `phases` with the multipliers of `stage_learning_rates`. Stages without an entry keep that of the strategy."""
    text = config.stage_learning_rates
    try:
        entries = parsers.learning_rates(text)
    except ValueError as error:
        raise ConfigError(f"expected {error}.", setting="stage_learning_rates", value=text) from None
    trained = [stage for stage in (*stages, HEAD) if any(stage in phase.trainable for phase in phases)]
    if unexpected := [stage for stage in entries if stage not in (*trained, WILDCARD)]:
        raise ConfigError(
            f"`strategy={config.strategy}` does not train {', '.join(unexpected)}. It trains {', '.join(trained)}."
            f"{did_you_mean(unexpected[0], trained)}",
            setting="stage_learning_rates",
            value=text,
        )
    learning_rates = {stage: entries.get(stage, entries.get(WILDCARD, 0.0)) for stage in trained}
    multipliers = {stage: learning_rate / config.learning_rate for stage, learning_rate in learning_rates.items() if learning_rate}
    return tuple(replace(phase, lr_multipliers=_of_trained(phase.trainable, {**phase.lr_multipliers, **multipliers})) for phase in phases)


def _with_eval_mode(phases: Sequence[Phase], first: int) -> tuple[Phase, ...]:
    """Return `phases` with evaluation mode from epoch `first` (from 0) on. The phase that contains it is split in two."""
    parts, start = [], 0
    for phase in phases:
        num_before = min(max(first - start, 0), phase.epochs)
        reset = "never" if num_before and phase.reset_optimizer == "phase" else phase.reset_optimizer
        in_eval_mode = replace(
            phase, name=f"{phase.name} (eval mode)", epochs=phase.epochs - num_before, eval_mode=True, reset_optimizer=reset
        )
        parts += [part for part in (replace(phase, epochs=num_before), in_eval_mode) if part.epochs]
        start += phase.epochs
    return tuple(parts)


def check_weight_groups(backbone: Backbone, config: TrainConfig) -> None:
    """Raise ConfigError if `config.strategy` trains a weight group that `backbone` does not have. No model is built.

    Targets of `lora` other than `attention` are layer names; `lora.match_layers` checks them against the built model.
    """
    strategy = parse(config.strategy)
    weight_groups: dict[type, str] = {BatchNorm: BATCH_NORM, Bias: BIAS}
    required = weight_groups.get(type(strategy), "")
    if isinstance(strategy, Lora) and "attention" in strategy.targets:
        required = ATTENTION
    if required and required not in backbone.weight_groups:
        stages = ", ".join(stage for stage, _ in backbone.stages)
        lora_hint = f"Use `strategy=lora:targets=all`, or as targets the stages {stages}, or ends of layer names, joined by +."
        hint = lora_hint if required == ATTENTION else "Nothing but the head would be trained."
        raise ConfigError(
            f"{backbone.name} has no {required} weights. {hint}",
            setting="strategy",
            value=config.strategy,
        )
