"""Training steps against PyTorch itself: equal models, weights and batches give equal losses, changes of weights and statistics.

Cases of more than one epoch switch something after an epoch, with at least three steps before and after it. torch_reference.py has the
reference values and the formula of the weights.
"""

import numpy as np
import pytest
import tensorflow as tf
from plain_config import PLAIN
from torch_reference import TRAINING_BATCH, torch_training, training_batches, training_tensors

from tl_keras.runs.resolve import resolve
from tl_keras.runs.setup import build_setup
from tl_keras.strategies import ADAPTERS, ALL_WEIGHTS, BATCH_NORM, BIAS, freezing
from tl_keras.training.trainer import Batches, Trainer
from tl_keras.weights.from_publisher import assign_published

BASE = PLAIN.replace(
    dataset="digits", validation_fraction=0.0, backbone="resnet18", stem="cifar", image_size=32, weights="none", normalization="none",
    batch_size=TRAINING_BATCH, epochs=2, frozen_mode="training", selection="last", precision="float32", xla="off",
)  # fmt: skip
NAMES = {"stem": "conv1", "layer1": "layer1", "layer2": "layer2", "layer3": "layer3", "layer4": "layer4", "head": "fc"}
NORMS = {"bn1": "bn1", "layer2.0.downsample.1": "layer2_0_downsample_bn", "layer4.1.bn2": "layer4_1_bn2"}  # torch's name -> ours

OPTIMIZERS = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.03},
    "sgd_nesterov_l2": {"optimizer": "sgd", "learning_rate": 0.03, "nesterov": True, "l2": 0.01},
    "adam": {"optimizer": "adam", "learning_rate": 1e-3},
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01},
    "adamw_small": {"optimizer": "adamw", "learning_rate": 1e-4, "weight_decay": 0.01},
}
# Case and optimizer -> the other settings.
ONE_STEP_AN_EPOCH = {
    "full/sgd": {},
    "full/sgd_nesterov_l2": {},
    "full/adam": {},
    "full/adamw": {},
    "head/sgd": {"strategy": "head"},
    "head_bn_eval/sgd": {"strategy": "head", "frozen_mode": "inference"},
    "freeze_early/sgd": {"strategy": "freeze:layer1+layer2"},
    "bn_only/sgd": {"strategy": "batchnorm"},
    "layer1_layer4/sgd": {"strategy": "train:stem+layer1+layer4"},
    "discriminative/sgd": {"stage_learning_rates": "stem=0.02,head=0.03,*=0.01"},
}
BY_EPOCH = {"schedule_interval": "epoch"}
SWITCHES = {
    "eval_mode_after_1/sgd": {"eval_mode_after": 1},
    "eval_mode_after_1/adamw_small": {"eval_mode_after": 1},
    "eval_mode_after_1_last_2_step_1/sgd_nesterov_l2": {"strategy": "last:2", "eval_mode_after": 1, "schedule": "step:every=1"},
    "batch_norm_inference/sgd": {"batch_norm": "inference"},
    "batch_norm_momentum_eval_mode_after_1/sgd": {"batch_norm_momentum": 0.7, "eval_mode_after": 1},
    "step_1/sgd": {"schedule": "step:every=1,factor=0.1", **BY_EPOCH},
    "step_2/adam": {"strategy": "last:1", "schedule": "step:every=2", "epochs": 4},
    "cosine_by_epoch/sgd_nesterov_l2": {"schedule": "cosine", "epochs": 3, **BY_EPOCH},
    "plateau_threshold/sgd": {"strategy": "last:1", "schedule": "plateau:patience=0,threshold=0.2", "epochs": 3},
    "one_logit/sgd": {"head": "one_logit", "label": "parity"},
    "one_logit_head/adam": {"head": "one_logit", "label": "parity", "strategy": "head", "eval_mode_after": 1},
    "gradual/sgd": {"strategy": "gradual:start=layer4,end=layer3,every=1", "eval_mode_after": 1},
    "gradual_reset_by_phase/sgd_nesterov_l2": {"strategy": "gradual:start=layer4,end=layer3,every=1,reset=phase"},
    "gradual_reset_by_epoch/adam": {"strategy": "gradual:start=layer4,end=layer3,every=2,reset=epoch", "epochs": 3},
    "gradual_as_report_d/sgd_nesterov_l2": {
        "strategy": "gradual:start=layer4,end=layer1,every=1,reset=epoch", "eval_mode_after": 1, "epochs": 4,
    },
    "stage_rates_without_bn1/sgd": {
        "strategy": "train:stem/conv1+layer1+layer2+layer3+layer4", "stage_learning_rates": "stem=7e-3,head=1e-2,*=5e-3",
    },
}  # fmt: skip
# The code of these runs in a faster case.
SLOW = {
    "eval_mode_after_1/sgd", "eval_mode_after_1/adamw_small", "step_1/sgd", "step_2/adam", "one_logit/sgd", "gradual/sgd",
    "gradual_reset_by_phase/sgd_nesterov_l2",
}  # fmt: skip
# Case and norm -> factor on the bounds of its statistics. A ReLU before this norm turns with the last bit: of four runs with Keras's own
# layers on images that differ by half a unit of float32, three are 8.5e-3 from torch in the mean and 1.1 % in the variance.
UNSTABLE = {("gradual_reset_by_epoch/adam", "layer4.1.bn2"): 100}
CASES = {case: {"epochs": 6, **settings} for case, settings in ONE_STEP_AN_EPOCH.items()} | SWITCHES


