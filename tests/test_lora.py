"""Low-rank adapters: their outputs, the layers that get them, merging, and the file of the adapters."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from plain_config import PLAIN

from tl_keras import backbones, weights
from tl_keras.backbones import vit
from tl_keras.config import TrainConfig
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.exports import export_run
from tl_keras.results import run_directory
from tl_keras.runs.evaluate import evaluate_run
from tl_keras.runs.fallbacks import EMBEDDED_SETTINGS
from tl_keras.runs.resolve import check_strategy, locate_weights, resolve
from tl_keras.runs.run import run
from tl_keras.runs.setup import build_model
from tl_keras.strategies import build_phases, freezing, lora

RANDOM = np.random.default_rng(0)
LAYERS = {
    "dense": (layers.Dense(5, "relu"), (7,)),
    "dense on tokens": (layers.Dense(5, keras.activations.gelu), (4, 7)),
    "query": (layers.EinsumDense("btd,dhk->bthk", (None, 2, 3), bias_axes="hk"), (4, 6)),
    "attention_out": (layers.EinsumDense("bthk,hkd->btd", (None, 6), bias_axes="d"), (4, 2, 3)),
    "conv": (layers.Conv2D(5, 3, 2, "same", activation="relu"), (9, 9, 4)),
    "dilated conv": (layers.Conv2D(5, (3, 2), dilation_rate=2, use_bias=False), (9, 9, 4)),
}
FAN_IN_OUT = {
    "dense": (7, 5),
    "dense on tokens": (7, 5),
    "query": (6, 6),
    "attention_out": (6, 6),
    "conv": (36, 5),
    "dilated conv": (24, 5),
}


def one_layer(name: str) -> tuple[keras.Model, np.ndarray]:
    layer, shape = LAYERS[name]
    inputs = keras.Input(shape, name="image")
    new = type(layer).from_config({**layer.get_config(), "name": "block1_query", "bias_initializer": "random_normal"})
    return keras.Model(inputs, new(inputs)), RANDOM.normal(size=(3, *shape)).astype("float32")


def set_factors(model: keras.Model, size: float = 0.3) -> None:
    random = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, lora.LoRALayer):
            for factor in layer.factors:
                factor.assign(random.normal(0, size, factor.shape))


@pytest.mark.parametrize("name", LAYERS)
def test_a_new_adapter_does_not_change_the_output(name):
    """Bit-identical, eagerly and compiled, as B is zero."""
    model, inputs = one_layer(name)
    adapted = lora.add_lora(model, ["block1_query"], rank=2, alpha=6, seed=1)
    np.testing.assert_array_equal(adapted(inputs), model(inputs))
    np.testing.assert_array_equal(tf.function(adapted)(inputs), tf.function(model)(inputs))
    a, b = adapted.get_layer("block1_query").factors
    assert np.ptp(a.numpy()) > 0 and not b.numpy().any()


@pytest.mark.parametrize("name", LAYERS)
def test_an_adapter_has_the_parameters_of_the_paper(name):
    """The number is rank x (inputs + outputs) of the layer's matrix, for any number of axes."""
    model, _ = one_layer(name)
    (adapter,) = lora.lora_layers(lora.add_lora(model, ["block1_query"], rank=2, alpha=2, seed=0))
    assert sum(factor.numpy().size for factor in adapter.factors) == 2 * sum(FAN_IN_OUT[name])


def test_a_block_of_vit_has_the_parameters_of_the_paper():
    """ViT-B/16 at rank 8, query and value: 12 blocks of 2 x 8 x (768 + 768) make 294,912, 1.2 MB in float32."""
    images = keras.Input((16, 16, 3))
    model = keras.Model(images, vit.build(images, num_blocks=1, num_heads=12, dim=768, mlp_dim=4))
    adapted = lora.add_lora(model, lora.match_layers({"all": model.layers}, ["attention"]), rank=8, alpha=8, seed=0)
    assert adapted.count_params() - model.count_params() == 294_912 // 12


