"""Makes a model follow a phase, and proves afterwards that it did.

Which weights get a gradient is decided here, by stage, and handed to the training step; Keras's `trainable` is only set for
what it means to BatchNormalization: a layer with `trainable=False` runs on its running statistics, whatever `training` says.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import keras
import numpy as np

from tl_keras.backbones import HEAD
from tl_keras.errors import ConfigError, TrainingError
from tl_keras.strategies import ADAPTERS, ALL_WEIGHTS, BATCH_NORM, BIAS, Phase
from tl_keras.strategies.lora_layer import LowRank

Stages = Mapping[str, Sequence[keras.layers.Layer]]

RATE_ATTRIBUTES = ("rate", "drop_path_rate")  # of Dropout and its kin, and of ConvNeXt's stochastic depth
LISTED = 5  # variables named in an audit's message
LOST_RATE = 2e-6  # a learning rate so small that float32 may round every step of a weight near 1 away


@contextmanager
def follow(stages: Stages, phase: Phase) -> Iterator[None]:
    """Set BatchNorm and dropout of every stage to the mode that `phase` asks for.

    Layers are put back when the phase ends, so that what is saved afterwards is the model as it was built.
    """
    rates = {}
    for stage, layers in stages.items():
        for layer in layers if not is_live(stage, phase) else ():
            # Keras passes training=True to every layer of a functional model, so what is random or running must be stopped at the layer.
            layer.trainable = not _is_batch_norm(layer)
            rates |= {(layer, name): getattr(layer, name) for name in RATE_ATTRIBUTES if getattr(layer, name, None)}
    try:
        for layer, name in rates:
            setattr(layer, name, 0.0)
        yield
    finally:
        for (layer, name), rate in rates.items():
            setattr(layer, name, rate)
        for layer in (layer for layers in stages.values() for layer in layers):
            layer.trainable = True


def is_live(stage: str, phase: Phase) -> bool:
    """Whether BatchNorm and dropout of `stage` run as in training. Adapters are trained beside a stage that stays frozen."""
    return phase.frozen_mode == "training" or phase.trainable.get(stage, ADAPTERS) != ADAPTERS


def constant_stages(stages: Stages, phase: Phase) -> list[str]:
    """The first stages that give an image the same output in every epoch of `phase`: nothing is trained, nothing is random.

    In training mode that takes a stage without BatchNorm and dropout. To be asked outside `follow`.
    """
    constant = []
    for stage, layers in stages.items():
        live = is_live(stage, phase)
        if stage == HEAD or trained_variables({stage: layers}, phase) or (live and any(map(_varies, layers))):
            break
        constant.append(stage)
    return constant


def _varies(layer: keras.layers.Layer) -> bool:
    """Whether the output of `layer` in training mode is not that in inference mode."""
    return _is_batch_norm(layer) or any(getattr(layer, name, None) for name in RATE_ATTRIBUTES)


def trained_variables(stages: Stages, phase: Phase) -> list[keras.Variable]:
    """The variables that `phase` trains, in stage order; to be asked outside `follow`, of layers as they were built."""
    return [variable for stage in stages if stage in phase.trainable for variable in _trainable(stages[stage], phase.trainable[stage])]


def rate_scales(stages: Stages, phase: Phase) -> dict[str, float]:
    """Variable path -> factor on the learning rate, for the variables that `phase` trains."""
    return {
        variable.path: phase.rate_scale.get(stage, 1.0)
        for stage, kind in phase.trainable.items()
        for variable in _trainable(stages[stage], kind)
    }


def _trainable(layers: Sequence[keras.layers.Layer], kind: str) -> list[keras.Variable]:
    return [weight for layer in layers for weight in layer.trainable_weights if WEIGHT_GROUPS[kind](layer, weight)]


def _is_batch_norm(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


# Kind of weights in Phase.trainable -> whether a weight of a layer is of that kind. PyTorch calls the beta of a norm its bias.
WEIGHT_GROUPS: Mapping[str, Callable[[keras.layers.Layer, keras.Variable], bool]] = {
    ALL_WEIGHTS: lambda layer, weight: True,
    BATCH_NORM: lambda layer, weight: _is_batch_norm(layer),
    BIAS: lambda layer, weight: weight.name in ("bias", "beta"),
    ADAPTERS: lambda layer, weight: isinstance(layer, LowRank) and any(weight is factor for factor in layer.factors),
}


def require_weights(stages: Stages, phase: Phase) -> None:
    """ConfigError where `phase` trains one kind of weights of stages that have none, e.g. batch norm of a ViT."""
    for kind in set(phase.trainable.values()) - {ALL_WEIGHTS}:
        named = [stage for stage, of_kind in phase.trainable.items() if of_kind == kind]
        if not any(_trainable(stages[stage], kind) for stage in named):
            raise ConfigError(
                f"`strategy`: the stages {', '.join(named)} have no {kind} weights, so nothing but the head would be trained."
            )


def weight_paths(stages: Stages) -> set[str]:
    """The path of every weight of the model."""
    return {weight.path for weight in _weights(stages)}


def fingerprints(stages: Stages) -> dict[str, str]:
    """Variable path -> hash of its value, for every weight of the model."""
    hashed = {weight.path: hashlib.blake2b(content(weight), digest_size=16) for weight in _weights(stages)}
    return {path: digest.hexdigest() for path, digest in hashed.items()}


def content(weight: keras.Variable) -> np.ndarray:
    """The value of `weight`, not copied where it lies on a CPU: to be read before it changes."""
    return np.asarray(memoryview(weight.value.read_value()))


def _weights(stages: Stages) -> list[keras.Variable]:
    return [weight for layers in stages.values() for layer in layers for weight in layer.weights]


def audit(stages: Stages, phase: Phase, before: Mapping[str, str], learning_rate: float = 1.0) -> dict[str, int]:
    """Compare every weight with its fingerprint `before` the phase.

    Args:
        learning_rate: before the rate scales of the phase; at `LOST_RATE` and below a trained weight may stay where it was.

    Returns:
        How many weights moved and how many did not, and of these how many were trained at a rate that float32 rounds away.

    Raises:
        TrainingError: a weight moved that the phase froze, or one did not that it trains.
    """
    after = fingerprints(stages)
    moved = {path for path, value in after.items() if value != before[path]}
    expected = expected_to_move(stages, phase)
    lost = {path for path, scale in rate_scales(stages, phase).items() if scale * learning_rate <= LOST_RATE} - moved
    strays, stuck = sorted(moved - expected), sorted(expected - moved - lost)
    if strays:
        raise TrainingError(
            f"Phase {phase.name!r}: {listing(strays)} moved although the strategy freezes them. This is a defect of tl_keras: report it."
        )
    if stuck:
        raise TrainingError(
            f"Phase {phase.name!r}: {listing(stuck)} did not move although the strategy trains them. They got no gradient (dead units "
            "before them) or a rate too small for float32. Try another `learning_rate` or other weights."
        )
    return {"changed": len(moved), "unchanged": len(after) - len(moved), "below_resolution": len(lost)}


def expected_to_move(stages: Stages, phase: Phase) -> set[str]:
    """Paths of the weights that the phase changes: those it trains, and the running statistics of every BatchNorm in training mode."""
    norms = [layer for stage in stages if is_live(stage, phase) for layer in stages[stage] if _is_batch_norm(layer)]
    statistics = {weight.path for norm in norms for weight in (norm.moving_mean, norm.moving_variance)}
    return statistics | {variable.path for variable in trained_variables(stages, phase)}


def listing(paths: Sequence[str]) -> str:
    """How many weights, and the first of them, for a message."""
    more = f" and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
    return f"{len(paths)} weights ({', '.join(paths[:LISTED])}{more})"
