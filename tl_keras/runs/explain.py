"""What a run would train and what it would cost, said before anything runs: needs neither data nor weights, and takes seconds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tl_keras import data
from tl_keras.config import RunConfig
from tl_keras.data import tfds
from tl_keras.errors import DamagedError, MissingError
from tl_keras.runs.setup import Plan, adapt, build, check_strategy, load_source, plan, start
from tl_keras.strategies import ALL_WEIGHTS, Phase
from tl_keras.utils import tensorflow_import

if TYPE_CHECKING:
    from tl_keras.backbones.macs import StageCost
    from tl_keras.feature_cache.planner import NumImages, Planner
    from tl_keras.strategies.freezing import Stages

ASSUMED_CLASSES, PER_IMAGES = 10, 1000  # where the data set is not at hand
# Share of a matrix multiplication's speed that training reaches. On two CPU cores: AlexNet 0.9, ResNet18 0.7, in bfloat16 half of
# that; MobileNet 0.2 to 0.3.
EFFICIENCY, DEPTHWISE_EFFICIENCY = 0.5, 0.2
# Passes over a stage in units of its forward pass: frozen before all that is trained; passing gradients on; computing its own as well.
FORWARD, PASSED_ON, TRAINED = 1, 2, 3
TIMES = (("hours", 3600), ("minutes", 60), ("seconds", 1))


@dataclass(frozen=True)
class Facts:
    """What is known of a run before it starts.

    Attributes:
        num_images: of an epoch; PER_IMAGES where `data_note` says that it is not known.
        planner: of the cache.
        rate: multiply-adds a second that training is expected to do.
    """

    config: RunConfig
    planned: Plan
    stages: "Stages"
    costs: "Mapping[str, StageCost]"
    num_parameters: int
    num_images: int
    data_note: str
    planner: "Planner"
    rate: float
    rate_note: str


def explain(config: RunConfig) -> str:
    """Each phase of the run that `config` names: what is trained, at which rate, how much it costs, what is cached.

    Raises:
        ConfigError: the run is impossible, e.g. there is nothing of the kind to train; the message lists what there is.
    """
    facts = _gather(config)
    phases = facts.planned.phases
    parts = [_head(facts), *(_phase(facts, number, phase) for number, phase in enumerate(phases, start=1))]
    if len(phases) > 1:
        parts.append(f"in all     {_duration(sum(_seconds(facts, phase) for phase in phases))}")
    return "\n".join([*parts, *_notes(facts)])


def _gather(config: RunConfig) -> Facts:
    planned = plan(config)
    check_strategy(config)
    tensorflow_import.import_tensorflow()
    from tl_keras import backbones
    from tl_keras.backbones import macs
    from tl_keras.feature_cache.planner import Planner

    num_classes, num_epoch, num_images, data_note = _data_facts(config)
    machine = start(config, planned)
    plain = build(config, planned, num_classes)
    model = adapt(plain, config)
    measured = macs.measured_rate(machine.precision.removeprefix("mixed_"))
    stages = backbones.stage_layers(model, planned.backbone.name)
    efficiency = DEPTHWISE_EFFICIENCY if planned.backbone.depthwise else EFFICIENCY
    matrices = f"a matrix multiplication in {machine.precision} on {machine.device}"
    return Facts(
        config,
        planned,
        stages,
        macs.stage_costs(model, planned.backbone.name),
        plain.count_params(),
        num_epoch,
        data_note,
        Planner(config, model, stages, planned.phases, num_images),
        measured * efficiency,
        f"{_short(measured)} multiply-adds a second of {matrices}, times {efficiency:g}",
    )


def _data_facts(config: RunConfig) -> "tuple[int, int, NumImages, str]":
    """Number of classes, of images in an epoch and in each split, and what is assumed where the data set is not at hand; nothing is
    fetched."""
    from tl_keras.feature_cache.planner import NumImages

    try:
        if data.find_dataset(config.data).loader == "tfds" and not tfds.is_prepared(config.data):
            raise MissingError("not prepared")
        source = load_source(config.data)
    except (MissingError, DamagedError):
        note = f"{config.data.dataset} is not at hand: {ASSUMED_CLASSES} classes assumed, and figures are for {PER_IMAGES:,} images"
        return ASSUMED_CLASSES, PER_IMAGES, NumImages(PER_IMAGES, 0, 0), note
    splits = data.make_splits(source, config.data, config.seed)
    return len(source.class_names), data.epoch_size(splits.train, config.data.sampling), NumImages.of(splits), ""


def _head(facts: Facts) -> str:
    config, cost = facts.config, sum(cost.multiply_adds for cost in facts.costs.values())
    network = f"{config.model.backbone}, {facts.planned.image_size} px, {facts.num_parameters:,} parameters, {_short(cost)} multiply-adds"
    images = facts.data_note or f"{facts.num_images:,} training images of {config.data.dataset}"
    return f"model      {network}\ndata       {images}\nstrategy   {config.train.strategy}"


def _phase(facts: Facts, number: int, phase: Phase) -> str:
    trained = _trained_parameters(facts, phase)
    total = sum(trained.values())
    share = f"{total:,} of {facts.num_parameters:,} parameters ({100 * total / facts.num_parameters:.2f} %)"
    heading = f"phase {number} of {len(facts.planned.phases)}: {phase.name}, {_epochs(phase.epochs)}, trains {share}"
    rows = [("stage", "trained", "rate", "parameters", "multiply-adds")]
    rows += [_row(facts, phase, stage, count) for stage, count in trained.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(["", heading, *lines, f"  cache    {_cache(facts, phase)}", f"  time     {_duration(_seconds(facts, phase))}"])


def _epochs(number: int) -> str:
    return f"{number} epoch{'s' if number > 1 else ''}"


def _trained_parameters(facts: Facts, phase: Phase) -> dict[str, int]:
    """Stage -> number of its parameters that `phase` trains."""
    from tl_keras.strategies import freezing

    return {
        stage: sum(math.prod(variable.shape) for variable in freezing.trained_variables({stage: layers}, phase))
        for stage, layers in facts.stages.items()
    }


def _row(facts: Facts, phase: Phase, stage: str, num_trained: int) -> tuple[str, ...]:
    from tl_keras.strategies import freezing

    rate = facts.config.train.learning_rate * phase.rate_scale.get(stage, 1.0)
    mode = "training" if freezing.is_live(stage, phase) else "inference"
    kind = phase.trainable.get(stage, "")
    trained = kind if kind == ALL_WEIGHTS else f"{kind}, rest in {mode} mode" if num_trained else f"nothing, in {mode} mode"
    return stage, trained, f"{rate:.3g}" if num_trained else "-", f"{num_trained:,}", _short(facts.costs[stage].multiply_adds)


def _cache(facts: Facts, phase: Phase) -> str:
    from tl_keras.feature_cache.planner import described

    choice, reason = facts.planner.choose(phase)
    return described(choice) if choice else f"nothing is kept, {reason}"


def _seconds(facts: Facts, phase: Phase) -> float:
    """Forward and backward passes of the training images of all epochs of `phase`, at the expected rate; what is kept is computed once."""
    from tl_keras.strategies import freezing

    prefix, total = len(freezing.constant_stages(facts.stages, phase)), 0
    for index, (stage, cost) in enumerate(facts.costs.items()):
        passes = TRAINED if phase.trainable.get(stage) == ALL_WEIGHTS else PASSED_ON
        total += cost.multiply_adds * (FORWARD if index < prefix else passes)
    choice, _ = facts.planner.choose(phase)
    saved = choice.cut.multiply_adds * (phase.epochs - min(phase.epochs, facts.planner.num_views)) if choice else 0
    return (total * phase.epochs - saved) * facts.num_images / facts.rate


def _notes(facts: Facts) -> list[str]:
    uncounted = sorted({name for cost in facts.costs.values() for name in cost.uncounted})
    unit = f" for each {PER_IMAGES:,} training images" if facts.data_note else ""
    return [
        "",
        f"Times are estimates{unit}, training alone, without reading images, validation and test: {facts.rate_note}.",
        *([f"Counted as 0, as no formula is known: {', '.join(uncounted)}."] if uncounted else []),
    ]


def _duration(seconds: float) -> str:
    unit, length = next((row for row in TIMES if seconds >= 2 * row[1]), TIMES[-1])
    digits = 0 if seconds >= 10 * length else 1
    return f"about {seconds / length:.{digits}f} {unit}"


def _short(number: float) -> str:
    """A number with three digits and its decimal prefix, e.g. `1.81 G`."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g} "
