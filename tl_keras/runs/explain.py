"""Describes what a run would train, and at what cost, before it starts. Needs neither data nor weights, and takes seconds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tl_keras import data
from tl_keras.config import RunConfig
from tl_keras.data import tfds
from tl_keras.errors import DamagedError, MissingError
from tl_keras.runs.resolve import ResolvedRun, check_strategy, load_source, resolve
from tl_keras.runs.setup import add_adapters, build_model, build_runtime
from tl_keras.strategies import Phase
from tl_keras.utils.tensorflow_import import import_tensorflow
from tl_keras.utils.text import align_columns

if TYPE_CHECKING:
    from tl_keras.backbones.macs import StageCost
    from tl_keras.feature_cache.planner import NumImages, Planner
    from tl_keras.strategies.freezing import Stages

ASSUMED_CLASSES, ASSUMED_IMAGES = 10, 1000  # if the data set is not available; two classes with `head=one_logit`


@dataclass(frozen=True)
class RunEstimate:
    """Sizes and costs of a run that has not started.

    Attributes:
        costs: stage -> cost of its forward pass for one image.
        num_parameters: parameters of the model without adapters.
        num_images: training images in an epoch; `ASSUMED_IMAGES` if unknown.
        data_note: what is assumed about the data set, if it is not available.
        planner: chooses the split of the feature cache.
        batch_notes: remarks on the batches of an epoch; empty if the data set is not available.
    """

    resolved: ResolvedRun
    stages: "Stages"
    costs: "Mapping[str, StageCost]"
    num_parameters: int
    num_images: int
    data_note: str
    planner: "Planner"
    batch_notes: Sequence[str]


def explain(config: RunConfig) -> str:
    """Return a description of each phase of a run: what is trained, at which learning rate, its cost, and what is cached.

    Raises:
        ConfigError: The run is impossible, e.g. the model has no weights of the group to train; the message lists what it has.
    """
    import_tensorflow()
    from tl_keras.training.runtime import preserve_global_state

    with preserve_global_state():
        estimate = _estimate(resolve(config))
        phases = [_phase_lines(estimate, number, phase) for number, phase in enumerate(estimate.resolved.phases, start=1)]
        return "\n".join([_summary(estimate), *phases, *_notes(estimate)])


def _estimate(resolved: ResolvedRun) -> RunEstimate:
    from tl_keras import backbones
    from tl_keras.backbones import macs
    from tl_keras.feature_cache.planner import Planner

    replicas = build_runtime(resolved).replicas
    check_strategy(resolved)
    num_classes, num_epoch, num_images, data_note = _data_facts(resolved.config)
    plain = build_model(resolved, num_classes)
    model = add_adapters(plain, resolved)
    stages = backbones.stage_layers(model, resolved.backbone.name)
    return RunEstimate(
        resolved=resolved,
        stages=stages,
        costs=macs.count_macs(model, resolved.backbone.name),
        num_parameters=plain.count_params(),
        num_images=num_epoch,
        data_note=data_note,
        planner=Planner(resolved.config, model, stages, resolved.phases, num_images),
        batch_notes=[] if data_note else _batch_notes(resolved, stages, num_epoch, replicas),
    )


def _batch_notes(resolved: ResolvedRun, stages: "Stages", num_epoch: int, replicas: int) -> list[str]:
    """Return remarks on the batches of an epoch of `num_epoch` images."""
    from tl_keras.training.last_batch import describe_merged, min_last_batch

    config = resolved.config.train
    min_last = min_last_batch(config, stages, resolved.phases, replicas)
    return describe_merged(data.batch_sizes(num_epoch - num_epoch % replicas, config.batch_size, min_last), config.batch_size)


def _data_facts(config: RunConfig) -> "tuple[int, int, NumImages, str]":
    """Return the number of classes, of images in an epoch and in each split, and what is assumed. Nothing is downloaded."""
    from tl_keras.feature_cache.planner import NumImages

    try:
        if data.find_dataset(config.data).loader == "tfds" and not tfds.is_prepared(config.data):
            raise MissingError("not prepared")
        source = load_source(config.data)
    except (MissingError, DamagedError):
        num_classes = (2 if config.model.head == "one_logit" else ASSUMED_CLASSES) + config.data.extra_classes
        note = f"{config.data.dataset} is not available: {num_classes:,} classes and {ASSUMED_IMAGES:,} training images are assumed"
        return num_classes, ASSUMED_IMAGES, NumImages(ASSUMED_IMAGES, 0, 0), note
    splits = data.make_splits(source, config.data, config.seed)
    return len(source.class_names), data.epoch_size(splits.train, config.data.sampling), NumImages.of(splits), ""


def _summary(estimate: RunEstimate) -> str:
    config, geometry = estimate.resolved.config, estimate.resolved.geometry
    macs = sum(cost.macs for cost in estimate.costs.values())
    model = f"{config.model.backbone}, {geometry}, {estimate.num_parameters:,} parameters, {_si_number(macs)} MACs"
    images = estimate.data_note or f"{estimate.num_images:,} training images of {config.data.dataset}"
    return f"model      {model}\ndata       {images}\nstrategy   {config.train.strategy}"


def _phase_lines(estimate: RunEstimate, number: int, phase: Phase) -> str:
    trained = _trained_parameters(estimate, phase)
    total = sum(trained.values())
    parameters = f"{total:,} of {estimate.num_parameters:,} parameters ({100 * total / estimate.num_parameters:.2f} %)"
    epochs = f"{phase.epochs} epoch{'s' if phase.epochs > 1 else ''}"
    heading = f"phase {number} of {len(estimate.resolved.phases)}: {phase.name}, {epochs}, trains {parameters}"
    rows: list[tuple[str, ...]] = [("stage", "trained", "learning rate", "parameters", "MACs")]
    rows += [_stage_cells(estimate, phase, stage, count) for stage, count in trained.items()]
    lines = [f"  {line}" for line in align_columns(rows)]
    return "\n".join(["", heading, *lines, f"  cache    {_cache_note(estimate, phase)}"])


def _trained_parameters(estimate: RunEstimate, phase: Phase) -> dict[str, int]:
    """Return stage -> number of its parameters that `phase` trains."""
    from tl_keras.strategies import freezing

    return {
        stage: sum(math.prod(variable.shape) for variable in freezing.trained_variables({stage: layers}, phase))
        for stage, layers in estimate.stages.items()
    }


def _stage_cells(estimate: RunEstimate, phase: Phase, stage: str, num_trained: int) -> tuple[str, ...]:
    from tl_keras.strategies import freezing

    learning_rate = estimate.resolved.config.train.learning_rate * phase.lr_multipliers.get(stage, 1.0)
    if num_trained:
        trained = "+".join(phase.layers.get(stage, [phase.trainable[stage]]))
        kinds = " and ".join(freezing.kinds_in_inference_mode(estimate.stages[stage], stage, phase))
        trained += f", {kinds} in inference mode" if kinds else ""
    else:
        trained = f"nothing, in {'inference' if phase.eval_mode else phase.frozen_mode} mode"
    macs = _si_number(estimate.costs[stage].macs)
    return stage, trained, f"{learning_rate:.3g}" if num_trained else "-", f"{num_trained:,}", macs


def _cache_note(estimate: RunEstimate, phase: Phase) -> str:
    from tl_keras.feature_cache.planner import describe_split

    choice, reason = estimate.planner.choose(phase)
    return describe_split(choice) if choice else f"not cached: {reason}"


def _notes(estimate: RunEstimate) -> list[str]:
    uncounted = sorted({name for cost in estimate.costs.values() for name in cost.uncounted_layers})
    notes = [f"layers without a formula for MACs, counted as 0: {', '.join(uncounted)}"] if uncounted else []
    notes += estimate.resolved.weight_notes()
    return [text for note in (*estimate.batch_notes, *notes) for text in ("", f"{note[0].upper()}{note[1:]}.")]


def _si_number(number: float) -> str:
    """Return a number with three digits and its SI prefix, e.g. `1.81 G`."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g} "
