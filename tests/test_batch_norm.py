"""Running statistics of BatchNorm: PyTorch's unbiased variance, and the setting of the momentum, in every way a model is trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain_config import PLAIN
from test_freezing import tiny_classifier
from test_trainer import make_batches, make_trainer

from tl_keras import backbones
from tl_keras.backbones.layers import use_unbiased_variance
from tl_keras.config import RunConfig
from tl_keras.feature_cache.split_model import split_model
from tl_keras.runs import setup as run_setup
from tl_keras.runs.resolve import resolve
from tl_keras.strategies import Phase, freezing

SHAPE, MOMENTUM = (4, 3, 3, 2), 0.9
IMAGES = np.random.default_rng(0).normal(3, 2, (2, *SHAPE)).astype("float32")


def norm_model(momentum: float = MOMENTUM, unbiased: bool = True) -> keras.Model:
    images = keras.Input(SHAPE[1:])
    model = keras.Model(images, keras.layers.BatchNormalization(momentum=momentum, name="norm")(images))
    if unbiased:
        use_unbiased_variance(model)
    return model


def torch_running_variance(momentum: float = MOMENTUM) -> np.ndarray:
    """Return the running variance after two batches of `IMAGES`, by the formula of torch.nn.BatchNorm2d."""
    variance = np.ones(SHAPE[-1])
    for images in IMAGES.astype(np.float64):
        variance = momentum * variance + (1 - momentum) * images.var(axis=(0, 1, 2), ddof=1)
    return variance


@pytest.mark.parametrize("momentum", [0.9, 0.5, 0.0])
@pytest.mark.parametrize("compiled", ["eager", "graph", "xla"])
def test_the_running_variance_is_that_of_torch(momentum, compiled):
    model, stock = norm_model(momentum), norm_model(momentum, unbiased=False)
    for images in IMAGES:
        outputs = []
        for one in (model, stock):
            call = one if compiled == "eager" else tf.function(one, jit_compile=compiled == "xla", autograph=False)
            outputs.append(np.asarray(call(images, training=True)))
        np.testing.assert_array_equal(*outputs)  # normalisation uses the biased variance in both
    np.testing.assert_allclose(model.get_layer("norm").moving_variance, torch_running_variance(momentum), rtol=2e-6)
    np.testing.assert_array_equal(model.get_layer("norm").moving_mean, stock.get_layer("norm").moving_mean)
    assert np.abs(stock.get_layer("norm").moving_variance - torch_running_variance(momentum)).max() > 1e-3


def test_bfloat16_keeps_statistics_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = norm_model()
    for images in IMAGES:
        model(images, training=True)
    np.testing.assert_allclose(model.get_layer("norm").moving_variance, torch_running_variance(), rtol=1e-2)
    assert model.get_layer("norm").moving_variance.dtype == "float32"


def test_a_second_call_changes_nothing():
    model = norm_model()
    use_unbiased_variance(model)
    for images in IMAGES:
        model(images, training=True)
    np.testing.assert_allclose(model.get_layer("norm").moving_variance, torch_running_variance(), rtol=2e-6)


@pytest.mark.parametrize(("trainable", "training"), [(True, False), (False, True)])
def test_in_inference_mode_nothing_moves(trainable, training):
    model = norm_model()
    model.get_layer("norm").trainable = trainable
    outputs = model(IMAGES[0], training=training)
    np.testing.assert_array_equal(model.get_layer("norm").moving_variance, np.ones(2))
    np.testing.assert_array_equal(outputs, norm_model(unbiased=False)(IMAGES[0], training=False))


def test_a_single_value_keeps_a_finite_variance():
    model = keras.Sequential([keras.Input((1, 1, 2)), keras.layers.BatchNormalization()])
    use_unbiased_variance(model)
    model(np.ones((1, 1, 1, 2), np.float32), training=True)
    assert np.isfinite(model.layers[0].moving_variance).all()


def test_a_suffix_moves_the_variance_of_the_whole_model():
    model = backbones.build_classifier("tiny", 3)
    use_unbiased_variance(model)
    split = split_model(model, "tiny", "stem")
    images = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype("float32")
    body = keras.Model(model.input, model.get_layer("body_conv").output)(images).numpy()
    split.suffix(split.prefix(images), training=True)
    expected = 0.9 + 0.1 * body.astype(np.float64).var(axis=(0, 1, 2), ddof=1)
    np.testing.assert_allclose(model.get_layer("body_bn").moving_variance, expected, rtol=1e-5)


def test_the_saved_model_has_stock_layers(tmp_path):
    """The saved model is that of a model that never had the correction."""
    model, stock = norm_model(), norm_model(unbiased=False)
    assert model.get_layer("norm").get_config() == stock.get_layer("norm").get_config()
    model(IMAGES[0], training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("norm")) is keras.layers.BatchNormalization and "call" not in vars(loaded.get_layer("norm"))
    np.testing.assert_array_equal(loaded(IMAGES[1]), model(IMAGES[1]))


@pytest.mark.parametrize("settings", [{}, {"xla": "on"}, {"distribution": "mirrored"}], ids=str)
def test_trained_models_keep_the_variance_of_torch(settings, tmp_path):
    """One step from equal weights, on one device, with XLA and on two replicas: (v - momentum v0) grows by n / (n - 1)."""
    phases = (Phase("full", 1, dict.fromkeys(("stem", "body", "head"), "all")),)
    variances = []
    for unbiased in (False, True):
        trainer = make_trainer(phases=phases, settings=settings, epochs=1, learning_rate=1e-9, selection="last")
        if unbiased:
            use_unbiased_variance(trainer.model)
        with trainer.runtime.scope(), trainer.phase_step(phases[0]) as step:
            batch = next(trainer.batches(make_batches(replicas=trainer.runtime.replicas), 0))
            trainer.take_step(step, batch)
        variances.append(trainer.model.get_layer("stem_bn").moving_variance.numpy())
    num_values = 8 // trainer.runtime.replicas * 36  # 6 x 6 values of each image on a replica
    stock, unbiased = (variance - 0.5 for variance in variances)  # the momentum of this model is 0.5
    np.testing.assert_allclose(unbiased / stock, num_values / (num_values - 1), rtol=2e-6)


def run_config(**settings) -> RunConfig:
    base = {"dataset": "digits", "weights": "none", "precision": "float32", "limit_train": 64, "limit_test": 32}
    return PLAIN.replace(**{**base, **settings})


@pytest.mark.parametrize(("backbone", "expected"), [("resnet18", True), ("efficientnet_lite0", True), ("mobilenet_0.25", False)])
def test_ports_from_torch_keep_its_running_variance(backbone, expected):
    assert backbones.get_backbone(backbone).unbiased_variance == expected


@pytest.mark.parametrize("strategy", ["full", "lora:targets=all"])
def test_a_run_sets_variance_and_momentum_after_adapters(strategy):
    settings = {"backbone": "resnet18", "stem": "cifar", "image_size": 32, "batch_norm_momentum": 0.7}
    setup = run_setup.build_setup(resolve(run_config(strategy=strategy, **settings)))
    norms = [layer for layer in setup.model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 20 and {norm.momentum for norm in norms} == {0.7} and all("call" in vars(norm) for norm in norms)


def test_a_backbone_of_keras_keeps_the_variance_and_momentum_of_keras():
    setup = run_setup.build_setup(resolve(run_config(backbone="mobilenet_0.25", image_size=32, strategy="head")))
    norms = [layer for layer in setup.model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.99} and not any("call" in vars(norm) for norm in norms)


def test_frozen_statistics_move_in_training_mode_and_not_after_it():
    """The correction follows the mode that a phase sets on each layer."""
    model, stages = tiny_classifier()
    use_unbiased_variance(model)
    images = np.random.default_rng(0).uniform(0, 255, (16, 8, 8, 3)).astype("float32")
    for eval_mode in (False, True):
        phase = Phase("head", 1, {"head": "all"}, frozen_mode="training", eval_mode=eval_mode)
        before = freezing.weight_hashes(stages)
        with freezing.apply_phase(stages, phase):
            model(images, training=True)
        changed = {path for path, value in freezing.weight_hashes(stages).items() if value != before[path]}
        assert len(changed) == (0 if eval_mode else 4)