@pytest.mark.parametrize("name", LAYERS)
def test_merging_adds_the_scaled_product_to_the_kernel(name):
    model, inputs = one_layer(name)
    adapted = lora.add_lora(model, ["block1_query"], rank=2, alpha=6, seed=1)
    set_factors(adapted)
    merged = lora.merge(adapted)
    expected = adapted(inputs).numpy()
    assert np.abs(expected - model(inputs)).max() > 0.1
    np.testing.assert_allclose(merged(inputs), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    layer, plain = merged.get_layer("block1_query"), model.get_layer("block1_query")
    assert layer.get_config() == plain.get_config() and type(layer) is type(plain)
    a, b = (factor.numpy() for factor in adapted.get_layer("block1_query").factors)
    rows, columns = FAN_IN_OUT[name]
    update = (layer.kernel.numpy() - plain.kernel.numpy()).reshape(rows, columns)
    np.testing.assert_allclose(update, 6 / 2 * a.reshape(rows, 2) @ b.reshape(2, columns), atol=1e-5)
    assert np.linalg.matrix_rank(update, tol=1e-4) == 2


def test_initial_factors_depend_on_the_seed_alone():
    images = keras.Input((4,))
    model = keras.Model(images, layers.Dense(4, name="two")(layers.Dense(4, name="one")(images)))
    first, again, other = (
        [layer.down.kernel.numpy() for layer in lora.lora_layers(lora.add_lora(model, ["one", "two"], rank=2, alpha=2, seed=seed))]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0], other[0])
    assert np.abs(first).max() <= 1 / np.sqrt(4)


def tiny_vit() -> tuple[keras.Model, dict]:
    """Return two blocks of the port of ViT at 32 px, which has five tokens."""
    images = keras.Input((32, 32, 3), name="image")
    features = vit.build(images, num_blocks=2, num_heads=2, dim=8, mlp_dim=16)
    model = keras.Model(images, layers.Dense(3, name="logits", dtype="float32")(features))
    stages: dict = {"embed": [], "block1": [], "block2": [], "norm": [], "head": []}
    for layer in model.layers:
        name = layer.name.partition("_")[0]
        stages["head" if name == "logits" else name if name in stages else "embed"].append(layer)
    return model, stages


VIT_TARGETS = {
    ("attention",): ["block1_query", "block1_value", "block2_query", "block2_value"],
    ("query",): ["block1_query", "block2_query"],
    ("mlp1", "attention_out"): ["block1_attention_out", "block1_mlp1", "block2_attention_out", "block2_mlp1"],
    ("block2",): [f"block2_{part}" for part in ("query", "key", "value", "attention_out", "mlp1", "mlp2")],
    ("embed", "block1_key"): ["conv_proj", "block1_key"],
}


@pytest.mark.parametrize("targets", VIT_TARGETS)
def test_targets_match_groups_ends_of_names_and_stages(targets):
    _, stages = tiny_vit()
    assert sorted(lora.match_layers(stages, targets)) == sorted(VIT_TARGETS[targets])


def test_the_target_all_matches_every_matrix_except_head_and_embeddings():
    model, stages = tiny_vit()
    left = {layer.name for layer in model.layers if hasattr(layer, "kernel")} - set(lora.match_layers(stages, ["all"]))
    assert left == {"logits", "class_token", "pos_embedding"}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["attention", "conv9"], "'conv9' matches no layer.*all; the stages embed, block1, block2; .*attention_out, conv_proj, key, mlp1"),
        (["class_token"], "'class_token' matches no layer"),
        (["logits"], "'logits' matches no layer"),
        (["norm"], "'norm' matches no layer"),
    ],
)
def test_a_target_that_matches_nothing_is_refused_with_the_possible_targets(targets, message):
    _, stages = tiny_vit()
    with pytest.raises(ConfigError, match=message):
        lora.match_layers(stages, targets)


