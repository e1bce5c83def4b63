"""The contract of the backbones, for every entry of the registry."""

import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tl_keras.backbones import (
    BACKBONES,
    NORMALIZATIONS,
    build_classifier,
    get_backbone,
    resolve_image_size,
    stage_layers,
    variables_by_path,
)
from tl_keras.backbones.layers import adaptive_average_pool
from tl_keras.backbones.normalization import normalize, normalize_in_rows
from tl_keras.backbones.registry import ATTENTION, BATCH_NORM, BIAS
from tl_keras.errors import ConfigError
from tl_keras.strategies.freezing import WEIGHT_GROUPS
from tl_keras.strategies.lora_layer import is_adaptable

# Backbone -> parameters with 1000 classes: all, running statistics of BatchNorm included, and the trainable ones.
PARAMETERS = {
    "tiny": (18_488, 18_440),
    "alexnet": (61_100_840, 61_100_840),
    "alexnet_narrow": (1_576_888, 1_576_888),
    "resnet18": (11_699_112, 11_689_512),
    "resnet34": (21_814_696, 21_797_672),
    "resnet50_torch": (25_610_152, 25_557_032),
    "vgg16": (138_357_544, 138_357_544),
    "vit_b16": (86_567_656, 86_567_656),
    "resnet50": (25_636_712, 25_583_592),
    "resnet101": (44_707_176, 44_601_832),
    "resnet152": (60_419_944, 60_268_520),
    "resnet50_v2": (25_613_800, 25_568_360),
    "resnet101_v2": (44_675_560, 44_577_896),
    "resnet152_v2": (60_380_648, 60_236_904),
    "vgg19": (20_537_384, 20_537_384),
    "densenet121": (8_062_504, 7_978_856),
    "densenet169": (14_307_880, 14_149_480),
    "densenet201": (20_242_984, 20_013_928),
    "inception_v3": (23_851_784, 23_817_352),
    "inception_resnet_v2": (55_873_736, 55_813_192),
    "xception": (22_910_480, 22_855_952),
    "nasnet_mobile": (5_326_716, 5_289_978),
    "nasnet_large": (88_949_818, 88_753_150),
    "mobilenet": (4_253_864, 4_231_976),
    "mobilenet_0.25": (475_544, 470_072),
    "mobilenet_0.5": (1_342_536, 1_331_592),
    "mobilenet_0.75": (2_601_976, 2_585_560),
    "mobilenet_1.0": (4_253_864, 4_231_976),
    "mobilenet_v2": (3_538_984, 3_504_872),
    "mobilenet_v2_0.35": (1_691_208, 1_677_128),
    "mobilenet_v2_0.5": (1_987_224, 1_968_680),
    "mobilenet_v2_0.75": (2_663_064, 2_636_424),
    "mobilenet_v2_1.0": (3_538_984, 3_504_872),
    "mobilenet_v2_1.3": (5_431_048, 5_386_792),
    "mobilenet_v2_1.4": (6_156_712, 6_108_776),
    "mobilenet_v3_small": (1_516_120, 1_504_008),
    "mobilenet_v3_small_0.75": (1_016_160, 1_006_480),
    "mobilenet_v3_small_1.0": (1_516_120, 1_504_008),
    "mobilenet_v3_large": (3_957_352, 3_932_952),
    "mobilenet_v3_large_0.75": (2_529_736, 2_510_648),
    "mobilenet_v3_large_1.0": (3_957_352, 3_932_952),
    "efficientnet_b0": (5_330_571, 5_288_548),
    "efficientnet_b1": (7_856_239, 7_794_184),
    "efficientnet_b2": (9_177_569, 9_109_994),
    "efficientnet_b3": (12_320_535, 12_233_232),
    "efficientnet_b4": (19_466_823, 19_341_616),
    "efficientnet_b5": (30_562_527, 30_389_784),
    "efficientnet_b6": (43_265_143, 43_040_704),
    "efficientnet_b7": (66_658_687, 66_347_960),
    "efficientnet_v2_b0": (7_200_312, 7_139_704),
    "efficientnet_v2_b1": (8_212_124, 8_141_052),
    "efficientnet_v2_b2": (10_178_374, 10_096_086),
    "efficientnet_v2_b3": (14_467_622, 14_358_406),
    "efficientnet_v2_s": (21_612_360, 21_458_488),
    "efficientnet_v2_m": (54_431_388, 54_139_356),
    "efficientnet_v2_l": (119_027_848, 118_515_272),
    "efficientnet_lite0": (4_694_024, 4_652_008),
    "efficientnet_lite1": (5_470_344, 5_416_680),
    "efficientnet_lite2": (6_150_168, 6_092_072),
    "convnext_tiny": (28_589_128, 28_589_128),
    "convnext_small": (50_223_688, 50_223_688),
    "convnext_base": (88_591_464, 88_591_464),
    "convnext_large": (197_767_336, 197_767_336),
    "convnext_xlarge": (350_196_968, 350_196_968),
}