class RecordingTrainer(Trainer):
    """A trainer that keeps the loss of every step."""

    def take_step(self, step, batch):
        summed_loss, correct = super().take_step(step, batch)
        self.step_losses.append(float(summed_loss) / batch.num_examples)
        return summed_loss, correct


def make_batches(num_batches: int, steps: int, num_classes: int) -> Batches:
    """Return epochs of `steps` batches. Steps beyond `num_batches` begin again."""
    images, labels = training_batches(num_batches, num_classes)
    targets = np.eye(num_classes, dtype="float32")[labels]

    def training(epoch: int) -> tf.data.Dataset:
        order = np.arange(epoch * steps, (epoch + 1) * steps) % num_batches
        return tf.data.Dataset.from_tensor_slices((images[order], targets[order]))

    return Batches(training, (TRAINING_BATCH,) * steps, None)


def train(case: str, expected: dict, directory) -> tuple[RecordingTrainer, dict[str, np.ndarray]]:
    """Return the trainer after its training, and the weights before it."""
    config = BASE.replace(**OPTIMIZERS[case.partition("/")[2]], **CASES[case])
    setup = build_setup(resolve(config))
    tensors = training_tensors(1 if config.model.head == "one_logit" else setup.num_classes)
    assign_published(setup.model, "resnet18", tensors, "the formula")
    before = {weight.path: weight.numpy() for weight in setup.model.weights}
    trainer = RecordingTrainer(
        setup.model, setup.stages, setup.phases, config.train, setup.runtime, loss=setup.loss, unbiased_variance=True
    )
    trainer.step_losses = []
    num_steps = len(expected["loss_before_each_step"])
    trainer.fit(make_batches(expected.get("num_batches", num_steps), num_steps // config.train.epochs, setup.num_classes), directory)
    return trainer, before


def change(trainer: Trainer, stage: str, before: dict[str, np.ndarray]) -> float:
    weights = [weight for layer in trainer.stages[stage] for weight in layer.trainable_weights]
    return float(np.sqrt(sum(np.sum((weight.numpy().astype("float64") - before[weight.path]) ** 2) for weight in weights)))


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES])
def test_training_equals_that_of_torch(case, tmp_path):
    expected = torch_training()[case]
    trainer, before = train(case, expected, tmp_path)
    np.testing.assert_allclose(trainer.step_losses, expected["loss_before_each_step"], atol=1e-3, rtol=0)
    for stage, name in NAMES.items():
        assert change(trainer, stage, before) == pytest.approx(expected["l2_norm_of_parameter_change_per_stage"][name], rel=0.01), name
    assert trainer.progress.phases[-1]["trainable_parameters"] == expected["trainable_parameters"]
    require_statistics(trainer.model, expected, case)
    require_schedule(trainer.progress.history, expected)


def require_statistics(model, expected: dict, case: str) -> None:
    """Compare running statistics. Biased variances, as Keras's own, would be 0.2 % smaller in layer4 after three updates."""
    for name, mean in expected.get("running_mean_after", {"bn1": expected.get("bn1_running_mean_after")}).items():
        atol = 1e-4 * UNSTABLE.get((case, name), 1)
        np.testing.assert_allclose(model.get_layer(NORMS[name]).moving_mean.numpy()[:4], mean, atol=atol, err_msg=name)
    for name, variance in expected.get("running_variance_after", {}).items():
        rtol = 2e-4 * UNSTABLE.get((case, name), 1)
        np.testing.assert_allclose(model.get_layer(NORMS[name]).moving_variance.numpy()[:4], variance, rtol=rtol, err_msg=name)


def require_schedule(history: list[dict], expected: dict) -> None:
    """Compare the learning rates of epochs with that of the first."""
    learning_rates = np.array([row["learning_rate"] for row in history])
    torch_rates = np.array(expected.get("learning_rate_of_each_epoch", learning_rates))
    np.testing.assert_allclose(learning_rates / learning_rates[0], torch_rates / torch_rates[0], rtol=1e-5)


def test_every_reference_case_is_run():
    assert set(CASES) == set(torch_training())


def test_kinds_of_weights_are_those_that_phases_name():
    assert set(freezing.WEIGHT_GROUPS) == {ADAPTERS, ALL_WEIGHTS, BATCH_NORM, BIAS}