def test_grouped_and_depthwise_convolutions_are_not_matched():
    images = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, groups=2, name="grouped")(images)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.SeparableConv2D(8, 3, name="separable")(x)
    model = keras.Model(images, layers.Conv2D(4, 1, name="pointwise")(x))
    assert lora.match_layers({"body": model.layers, "head": []}, ["all"]) == ["pointwise"]


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_attention_targets_are_refused_on_a_backbone_without_attention(name):
    settings = {"backbone": name, "weights": "none", "image_size": 64}
    with pytest.raises(ConfigError, match=f"{name} has no attention weights. Use `strategy=lora:targets=all`"):
        resolve(PLAIN.replace(strategy="lora", **settings))
    with pytest.raises(ConfigError, match=r"'fc9' matches no layer.*conv1"):
        check_strategy(resolve(PLAIN.replace(strategy="lora:targets=fc9", **settings)))
    check_strategy(resolve(PLAIN.replace(strategy="lora:targets=conv1", **settings)))


@pytest.mark.parametrize("strategy", ["lora:targets=attention", "lora:targets=all", "lora:targets=mlp1+key+embed"])
def test_a_whole_model_is_adapted_and_merged(strategy):
    model, stages = tiny_vit()
    (phase,) = build_phases(("embed", "block1", "block2", "norm"), TrainConfig(strategy=strategy))
    names = lora.match_layers(stages, strategy.partition("targets=")[2].split("+"))
    adapted = lora.add_lora(model, names, rank=2, alpha=4, seed=0)
    adapted_stages = {stage: [adapted.get_layer(layer.name) for layer in part] for stage, part in stages.items()}
    images = RANDOM.uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(adapted(images), model(images))
    trained = {variable.path for variable in freezing.trained_variables(adapted_stages, phase)}
    assert trained == {f"{name}/{part}/kernel" for name in names for part in ("down", "up")} | {"logits/kernel", "logits/bias"}
    set_factors(adapted, 0.1)
    expected, merged = adapted(images).numpy(), lora.merge(adapted)
    np.testing.assert_allclose(merged(images), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert [weight.path for weight in merged.weights] == [weight.path for weight in model.weights]


def test_bfloat16_keeps_float32_factors():
    keras.config.set_dtype_policy("mixed_bfloat16")
    images = keras.Input((7,))
    model, inputs = keras.Model(images, layers.Dense(5, name="dense")(images)), RANDOM.normal(size=(3, 7))
    adapted = lora.add_lora(model, ["dense"], rank=2, alpha=2, seed=0)
    assert adapted.output.dtype == "bfloat16" and {weight.dtype for weight in adapted.weights} == {"float32"}
    assert lora.merge(adapted).output.dtype == "bfloat16" and np.isfinite(adapted(inputs).numpy().astype("float32")).all()


CONFIG = PLAIN.replace(
    **EMBEDDED_SETTINGS,
    strategy="lora:rank=2,alpha=4,targets=conv2+fc6",
    epochs=2,
    batch_size=32,
    learning_rate=2e-3,
    fraction=0.1,
    limit_test=60,
    precision="float32",
    selection="last",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return directory, run(CONFIG, directory)


def base_model() -> keras.Model:
    model = build_model(resolve(CONFIG), 10)
    weights.load_weights(model, CONFIG.model.backbone, locate_weights(CONFIG))
    return model


def test_a_run_trains_only_factors_and_head(finished):
    _, result = finished
    (phase,) = result["phases"]
    factors = 2 * (5 * 5 * 16 + 48) + 2 * (6 * 6 * 64 + 384)
    assert phase["trainable_parameters"] == factors + 384 * 10 + 10
    assert phase["audit"]["changed"] == 6
    assert result["model"]["parameters"] == base_model().count_params()


def test_the_saved_model_has_stock_layers_and_the_tested_weights(finished, tmp_path):
    """`model.keras` needs no class of tl_keras and reproduces the test loss. Its export agrees with it in a fresh process."""
    directory, result = finished
    with zipfile.ZipFile(directory / "model.keras") as archive:
        assert b"tl_keras" not in archive.read("config.json")
    model = keras.models.load_model(directory / "model.keras", compile=False)
    assert not lora.lora_layers(model) and [weight.path for weight in model.weights] == [weight.path for weight in base_model().weights]
    assert evaluate_run(directory, {}).metrics["loss"] == pytest.approx(result["metrics"]["test"]["loss"], rel=1e-5)
    assert export_run(directory, "keras", tmp_path / "exported")["keras"]["max_difference"] < 1e-4


def test_the_adapter_file_has_statistics_that_moved_before_evaluation_mode(tmp_path):
    config = CONFIG.replace(backbone="tiny", weights="none", strategy="lora:targets=all", frozen_mode="training", eval_mode_after=1)
    run(config, tmp_path / "run")
    with np.load(tmp_path / "run" / lora.FILE) as arrays:
        moved = {name for name in arrays.files if "moving" in name}
    assert moved == {f"{stage}_bn/moving_{statistic}" for stage in ("stem", "body") for statistic in ("mean", "variance")}


class Killed(Exception):
    pass


def test_a_killed_run_resumes_its_factors_exactly(finished, tmp_path):
    """A run killed in the second epoch and resumed ends with the factors and the merged model of an uninterrupted one."""

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise Killed

    with pytest.raises(Killed):
        run(CONFIG, tmp_path / "killed", callbacks=[Kill()])
    assert (tmp_path / "killed" / "checkpoint" / "latest.npz").exists()
    result = run(CONFIG, tmp_path / "killed")
    uninterrupted, expected = finished
    with np.load(uninterrupted / lora.FILE) as one, np.load(tmp_path / "killed" / lora.FILE) as two:
        assert one.files == two.files and len(one.files) == 7
        for name in one.files:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    models = [keras.models.load_model(run_dir / "model.keras", compile=False) for run_dir in (uninterrupted, tmp_path / "killed")]
    for one, two in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, two)
    losses = [[row["loss"] for row in run_directory.read_history(run_dir)] for run_dir in (uninterrupted, tmp_path / "killed")]
    assert losses[0] == losses[1] and result["metrics"] == expected["metrics"]


def test_the_adapter_file_restores_the_trained_model_from_its_base(finished):
    directory, _ = finished
    images = RANDOM.uniform(0, 255, (8, 64, 64, 3)).astype("float32")
    trained = keras.models.load_model(directory / "model.keras", compile=False)
    loaded = lora.load(directory / lora.FILE, base_model())
    for one, two in zip(loaded.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(loaded(images), trained(images))
    assert (directory / lora.FILE).stat().st_size < 0.05 * (directory / "model.keras").stat().st_size
    with np.load(directory / lora.FILE, allow_pickle=False) as file:
        meta = json.loads(str(file["meta"]))
    assert (meta["rank"], meta["alpha"], sorted(meta["layers"])) == (2, 4.0, ["conv2", "fc6"])


def test_the_adapter_file_of_another_model_is_refused(finished, tmp_path):
    path = finished[0] / lora.FILE
    with pytest.raises(DamagedError, match="trained on other weights"):
        lora.load(path, build_model(resolve(CONFIG), 10))
    other_head = build_model(resolve(CONFIG), 7)
    for layer in base_model().layers:
        if layer.name != "logits":
            other_head.get_layer(layer.name).set_weights(layer.get_weights())
    with pytest.raises(DamagedError, match=r"logits/kernel has shape \(384, 10\); the model expects \(384, 7\)"):
        lora.load(path, other_head)
    with pytest.raises(DamagedError, match="trained on other weights"):
        lora.load(path, backbones.build_classifier("resnet18", 10, image_size=32, stem="cifar"))
    (tmp_path / lora.FILE).write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DamagedError, match="cannot be read as adapters"):
        lora.load(tmp_path / lora.FILE, base_model())