SLOW = {
    *("mobilenet_1.0", "mobilenet_v2_1.0", "mobilenet_v3_small_1.0", "mobilenet_v3_large_1.0"),  # built by their bare names
    # Other widths and depths of a network whose fast member runs the same code: mobilenet_0.25, mobilenet_v2_0.35,
    # mobilenet_v3_small, mobilenet_v3_large, efficientnet_b0, efficientnet_v2_b0, efficientnet_lite0, convnext_tiny, densenet121,
    # resnet18, resnet50, resnet50_v2. nasnet and inception_resnet_v2 have none; test_weights.py builds vgg16 in the fast set.
    *("mobilenet", "mobilenet_0.5", "mobilenet_0.75", "mobilenet_v2", "mobilenet_v2_0.5", "mobilenet_v2_0.75", "mobilenet_v2_1.3"),
    *("mobilenet_v2_1.4", "mobilenet_v3_small_0.75", "mobilenet_v3_large_0.75", "efficientnet_b1", "resnet34"),
    *("resnet101", "resnet152", "resnet101_v2", "resnet152_v2", "densenet169", "densenet201", "vgg16"),
    *("inception_resnet_v2", "nasnet_mobile", "nasnet_large", "convnext_small", "convnext_base", "convnext_large", "convnext_xlarge"),
    *(f"efficientnet_b{number}" for number in range(2, 8)),
    *(f"efficientnet_v2_{size}" for size in ("b1", "b2", "b3", "s", "m", "l")),
    *("efficientnet_lite1", "efficientnet_lite2"),
}


def with_slow_marks(names):
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


def random_pixels(model, batch=2):
    return np.random.default_rng(0).uniform(0, 255, (batch, *model.input.shape[1:])).astype("float32")


def weight_groups(layers):
    """Return the weight groups that the strategies `batchnorm`, `bias` and `lora` find in the layers of a backbone."""
    found = {
        group
        for group in (BATCH_NORM, BIAS)
        if any(WEIGHT_GROUPS[group](layer, weight) for layer in layers for weight in layer.trainable_weights)
    }
    adaptable = [layer for layer in layers if is_adaptable(layer) and layer.name.endswith(("_query", "_value"))]
    return found | ({ATTENTION} if adaptable else set())


def test_every_backbone_has_golden_counts():
    assert set(PARAMETERS) == {*BACKBONES, "tiny"}


