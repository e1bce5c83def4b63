"""Weights that a phase trains and freezes, on a tiny model with BatchNorm and dropout in every stage."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from tl_keras.config import TrainConfig
from tl_keras.errors import ConfigError, TrainingError
from tl_keras.strategies import build_phases, freezing, lora

STRATEGIES = ["full", "head", "last:1", "train:stem", "freeze:body", "batchnorm", "bias"]


def tiny_classifier(size: int = 8) -> tuple[keras.Model, dict]:
    images = keras.Input((size, size, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, name="scale")(images)
    for stage in ("stem", "body"):
        x = keras.layers.Conv2D(6, 3, name=f"{stage}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{stage}_bn", momentum=0.5)(x)
        x = keras.layers.Activation("relu", name=f"{stage}_relu")(x)
        x = keras.layers.Dropout(0.5, name=f"{stage}_out")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(images, keras.layers.Dense(3, name="logits", dtype="float32")(x))
    stages: dict = {"stem": [], "body": [], "head": []}
    for layer in model.layers:
        stages["body" if layer.name.startswith("body") else "head" if layer.name in ("pool", "logits") else "stem"].append(layer)
    return model, stages


def phase_of(strategy: str, frozen_mode: str):
    return build_phases(("stem", "body"), TrainConfig(strategy=strategy, frozen_mode=frozen_mode))[0]


@pytest.mark.parametrize("frozen_mode", ["inference", "training"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_frozen_stages_run_in_frozen_mode(strategy, frozen_mode):
    keras.utils.set_random_seed(0)
    model, stages = tiny_classifier()
    phase = phase_of(strategy, frozen_mode)
    images = np.random.default_rng(0).uniform(0, 255, (16, 8, 8, 3)).astype("float32")
    before = freezing.weight_hashes(stages)
    with freezing.apply_phase(stages, phase):
        outputs = [
            keras.Model(model.input, model.get_layer(f"{stage}_out").output)(images, training=True).numpy() for stage in ("stem", "body")
        ]
    changed = {path for path, value in freezing.weight_hashes(stages).items() if value != before[path]}
    training = [stage for stage in ("stem", "body") if stage in phase.trainable or frozen_mode == "training"]
    assert changed == {f"{stage}_bn/moving_{statistic}" for stage in training for statistic in ("mean", "variance")}
    inference = keras.Model(model.input, model.get_layer("stem_out").output)(images, training=False).numpy()
    if "stem" not in training:
        np.testing.assert_array_equal(outputs[0], inference)
    else:
        assert (outputs[0] == 0).mean() > 0.6  # half by dropout, some by the ReLU
    assert all(layer.trainable for layer in model.layers)
    assert [layer.rate for layer in model.layers if hasattr(layer, "rate")] == [0.5, 0.5]


def observed_modes(model: keras.Model, stages: dict, phase) -> tuple[set[str], set[str]]:
    """Return the stages whose running statistics move, and those whose dropout is on, in a step of `phase`."""
    images = np.random.default_rng(0).uniform(0, 255, (16, 8, 8, 3)).astype("float32")
    before = freezing.weight_hashes(stages)
    outputs = [model.get_layer(f"{stage}_{end}").output for stage in ("stem", "body") for end in ("relu", "out")]
    with freezing.apply_phase(stages, phase):
        stem, stem_dropped, body, body_dropped = keras.Model(model.input, outputs)(images, training=True)
    changed = {path for path, value in freezing.weight_hashes(stages).items() if value != before[path]}
    moved = {path.partition("_bn/")[0] for path in changed}
    assert changed == {f"{stage}_bn/moving_{statistic}" for stage in moved for statistic in ("mean", "variance")}
    pairs = {"stem": (stem, stem_dropped), "body": (body, body_dropped)}
    return moved, {stage for stage, (plain, dropped) in pairs.items() if not np.array_equal(plain, dropped)}


@pytest.mark.parametrize(
    ("changes", "moved", "dropped"),
    [
        ({}, {"body"}, {"body"}),
        ({"frozen_mode": "training"}, {"stem", "body"}, {"stem", "body"}),
        ({"batch_norm": "inference"}, set(), {"body"}),
        ({"batch_norm": "inference", "frozen_mode": "training"}, {"stem"}, {"stem", "body"}),
        ({"eval_mode": True, "frozen_mode": "training"}, set(), set()),
        ({"layers": {"body": ("conv",)}}, set(), set()),
        ({"layers": {"body": ("conv",)}, "frozen_mode": "training"}, {"stem", "body"}, {"stem", "body"}),
        ({"layers": {"body": ("conv", "bn")}}, {"body"}, set()),
        ({"layers": {"body": ("body_out",)}}, set(), {"body"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),  # the order of a set differs between processes
)
def test_every_layer_runs_in_the_mode_of_the_phase(changes, moved, dropped):
    """The stem is frozen; of the body all layers are trained, or those that `layers` names."""
    model, stages = tiny_classifier()
    phase = replace(phase_of("last:1", "inference"), **changes)
    assert observed_modes(model, stages, phase) == (moved, dropped)
    statistics = {path for path in freezing.updated_paths(stages, phase) if "moving" in path}
    assert statistics == {f"{stage}_bn/moving_{statistic}" for stage in moved for statistic in ("mean", "variance")}
    ends = changes.get("layers", {}).get("body", ("conv", "bn"))
    trained = {path for path in freezing.updated_paths(stages, phase) - statistics if not path.startswith("logits")}
    assert {path.split("/")[0] for path in trained} == {f"body_{end}" for end in ends if end in ("conv", "bn")}
    assert all(layer.trainable for layer in model.layers)
    assert [layer.rate for layer in model.layers if hasattr(layer, "rate")] == [0.5, 0.5]


@pytest.mark.parametrize("frozen_mode", ["inference", "training"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_audit_accepts_updates_of_the_phase_and_no_others(strategy, frozen_mode):
    model, stages = tiny_classifier()
    phase = phase_of(strategy, frozen_mode)
    before = freezing.weight_hashes(stages)
    weights = {weight.path: weight for weight in model.weights}
    expected = freezing.updated_paths(stages, phase)
    for path in expected:
        weights[path].assign(weights[path] + 1e-3)
    assert freezing.verify_frozen(stages, phase, before) == {
        "changed": len(expected),
        "unchanged": len(weights) - len(expected),
        "below_resolution": 0,
    }
    for path in sorted(set(weights) - expected)[:1]:
        weights[path].assign(weights[path] + 1e-3)
        with pytest.raises(TrainingError, match=f"{path}.*although the strategy freezes"):
            freezing.verify_frozen(stages, phase, before)


def test_the_audit_finds_a_weight_without_gradient():
    _, stages = tiny_classifier()
    phase = phase_of("full", "inference")
    with pytest.raises(TrainingError, match="did not change although the strategy trains"):
        freezing.verify_frozen(stages, phase, freezing.weight_hashes(stages))


def test_the_audit_ignores_updates_below_float32_resolution():
    """Learning rates that fall tenfold from stage to stage become smaller than the resolution of a weight."""
    model, stages = tiny_classifier()
    phase = replace(phase_of("full", "inference"), lr_multipliers={"stem": 1e-5, "body": 1e-5})
    before = freezing.weight_hashes(stages)
    for path in freezing.updated_paths(stages, phase):
        weight = next(weight for weight in model.weights if weight.path == path)
        if path.startswith("logits") or "moving" in path:
            weight.assign(weight + 1e-3)
    below_resolution = sum(path.split("/")[0] != "logits" for path in freezing.lr_multipliers(stages, phase))
    assert freezing.verify_frozen(stages, phase, before, learning_rate=0.1)["below_resolution"] == below_resolution
    with pytest.raises(TrainingError, match="did not change"):
        freezing.verify_frozen(stages, phase, before, learning_rate=1.0)


def test_lr_multipliers_are_those_of_the_stages():
    _, stages = tiny_classifier()
    phase = replace(phase_of("full", "inference"), lr_multipliers={"stem": 0.1})
    multipliers = freezing.lr_multipliers(stages, phase)
    assert multipliers["stem_conv/kernel"] == 0.1 and multipliers["logits/kernel"] == 1.0


def test_layers_that_the_model_lacks_are_refused():
    _, stages = tiny_classifier()
    for end in ("conv", "bn", "stem_conv"):
        freezing.require_layers(stages, phase_of(f"train:stem/{end}+body", "inference"))
    for end in ("conv2", "on", "relu"):  # absent, not a whole word, without weights
        with pytest.raises(ConfigError, match=rf"`strategy=train:stem/{end}`: no layer .* Layers of stem: stem_bn, stem_conv\."):
            freezing.require_layers(stages, phase_of(f"train:stem/{end}+body", "inference"))


@pytest.mark.parametrize("frozen_mode", ["inference", "training"])
def test_the_audit_covers_layers_of_a_partly_trained_stage(frozen_mode):
    """Conv1 without bn1: the audit accepts a new kernel, and refuses a new gamma of the same stage."""
    model, stages = tiny_classifier()
    phase = phase_of("train:stem/conv", frozen_mode)
    before = freezing.weight_hashes(stages)
    weights = {weight.path: weight for weight in model.weights}
    assert {path for path in freezing.updated_paths(stages, phase) if "moving" not in path} == {
        "stem_conv/kernel", "stem_conv/bias", "logits/kernel", "logits/bias",
    }  # fmt: skip
    for path in freezing.updated_paths(stages, phase):
        weights[path].assign(weights[path] + 1e-3)
    freezing.verify_frozen(stages, phase, before)
    weights["stem_bn/gamma"].assign(weights["stem_bn/gamma"] + 1e-3)
    with pytest.raises(TrainingError, match="stem_bn/gamma.*although the strategy freezes"):
        freezing.verify_frozen(stages, phase, before)


def adapted_classifier() -> tuple[keras.Model, dict]:
    plain, stages = tiny_classifier()
    model = lora.add_lora(plain, ["stem_conv", "body_conv"], rank=2, alpha=2, seed=0)
    return model, {stage: [model.get_layer(layer.name) for layer in layers] for stage, layers in stages.items()}


ADAPTED = {f"{stage}_conv/{factor}/kernel" for stage in ("stem", "body") for factor in ("down", "up")} | {"logits/kernel", "logits/bias"}
STATISTICS = {f"{stage}_bn/moving_{statistic}" for stage in ("stem", "body") for statistic in ("mean", "variance")}


@pytest.mark.parametrize("frozen_mode", ["inference", "training"])
def test_adapters_are_trained_in_frozen_stages(frozen_mode):
    model, stages = adapted_classifier()
    phase = phase_of("lora", frozen_mode)
    assert {variable.path for variable in freezing.trained_variables(stages, phase)} == ADAPTED
    assert freezing.updated_paths(stages, phase) == ADAPTED | (STATISTICS if frozen_mode == "training" else set())
    images = np.random.default_rng(0).uniform(0, 255, (16, 8, 8, 3)).astype("float32")
    before = freezing.weight_hashes(stages)
    with freezing.apply_phase(stages, phase):
        outputs = model(images, training=True).numpy()
    changed = {path for path, value in freezing.weight_hashes(stages).items() if value != before[path]}
    assert changed == (STATISTICS if frozen_mode == "training" else set())
    assert np.array_equal(outputs, model(images, training=False).numpy()) == (frozen_mode == "inference")


def test_the_audit_finds_a_changed_kernel_under_adapters():
    model, stages = adapted_classifier()
    phase = phase_of("lora", "inference")
    before = freezing.weight_hashes(stages)
    weights = {weight.path: weight for weight in model.weights}
    for path in ADAPTED:
        weights[path].assign(weights[path] + 1e-3)
    assert freezing.verify_frozen(stages, phase, before) == {"changed": 6, "unchanged": len(weights) - 6, "below_resolution": 0}
    weights["body_conv/base/kernel"].assign(weights["body_conv/base/kernel"] + 1e-3)
    with pytest.raises(TrainingError, match="body_conv/base/kernel.*although the strategy freezes"):
        freezing.verify_frozen(stages, phase, before)
