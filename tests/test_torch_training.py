"""Six training steps against PyTorch itself: equal models, weights and batches give equal losses and changes of the weights.

The reference values and the formula of the weights are in torch_reference.py.
"""

import numpy as np
import pytest
import tensorflow as tf
from torch_reference import make_tensors, resnet, torch_training

from tl_keras import backbones
from tl_keras.config import RuntimeConfig, TrainConfig
from tl_keras.strategies import ADAPTERS, ALL_WEIGHTS, BATCH_NORM, BIAS, Phase, freezing
from tl_keras.training.losses import build_loss
from tl_keras.training.runtime import make_runtime
from tl_keras.training.trainer import Batches, Trainer
from tl_keras.weights.from_publisher import assign_published

STEPS, BATCH = 6, 8
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "head")
NAMES = dict(zip(STAGES, ("conv1", "layer1", "layer2", "layer3", "layer4", "fc"), strict=True))

OPTIMIZERS = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.03},
    "sgd_nesterov_l2": {"optimizer": "sgd", "learning_rate": 0.03, "nesterov": True, "l2": 0.01},
    "adam": {"optimizer": "adam", "learning_rate": 1e-3},
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01},
}


def phase(trained=STAGES, *, kinds=None, frozen_mode="training", learning_rates=None) -> Phase:
    trainable = {stage: (kinds or {}).get(stage, ALL_WEIGHTS) for stage in trained}
    return Phase(
        "case",
        STEPS,
        trainable,
        lr_multipliers={stage: learning_rate / 0.03 for stage, learning_rate in (learning_rates or {}).items()},
        frozen_mode=frozen_mode,
    )


CASES = {
    "full/sgd": phase(),
    "full/sgd_nesterov_l2": phase(),
    "full/adam": phase(),
    "full/adamw": phase(),
    "head/sgd": phase(["head"]),
    "head_bn_eval/sgd": phase(["head"], frozen_mode="inference"),
    "freeze_early/sgd": phase(["stem", "layer3", "layer4", "head"]),
    "bn_only/sgd": phase(kinds=dict.fromkeys(STAGES[:-1], BATCH_NORM)),
    "layer1_layer4/sgd": phase(["stem", "layer1", "layer4", "head"]),
    "discriminative/sgd": phase(learning_rates={**dict.fromkeys(STAGES, 0.01), "stem": 0.02, "head": 0.03}),
}


def initial_tensors() -> dict[str, np.ndarray]:
    shapes = resnet(3) | {"fc.weight": (10, 512), "fc.bias": (10,)}
    made = make_tensors(shapes)
    made["fc.weight"] *= 0.15
    made["fc.bias"] *= 0
    for name in made:
        if name.endswith("bn2.weight"):
            made[name] *= 0.2
    return made


def train(case: str, directory) -> tuple[Trainer, list[float], dict[str, np.ndarray]]:
    config = TrainConfig(epochs=STEPS, batch_size=BATCH, selection="last", **OPTIMIZERS[case.partition("/")[2]])
    runtime = make_runtime(RuntimeConfig(precision="float32", xla="off"), seed=0, batch_size=BATCH, depthwise=False)
    model = backbones.build_classifier("resnet18", 10, image_size=32, stem="cifar", normalization="none")
    assign_published(model, "resnet18", initial_tensors(), "the formula")
    images = np.random.default_rng(0).standard_normal((STEPS, BATCH, 32, 32, 3)).astype("float32")
    labels = np.random.default_rng(1).integers(0, 10, (STEPS, BATCH)).astype("int32")
    stages = backbones.stage_layers(model, "resnet18")
    before = {weight.path: weight.numpy() for weight in model.weights}
    trainer = Trainer(model, stages, [CASES[case]], config, runtime, loss=build_loss(config, {}, 10))
    # Each epoch is one batch, so its loss is the loss before the step.
    batches = Batches(lambda epoch: tf.data.Dataset.from_tensors((images[epoch], np.eye(10, dtype="float32")[labels[epoch]])), BATCH, None)
    return trainer, [row["loss"] for row in trainer.fit(batches, directory).history], before


def change(trainer: Trainer, stage: str, before: dict[str, np.ndarray]) -> float:
    weights = [weight for layer in trainer.stages[stage] for weight in layer.trainable_weights]
    return float(np.sqrt(sum(np.sum((weight.numpy().astype("float64") - before[weight.path]) ** 2) for weight in weights)))


@pytest.mark.parametrize("case", CASES)
def test_training_equals_that_of_torch(case, tmp_path):
    expected = torch_training()[case]
    trainer, losses, before = train(case, tmp_path)
    np.testing.assert_allclose(losses, expected["loss_before_each_step"], atol=1e-3, rtol=0)
    for stage, name in NAMES.items():
        assert change(trainer, stage, before) == pytest.approx(expected["l2_norm_of_parameter_change_per_stage"][name], rel=0.01), name
    mean = trainer.model.get_layer("bn1").moving_mean.numpy()[:4]
    np.testing.assert_allclose(mean, expected["bn1_running_mean_after"], atol=1e-4)
    assert trainer.progress.phases[0]["trainable_parameters"] == expected["trainable_parameters"]


def test_every_reference_case_is_run():
    assert set(CASES) == set(torch_training())


def test_kinds_of_weights_are_those_that_phases_name():
    assert set(freezing.WEIGHT_GROUPS) == {ADAPTERS, ALL_WEIGHTS, BATCH_NORM, BIAS}