@pytest.mark.parametrize("name", with_slow_marks(PARAMETERS))
def test_a_backbone_fulfils_the_contract(name):
    model = build_classifier(name, 1000)
    counts = (model.count_params(), sum(math.prod(variable.shape) for variable in model.trainable_weights))
    assert counts == PARAMETERS[name], (
        f"{name} has {counts} parameters. If that is correct, paste into PARAMETERS: {name!r}: ({counts[0]:_}, {counts[1]:_}),"
    )
    assert len(variables_by_path(model)) == len(model.weights)
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)

    stages = stage_layers(model, name)
    backbone = get_backbone(name)
    assert list(stages) == [*(stage for stage, _ in backbone.stages), "head"]
    layers = [layer.name for stage in stages.values() for layer in stage]
    assert sorted(layers) == sorted(layer.name for layer in model.layers)
    assert all(any(layer.weights for layer in stage) for stage in stages.values())
    assert [layer.name for layer in stages["head"] if layer.weights] == ["logits"]

    assert weight_groups([layer for stage, part in stages.items() if stage != "head" for layer in part]) == backbone.weight_groups

    for _, end in backbone.stages:
        keras.Model(model.get_layer(end).output, model.output)  # raises if the graph is not a single tensor
    size = backbone.image_size
    assert model.input.shape == (None, size, size, 3) and model.input.dtype == "float32"
    assert model.output.shape == (None, 1000) and model.output.dtype == "float32"


# One backbone of each builder and family, with an image size that is quick to compute.
SMALL = {
    "tiny": 16,
    "alexnet_narrow": 64,
    "resnet18": 32,
    "resnet50_torch": 32,
    "vit_b16": 32,
    "vgg19": 32,
    "resnet50": 32,
    "mobilenet_0.25": 32,
    "mobilenet_v2_0.35": 32,
    "mobilenet_v3_small": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_b0": 32,
    "efficientnet_lite0": 32,
    "densenet121": 32,
    "inception_v3": 75,
    "xception": 71,
    "convnext_tiny": 32,
}


# resnet18, resnet50, vit_b16, mobilenet_0.25 and efficientnet_lite0 split in the fast set: blocks, bottlenecks, tokens, depthwise layers.
SLOW_TO_SPLIT = {"convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_b0", "inception_v3", "resnet50_torch", "xception"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW_TO_SPLIT else name for name in SMALL])
def test_a_split_at_any_stage_is_exact(name):
    model = build_classifier(name, 5, image_size=SMALL[name])
    images = random_pixels(model)
    expected = np.asarray(model(images))
    assert expected.shape == (2, 5) and np.isfinite(expected).all()
    for _, end in get_backbone(name).stages:
        split = model.get_layer(end).output
        features = keras.Model(model.input, split)(images)
        np.testing.assert_array_equal(np.asarray(keras.Model(split, model.output)(features)), expected)


@pytest.mark.parametrize("name", ["resnet18", "xception", "convnext_tiny", "mobilenet_0.25"])
def test_variable_paths_are_the_same_in_every_build(name):
    first, second = (build_classifier(name, 3, image_size=SMALL[name]) for _ in range(2))
    assert list(variables_by_path(first)) == list(variables_by_path(second))


@pytest.mark.parametrize("name", [name for name, entry in BACKBONES.items() if "cifar" in entry.stems])
def test_the_cifar_stem_keeps_the_resolution(name):
    model = build_classifier(name, 10, image_size=32, stem="cifar")
    assert model.get_layer("conv1").kernel.shape == (3, 3, 3, 64)
    assert model.get_layer("stem_out").output.shape == (None, 32, 32, 64)
    assert not any(isinstance(layer, keras.layers.MaxPooling2D) for layer in model.layers)
    assert {layer.name for layer in stage_layers(model, name)["stem"] if layer.weights} == {"conv1", "bn1"}


@pytest.mark.parametrize("name", ["alexnet_narrow", "resnet18", "vit_b16", "mobilenet_0.25"])
def test_mixed_policy_keeps_pixels_and_logits_in_float32(name):
    keras.config.set_dtype_policy("mixed_bfloat16")  # restored by conftest.py
    model = build_classifier(name, 5, image_size=SMALL[name])
    logits = model(random_pixels(model))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert model.get_layer("normalization").compute_dtype == "float32"
    stages = list(stage_layers(model, name).values())
    assert all(layer.compute_dtype == "bfloat16" for stage in stages[1:-1] for layer in stage)


