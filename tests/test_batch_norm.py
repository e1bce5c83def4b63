"""BatchNorm in one kernel: a step equals that of Keras's own layer, with the running variance of Keras or of PyTorch."""

from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain_config import PLAIN
from test_freezing import tiny_classifier
from test_trainer import make_batches, make_trainer

from tl_keras import backbones
from tl_keras.config import RunConfig
from tl_keras.feature_cache.split_model import split_model
from tl_keras.runs import setup as run_setup
from tl_keras.runs.resolve import resolve
from tl_keras.strategies import Phase, freezing
from tl_keras.training import batch_norm
from tl_keras.training.batch_norm import fused_batch_norm

SHAPE, MOMENTUM = (4, 3, 3, 2), 0.9
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(3, 2, (2, *SHAPE)).astype("float32")
VALUES = {"gamma": [0.5, 2.0], "beta": [-1.0, 0.3], "moving_mean": [2.5, 3.5], "moving_variance": [3.0, 5.0]}
ROUNDING = {"float32": 3e-6, "bfloat16": 1e-2, "float16": 2e-3}  # relative to the largest value


def norm_model(momentum: float = MOMENTUM, **options) -> keras.Model:
    images = keras.Input(SHAPE[1:])
    return keras.Model(images, keras.layers.BatchNormalization(momentum=momentum, name="norm", **options)(images))


def torch_running_variance(momentum: float = MOMENTUM) -> np.ndarray:
    """Return the running variance after two batches of `IMAGES`, by the formula of torch.nn.BatchNorm2d."""
    variance = np.ones(SHAPE[-1])
    for images in IMAGES.astype(np.float64):
        variance = momentum * variance + (1 - momentum) * images.var(axis=(0, 1, 2), ddof=1)
    return variance


def filled_norm(trainable: bool, shape: tuple[int, ...], dtype: str, **options) -> keras.layers.BatchNormalization:
    """Return a layer with the values of `VALUES`."""
    norm = keras.layers.BatchNormalization(dtype=dtype if dtype == "float32" else f"mixed_{dtype}", momentum=0.8, **options)
    norm.build(shape)
    for weight in norm.weights:
        weight.assign(VALUES[weight.name])
    norm.trainable = trainable
    return norm


def step_values(norm: keras.layers.BatchNormalization, inputs: np.ndarray, jit_compile: bool) -> list[np.ndarray]:
    """Return output, gradients of the input and of the parameters, and running statistics after a training step in a compiled function."""
    parameters = [weight.value for weight in (norm.gamma, norm.beta) if weight is not None]
    slopes = np.random.default_rng(1).standard_normal(inputs.shape)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(inputs):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([inputs, *parameters])
            outputs = norm(inputs, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") * slopes)
        return outputs, *tape.gradient(loss, [inputs, *parameters])

    values = step(tf.cast(inputs, norm.compute_dtype))
    assert values[0].dtype == norm.compute_dtype
    return [tf.cast(value, "float32").numpy() for value in values] + [norm.moving_mean.numpy(), norm.moving_variance.numpy()]


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("trainable", [True, False], ids=["batch statistics", "running statistics"])
@pytest.mark.parametrize(
    ("shape", "options", "jit_compile"),
    [(SHAPE, {}, False), (SHAPE, {}, True), ((9, 2), {}, False), ((4, 5, 2), {"scale": False}, False), (SHAPE, {"center": False}, False)],
    ids=str,
)
def test_a_step_equals_that_of_the_stock_layer(shape, options, jit_compile, trainable, dtype):
    inputs = np.random.default_rng(2).normal(3, 2, shape)
    stock, fused = (filled_norm(trainable, shape, dtype, **options) for _ in range(2))
    expected = step_values(stock, inputs, jit_compile)
    with fused_batch_norm([fused]):
        values = step_values(fused, inputs, jit_compile)
    for value, reference in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, reference, rtol=0, atol=ROUNDING[dtype] * np.abs(reference).max())


