"""Applies a phase to a model, and verifies afterwards that only the weights of the phase have changed.

The weights that get a gradient are selected here, by stage, and passed to the training step. Keras's `trainable` is set only for
its effect on BatchNormalization: a layer with `trainable=False` uses its running statistics, whatever `training` says.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import keras
import numpy as np

from tl_keras.backbones import HEAD
from tl_keras.errors import ConfigError, TrainingError
from tl_keras.strategies import ADAPTERS, ALL_WEIGHTS, BATCH_NORM, BIAS, Phase
from tl_keras.strategies.lora_layer import LoRALayer
from tl_keras.utils.text import join_names

Stages = Mapping[str, Sequence[keras.layers.Layer]]

DROPOUT_ATTRIBUTES = ("rate", "drop_path_rate")  # of the Dropout layers, and of ConvNeXt's stochastic depth
MIN_EFFECTIVE_LR = 2e-6  # at smaller learning rates float32 may round away every update of a weight near 1


@contextmanager
def apply_phase(stages: Stages, phase: Phase) -> Iterator[None]:
    """Run every BatchNorm and dropout in the mode that `phase` asks for, see `runs_in_training_mode`.

    The layers are restored when the phase ends, so the model is saved as it was built.
    """
    dropout_rates: dict[tuple[keras.layers.Layer, str], float] = {}
    for stage, layers in stages.items():
        for layer in (layer for layer in layers if not runs_in_training_mode(layer, stage, phase)):
            # Keras passes training=True to every layer of a functional model, so inference mode has to be set on the layer.
            layer.trainable = not _is_batch_norm(layer)
            dropout_rates |= {(layer, name): getattr(layer, name) for name in DROPOUT_ATTRIBUTES if getattr(layer, name, None)}
    try:
        for layer, name in dropout_rates:
            setattr(layer, name, 0.0)
        yield
    finally:
        for (layer, name), dropout_rate in dropout_rates.items():
            setattr(layer, name, dropout_rate)
        for layer in (layer for layers in stages.values() for layer in layers):
            layer.trainable = True


def runs_in_training_mode(layer: keras.layers.Layer, stage: str, phase: Phase) -> bool:
    """Return True if `layer` of `stage` runs in training mode: on statistics of the batch, or with dropout."""
    if phase.eval_mode:
        return False
    if _is_frozen(layer, stage, phase):
        return phase.frozen_mode == "training"
    return not (_is_batch_norm(layer) and phase.batch_norm == "inference")


def _is_frozen(layer: keras.layers.Layer, stage: str, phase: Phase) -> bool:
    """Return True if `phase` freezes `layer` of `stage`. A stage of which only the adapters are trained counts as frozen."""
    return phase.trainable.get(stage, ADAPTERS) == ADAPTERS or _is_left_out(layer, stage, phase)


def _is_left_out(layer: keras.layers.Layer, stage: str, phase: Phase) -> bool:
    """Return True if `phase` trains other layers of `stage`, but not this one."""
    ends = phase.layers.get(stage)
    return ends is not None and not any(name_matches(layer.name, end) for end in ends)


def kinds_in_inference_mode(layers: Sequence[keras.layers.Layer], stage: str, phase: Phase) -> list[str]:
    """Return which of BatchNorm and dropout, if `layers` of `stage` have them, run in inference mode; `some ...` if not all do."""
    dropouts = [layer for layer in layers if _is_stochastic(layer) and not _is_batch_norm(layer)]
    kinds = {"BatchNorm": [layer for layer in layers if _is_batch_norm(layer)], "dropout": dropouts}
    modes = {kind: {runs_in_training_mode(layer, stage, phase) for layer in members} for kind, members in kinds.items()}
    return [kind if len(states) == 1 else f"some {kind}" for kind, states in modes.items() if False in states]


def name_matches(name: str, end: str) -> bool:
    """Return True if a layer name is `end` or ends in it, e.g. `block1_query` in `query`."""
    return name == end or name.endswith(f"_{end}")


def short_name(name: str) -> str:
    """Return the name of a layer without the numbered blocks before it, e.g. `attention_out` for `block1_attention_out`."""
    parts = name.split("_")
    while len(parts) > 1 and any(letter.isdigit() for letter in parts[0]):
        parts = parts[1:]
    return "_".join(parts)


def frozen_prefix(stages: Stages, phase: Phase) -> list[str]:
    """Return the frozen prefix of `phase`: the leading stages without trained weights or randomness.

    The output of the prefix for an image is the same in every epoch. Stages whose BatchNorm or dropout runs in training mode do not
    count. Call outside `apply_phase`.
    """
    prefix = []
    for stage, layers in stages.items():
        if stage == HEAD or trained_variables({stage: layers}, phase) or has_randomness(layers, stage, phase):
            break
        prefix.append(stage)
    return prefix


def has_randomness(layers: Sequence[keras.layers.Layer], stage: str, phase: Phase) -> bool:
    """Return True if the output of `layers` of `stage` for an image depends on the batch or on chance in `phase`."""
    return any(_is_stochastic(layer) and runs_in_training_mode(layer, stage, phase) for layer in layers)


def _is_stochastic(layer: keras.layers.Layer) -> bool:
    """Return True if the output of `layer` for an image depends on the batch or on chance in training mode."""
    return _is_batch_norm(layer) or any(getattr(layer, name, None) for name in DROPOUT_ATTRIBUTES)


def trained_variables(stages: Stages, phase: Phase) -> list[keras.Variable]:
    """Return the variables that `phase` trains, in stage order. Call outside `apply_phase`."""
    return [weight for stage, layers in stages.items() for weight in _trained_weights(layers, stage, phase)]


def lr_multipliers(stages: Stages, phase: Phase) -> dict[str, float]:
    """Return variable path -> factor on the learning rate, for the variables that `phase` trains."""
    return {
        weight.path: phase.lr_multipliers.get(stage, 1.0)
        for stage, layers in stages.items()
        for weight in _trained_weights(layers, stage, phase)
    }


def _trained_weights(layers: Sequence[keras.layers.Layer], stage: str, phase: Phase) -> list[keras.Variable]:
    """Return the weights of `layers` of `stage` that `phase` trains."""
    if stage not in phase.trainable:
        return []
    is_trained = WEIGHT_GROUPS[phase.trainable[stage]]
    selected = [layer for layer in layers if not _is_left_out(layer, stage, phase)]
    return [weight for layer in selected for weight in layer.trainable_weights if is_trained(layer, weight)]


def _is_batch_norm(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


# Weight group in Phase.trainable -> predicate of a layer and a weight of it. PyTorch calls the beta of a norm its bias.
WEIGHT_GROUPS: Mapping[str, Callable[[keras.layers.Layer, keras.Variable], bool]] = {
    ALL_WEIGHTS: lambda layer, weight: True,
    BATCH_NORM: lambda layer, weight: _is_batch_norm(layer),
    BIAS: lambda layer, weight: weight.name in ("bias", "beta"),
    ADAPTERS: lambda layer, weight: isinstance(layer, LoRALayer) and any(weight is factor for factor in layer.factors),
}


def require_layers(stages: Stages, phase: Phase) -> None:
    """Raise ConfigError if `phase.layers` names layers that the model does not have, or that have no weights."""
    for stage, ends in phase.layers.items():
        names = [layer.name for layer in stages[stage] if layer.trainable_weights]
        for end in ends:
            if not any(name_matches(name, end) for name in names):
                available = ", ".join(sorted({short_name(name) for name in names}))
                raise ConfigError(f"`strategy=train:{stage}/{end}`: no layer with weights ends in {end!r}. Layers of {stage}: {available}.")


def weight_paths(stages: Stages) -> set[str]:
    """Return the path of every weight of the model."""
    return {weight.path for weight in _all_weights(stages)}


def weight_hashes(stages: Stages) -> dict[str, str]:
    """Return variable path -> hash of its value, for every weight of the model."""
    hashes = {weight.path: hashlib.blake2b(numpy_view(weight), digest_size=16) for weight in _all_weights(stages)}
    return {path: digest.hexdigest() for path, digest in hashes.items()}


def numpy_view(weight: keras.Variable) -> np.ndarray:
    """Return the value of `weight`, without a copy if it is on the CPU. Read it before the weight changes."""
    return np.asarray(memoryview(weight.value.read_value()))


def _all_weights(stages: Stages) -> list[keras.Variable]:
    return [weight for layers in stages.values() for layer in layers for weight in layer.weights]


def verify_frozen(stages: Stages, phase: Phase, before: Mapping[str, str], learning_rate: float = 1.0) -> dict[str, int]:
    """Compare every weight with its hash before the phase.

    Args:
        before: `weight_hashes` before the phase.
        learning_rate: learning rate without the multipliers of the phase. A trained weight may keep its value if its learning rate
            is at most `MIN_EFFECTIVE_LR`.

    Returns:
        Numbers of changed and unchanged weights, and of trained weights whose update is below float32 resolution.

    Raises:
        TrainingError: A frozen weight has changed, or a trained one has not.
    """
    after = weight_hashes(stages)
    changed = {path for path, value in after.items() if value != before[path]}
    expected = updated_paths(stages, phase)
    tiny_updates = {path for path, factor in lr_multipliers(stages, phase).items() if factor * learning_rate <= MIN_EFFECTIVE_LR}
    below_resolution = tiny_updates - changed
    _raise_if_unexpected(phase, sorted(changed - expected), sorted(expected - changed - below_resolution))
    return {"changed": len(changed), "unchanged": len(after) - len(changed), "below_resolution": len(below_resolution)}


def _raise_if_unexpected(phase: Phase, changed: Sequence[str], unchanged: Sequence[str]) -> None:
    """Raise TrainingError for frozen weights that have `changed`, or for trained ones that are `unchanged`."""
    if changed:
        raise TrainingError(
            f"Phase {phase.name!r}: {len(changed)} weights ({join_names(changed)}) changed although the strategy freezes them. "
            "This is a defect of tl_keras: report it."
        )
    if unchanged:
        raise TrainingError(
            f"Phase {phase.name!r}: {len(unchanged)} weights ({join_names(unchanged)}) did not change although the strategy trains them. "
            "They got no gradient (dead units before them; in the first update, the inner factors of LoRA, since the outer ones begin at "
            "0) or a learning rate too small for float32. Try more updates, another `learning_rate` or other weights."
        )


def updated_paths(stages: Stages, phase: Phase) -> set[str]:
    """Return the paths of the weights that `phase` updates: trained ones, and running statistics of BatchNorm in training mode."""
    norms = [(layer, stage) for stage, layers in stages.items() for layer in layers if _is_batch_norm(layer)]
    updated = [norm for norm, stage in norms if runs_in_training_mode(norm, stage, phase)]
    statistics = {weight.path for norm in updated for weight in (norm.moving_mean, norm.moving_variance)}
    return statistics | {weight.path for weight in trained_variables(stages, phase)}