RELOAD = """
import sys
sys.modules["tl_keras"] = None
import keras, numpy as np
for path in sys.argv[1:]:
    with np.load(path + ".npz") as file:
        logits = keras.models.load_model(path + ".keras")(file["images"])
        np.testing.assert_array_equal(np.asarray(logits), file["logits"])
print("reloaded", len(sys.argv) - 1)
"""


@pytest.mark.parametrize(
    "names",
    [
        ["tiny", "alexnet_narrow", "resnet18", "mobilenet_0.25"],
        pytest.param(
            [
                "vit_b16",
                "resnet50",
                "efficientnet_b0",
                "efficientnet_v2_b0",
                "efficientnet_lite0",
                "convnext_tiny",
                "inception_v3",
                "mobilenet_v3_small",
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["usual", "others"],
)
def test_saved_models_reload_without_this_package(names, tmp_path):
    for name in names:
        model = build_classifier(name, 5, image_size=SMALL[name])
        images = random_pixels(model)
        np.savez(tmp_path / f"{name}.npz", images=images, logits=np.asarray(model(images)))
        model.save(tmp_path / f"{name}.keras")
    command = [sys.executable, "-c", RELOAD, *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": ""})
    assert f"reloaded {len(names)}" in done.stdout, done.stderr


def test_importing_the_names_loads_neither_keras_nor_tensorflow():
    code = "import sys, tl_keras.backbones; print(sorted({'keras', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name, expected",
    [
        ("imagenet", lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
        ("caffe", lambda x: x[..., ::-1] - [103.939, 116.779, 123.68]),
        ("half", lambda x: x / 127.5 - 1),
        ("efficientnet_lite", lambda x: (x - 127) / 128),
        ("cifar10", lambda x: (x / 255 - [0.4914, 0.4822, 0.4465]) / [0.2023, 0.1994, 0.2010]),
        ("none", lambda x: x),
    ],
)
def test_a_normalization_has_its_formula(name, expected):
    images = keras.Input((4, 4, 3))
    model = keras.Model(images, normalize(images, name))
    x = random_pixels(model)
    np.testing.assert_allclose(np.asarray(model(x)), expected(x.astype("float64")), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("side", [5, None])
def test_a_normalization_in_rows_equals_the_stock_layer_that_is_saved(side):
    """The values are equal to the last bit, also for images of any size."""
    model = keras.Model(images := keras.Input((side, side, 3)), normalize(images, "imagenet"))
    normalize_in_rows(model)
    plain = keras.models.model_from_json(model.to_json())
    assert ["call" in vars(one.get_layer("normalization")) for one in (model, plain)] == [True, False]
    x = np.random.default_rng(0).uniform(0, 255, (4, 5, 5, 3)).astype("float32")
    np.testing.assert_array_equal(model(x), plain(x))


@pytest.mark.parametrize(
    ("name", "expected"), [("tiny", ["normalization"]), ("mobilenet_0.25", ["normalization"]), ("efficientnet_b0", [])]
)
def test_a_classifier_normalizes_in_rows_unless_it_does_so_inside(name, expected):
    assert [layer.name for layer in build_classifier(name, 2, image_size=32).layers if "call" in vars(layer)] == expected


def test_every_normalization_is_tested():
    cases = test_a_normalization_has_its_formula.pytestmark[0].args[1]
    assert {name for name, _ in cases} == set(NORMALIZATIONS)


@pytest.mark.parametrize("size", range(1, 10))
def test_adaptive_pooling_has_torchs_bins(size):
    x = np.random.default_rng(size).standard_normal((1, size, size, 2)).astype("float32")
    bins = [slice(i * size // 6, -(-(i + 1) * size // 6)) for i in range(6)]
    expected = np.stack([np.stack([x[:, rows, columns].mean((1, 2)) for columns in bins], 1) for rows in bins], 1)
    tensor = keras.Input(x.shape[1:])
    pooled = adaptive_average_pool(tensor, 6, "pool")
    assert (pooled is tensor) == (size == 6)
    np.testing.assert_allclose(np.asarray(keras.Model(tensor, pooled)(x)) if size != 6 else x, expected, atol=1e-6)


@pytest.mark.parametrize(
    "name, layer, std",
    [
        ("alexnet", "fc6", 1 / math.sqrt(3 * 9216)),
        ("alexnet", "conv2", 1 / math.sqrt(3 * 64 * 25)),
        ("alexnet", "logits", 1 / math.sqrt(3 * 4096)),
        ("resnet18", "layer2_0_conv1", math.sqrt(2 / (128 * 9))),
        ("resnet18", "logits", 1 / math.sqrt(3 * 512)),
        ("vit_b16", "block3_query", math.sqrt(2 / (4 * 768))),
        ("vit_b16", "block3_attention_out", 1 / math.sqrt(3 * 768)),
        ("vit_b16", "block3_mlp1", math.sqrt(2 / (768 + 3072))),
        ("vit_b16", "conv_proj", 1 / math.sqrt(768)),
        ("vit_b16", "pos_embedding", 0.02),
    ],
)
def test_initial_weights_have_torchvisions_standard_deviation(name, layer, std, new_models):
    kernel = np.asarray(new_models(name).get_layer(layer).kernel)
    assert kernel.std() == pytest.approx(std, rel=0.03)
    assert abs(kernel.mean()) < 0.05 * std


@pytest.mark.parametrize("layer, fan_in", [("conv1", 363), ("fc7", 4096), ("logits", 4096)])
def test_initial_biases_have_torchs_range(layer, fan_in, new_models):
    bias = np.asarray(new_models("alexnet").get_layer(layer).bias)
    assert 0.8 / math.sqrt(fan_in) < np.abs(bias).max() <= 1 / math.sqrt(fan_in)


@pytest.fixture(scope="module")
def new_models():
    models = {}

    def model(name):
        if name not in models:
            models[name] = build_classifier(name, 1000)
        return models[name]

    return model


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "resnet8"}, "Did you mean 'resnet18'"),
        ({"name": "alexnet", "image_size": 62}, "at least 63 pixels"),
        ({"name": "vit_b16", "image_size": 100}, "multiple of 16; the nearest are 96 and 112"),
        ({"name": "alexnet", "stem": "cifar"}, "Backbones with this stem: resnet18, resnet34, resnet50_torch"),
        ({"name": "alexnet", "stem": "other"}, "Backbones with this stem: none"),
        ({"name": "alexnet", "normalization": "imagnet"}, "Did you mean 'imagenet'"),
        ({"name": "efficientnet_b0", "normalization": "imagenet"}, "normalises inside the model"),
        ({"name": "alexnet", "num_classes": 1}, "at least 2 classes"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError) as error:
        build_classifier(**{"num_classes": 10} | settings)
    assert message in str(error.value)


@pytest.mark.parametrize("name", BACKBONES)
def test_default_settings_of_every_backbone_are_possible(name):
    backbone = get_backbone(name)
    assert resolve_image_size(backbone) == backbone.image_size
    assert resolve_image_size(backbone, image_size=backbone.min_size) == backbone.min_size


def test_the_backbone_for_tests_is_in_no_list_and_no_message():
    assert get_backbone("tiny").image_size == 16 and "tiny" not in BACKBONES
    with pytest.raises(ConfigError) as error:
        get_backbone("tini")
    assert "tiny" not in str(error.value).split()


def test_the_embedded_backbone_is_small():
    assert build_classifier("alexnet_narrow", 1000).count_params() < 1_900_000