@pytest.mark.parametrize("momentum", [0.9, 0.5, 0.0])
@pytest.mark.parametrize("compiled", ["eager", "graph", "xla"])
@pytest.mark.parametrize("options", [{}, {"synchronized": True}], ids=["fused", "stock"])
def test_the_running_variance_is_that_of_torch(momentum, compiled, options):
    """Layers without a fused kernel are corrected too."""
    model, stock = norm_model(momentum, **options), norm_model(momentum, **options)
    for images in IMAGES:
        outputs = []
        for one in (model, stock):
            with fused_batch_norm(one.layers, unbiased_variance=True) if one is model else nullcontext():
                call = one if compiled == "eager" else tf.function(one, jit_compile=compiled == "xla", autograph=False)
                outputs.append(np.asarray(call(images, training=True)))
        np.testing.assert_allclose(*outputs, atol=2e-6)  # normalization uses the biased variance in both
    np.testing.assert_allclose(model.get_layer("norm").moving_variance, torch_running_variance(momentum), rtol=2e-6)
    np.testing.assert_allclose(model.get_layer("norm").moving_mean, stock.get_layer("norm").moving_mean, rtol=1e-6)
    assert np.abs(stock.get_layer("norm").moving_variance - torch_running_variance(momentum)).max() > 1e-3


def test_bfloat16_keeps_statistics_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = norm_model()
    with fused_batch_norm(model.layers, unbiased_variance=True):
        for images in IMAGES:
            model(images, training=True)
    np.testing.assert_allclose(model.get_layer("norm").moving_variance, torch_running_variance(), rtol=1e-2)
    assert model.get_layer("norm").moving_variance.dtype == "float32"


class Doubled(keras.layers.BatchNormalization):
    """A layer with a `call` of its own."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


@pytest.mark.parametrize(
    ("norm_type", "options", "masked"),
    [
        (Doubled, {}, False),
        *((keras.layers.BatchNormalization, o, m) for o, m in (({"axis": 1}, False), ({"renorm": True}, False), ({}, True))),
    ],
    ids=str,
)
def test_other_layers_keep_their_arithmetic(norm_type, options, masked, monkeypatch):
    monkeypatch.delattr(batch_norm, "_fused_call")
    fused, stock = (norm_type(**options) for _ in range(2))
    mask = np.ones(SHAPE[:-1], bool) if masked else None
    with fused_batch_norm([fused]):
        value = fused(IMAGES[0], training=True, mask=mask)
    np.testing.assert_array_equal(value, stock(IMAGES[0], training=True, mask=mask))
    np.testing.assert_array_equal(fused.moving_variance, stock.moving_variance)


@pytest.mark.parametrize("unbiased_variance", [False, True])
def test_outside_of_training_nothing_is_fused_and_nothing_moves(unbiased_variance, monkeypatch):
    monkeypatch.delattr(batch_norm, "_fused_call")
    model = norm_model()
    with fused_batch_norm(model.layers, unbiased_variance=unbiased_variance):
        outputs = model(IMAGES[0], training=False)
    np.testing.assert_array_equal(model.get_layer("norm").moving_variance, np.ones(2))
    np.testing.assert_array_equal(outputs, norm_model()(IMAGES[0], training=False))


@pytest.mark.parametrize("unbiased_variance", [False, True])
def test_a_single_value_keeps_a_finite_variance(unbiased_variance):
    model = keras.Sequential([keras.Input((1, 1, 2)), keras.layers.BatchNormalization(momentum=0.9)])
    with fused_batch_norm(model.layers, unbiased_variance=unbiased_variance):
        model(np.ones((1, 1, 1, 2), np.float32), training=True)
    np.testing.assert_allclose(model.layers[0].moving_variance, [0.9, 0.9])


def test_a_suffix_moves_the_variance_of_the_whole_model():
    model = backbones.build_classifier("tiny", 3)
    split = split_model(model, "tiny", "stem")
    images = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype("float32")
    body = keras.Model(model.input, model.get_layer("body_conv").output)(images).numpy()
    with fused_batch_norm(model.layers, unbiased_variance=True):
        split.suffix(split.prefix(images), training=True)
    expected = 0.9 + 0.1 * body.astype(np.float64).var(axis=(0, 1, 2), ddof=1)
    np.testing.assert_allclose(model.get_layer("body_bn").moving_variance, expected, rtol=1e-5)


def test_what_is_saved_in_the_block_has_stock_layers(tmp_path):
    """Its configuration is that of a model that was never exchanged, copies are not exchanged, and the block leaves nothing behind."""
    model, stock = norm_model(), norm_model()
    with fused_batch_norm(model.layers, unbiased_variance=True):
        model(IMAGES[0], training=True)
        model.save(tmp_path / "model.keras")
        copy = keras.models.clone_model(model)
        assert model.get_layer("norm").get_config() == stock.get_layer("norm").get_config()
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one in (model, copy, loaded):
        norm = one.get_layer("norm")
        assert type(norm) is keras.layers.BatchNormalization and "call" not in vars(norm)
    np.testing.assert_array_equal(loaded(IMAGES[1]), model(IMAGES[1]))


def test_a_failing_block_restores_the_layers():
    model = norm_model()
    with pytest.raises(KeyError), fused_batch_norm(model.layers):
        raise KeyError
    assert "call" not in vars(model.get_layer("norm"))


@pytest.mark.parametrize("settings", [{}, {"xla": "on"}, {"distribution": "mirrored"}], ids=str)
def test_trained_models_keep_the_variance_of_torch(settings, tmp_path):
    """One step from equal weights, on one device, with XLA and on two replicas: (v - momentum v0) grows by n / (n - 1)."""
    phases = (Phase("full", 1, dict.fromkeys(("stem", "body", "head"), "all")),)
    variances = []
    for unbiased in (False, True):
        trainer = make_trainer(phases=phases, settings=settings, unbiased_variance=unbiased, epochs=1, learning_rate=1e-9, selection="last")
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
    assert len(norms) == 20 and {norm.momentum for norm in norms} == {0.7}
    assert_only_fused_in_a_trace(setup, norms, unbiased_variance=True)


def assert_only_fused_in_a_trace(setup, norms, unbiased_variance: bool) -> None:
    """The step calls the model with all layers exchanged, and no layer is before and after."""
    trainer = run_setup.make_trainer(setup)
    assert trainer._unbiased_variance == unbiased_variance

    def forward(images, training):
        return [training, *("call" in vars(norm) for norm in norms)]

    assert all(trainer._with_fused_kernels(forward, setup.phases[0])(None, training=True))
    assert not any("call" in vars(norm) for norm in norms)


def test_a_backbone_of_keras_keeps_the_variance_and_momentum_of_keras():
    setup = run_setup.build_setup(resolve(run_config(backbone="mobilenet_0.25", image_size=32, strategy="full")))
    norms = [layer for layer in setup.model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.99}
    assert_only_fused_in_a_trace(setup, norms, unbiased_variance=False)


def test_frozen_statistics_move_in_training_mode_and_not_after_it():
    """The kernel follows the mode that a phase sets on each layer."""
    model, stages = tiny_classifier()
    images = np.random.default_rng(0).uniform(0, 255, (16, 8, 8, 3)).astype("float32")
    for eval_mode in (False, True):
        phase = Phase("head", 1, {"head": "all"}, frozen_mode="training", eval_mode=eval_mode)
        before = freezing.weight_hashes(stages)
        with freezing.apply_phase(stages, phase), fused_batch_norm(model.layers):
            model(images, training=True)
        changed = {path for path, value in freezing.weight_hashes(stages).items() if value != before[path]}
        assert len(changed) == (0 if eval_mode else 4)


@pytest.mark.parametrize(("frozen_mode", "fused"), [("inference", {"body_bn"}), ("training", {"stem_bn", "body_bn"})])
def test_the_frozen_prefix_keeps_the_arithmetic_of_its_cached_features(frozen_mode, fused):
    phase = Phase("body", 1, {"body": "all", "head": "all"}, frozen_mode=frozen_mode)
    trainer = make_trainer(phases=(phase,))
    norms = [layer for layer in trainer.model.layers if isinstance(layer, keras.layers.BatchNormalization)]

    def exchanged(images, training):
        return {norm.name for norm in norms if "call" in vars(norm)}

    assert trainer._with_fused_kernels(exchanged, phase)(None, training=True) == fused
