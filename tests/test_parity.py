"""Our ports against torchvision: the same weights and the same input have to give the same logits.

The reference logits and the formula of the weights are described beside them in README.md; the weights are made from each
tensor's torch name, so the shapes below are torchvision's, written out independently of the code under test.
"""

import math
import zlib
from pathlib import Path

import numpy as np
import pytest

from tl_keras.backbones import build_classifier
from tl_keras.errors import ConfigError
from tl_keras.weights.from_publisher import from_tensors
from tl_keras.weights.name_maps import TORCHVISION

SHARED = Path(__file__).parents[2] / "shared"
LOGITS = SHARED / "parity" / "torchvision_logits.npz"


def linear(name, units, inputs):
    return {f"{name}.weight": (units, inputs), f"{name}.bias": (units,)}


def batch_norm(name, width):
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def features(plan):
    return {key: shape for number, *shape in plan for key, shape in convolution(f"features.{number}", *shape).items()}


def convolution(name, units, inputs, size):
    return {f"{name}.weight": (units, inputs, size, size), f"{name}.bias": (units,)}


def alexnet():
    plan = ((0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3))
    return features(plan) | linear("classifier.1", 4096, 9216) | linear("classifier.4", 4096, 4096) | linear("classifier.6", 1000, 4096)


def vgg16():
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    plan = [(number, width, before, 3) for number, before, width in zip(numbers, widths, widths[1:], strict=False)]
    return features(plan) | linear("classifier.0", 4096, 25088) | linear("classifier.3", 4096, 4096) | linear("classifier.6", 1000, 4096)


def resnet(stem_size, num_blocks=(2, 2, 2, 2), block=((3, 1), (3, 1))):
    """`block` has the kernel size of each convolution and how many times the width of the layer it puts out."""
    before = 64
    shapes = {"conv1.weight": (64, 3, stem_size, stem_size)} | batch_norm("bn1", 64) | linear("fc", 1000, 512 * block[-1][1])
    for layer, count in enumerate(num_blocks, start=1):
        width = 32 * 2**layer
        for index in range(count):
            name, after = f"layer{layer}.{index}", width * block[-1][1]
            if before != after:
                shapes |= {f"{name}.downsample.0.weight": (after, before, 1, 1)} | batch_norm(f"{name}.downsample.1", after)
            for number, (size, times) in enumerate(block, start=1):
                shapes |= {f"{name}.conv{number}.weight": (times * width, before, size, size)}
                shapes |= batch_norm(f"{name}.bn{number}", times * width)
                before = times * width
    return shapes


BOTTLENECK = ((1, 1), (3, 1), (1, 4))


def vit_b_16():
    shapes = {"class_token": (1, 1, 768), "encoder.pos_embedding": (1, 197, 768)}
    shapes |= convolution("conv_proj", 768, 3, 16) | norm("encoder.ln") | linear("heads.head", 1000, 768)
    for number in range(12):
        name = f"encoder.layers.encoder_layer_{number}"
        shapes |= norm(f"{name}.ln_1") | norm(f"{name}.ln_2") | linear(f"{name}.mlp.0", 3072, 768) | linear(f"{name}.mlp.3", 768, 3072)
        shapes |= {f"{name}.self_attention.in_proj_weight": (2304, 768), f"{name}.self_attention.in_proj_bias": (2304,)}
        shapes |= linear(f"{name}.self_attention.out_proj", 768, 768)
    return shapes


def norm(name):
    return {f"{name}.weight": (768,), f"{name}.bias": (768,)}


def by_formula(name, shape):
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, "int64")
    if name.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape).astype("float32")
    if name.endswith("running_mean"):
        return (0.1 * random.standard_normal(shape)).astype("float32")
    if len(shape) >= 2 and "weight" in name:
        return (random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))).astype("float32")
    if name.endswith("weight"):
        return random.uniform(0.5, 1.5, shape).astype("float32")
    return (0.1 * random.standard_normal(shape)).astype("float32")


def tensors(shapes):
    return {name: by_formula(name, shape) for name, shape in shapes.items()}


# case -> backbone, stem, image size, shapes
CASES = {
    "alexnet_224": ("alexnet", "imagenet", 224, alexnet()),
    "alexnet_64": ("alexnet", "imagenet", 64, alexnet()),
    "resnet18_224": ("resnet18", "imagenet", 224, resnet(7)),
    "resnet18_cifar_stem_32": ("resnet18", "cifar", 32, resnet(3)),
    "resnet50_224": ("resnet50_torch", "imagenet", 224, resnet(7, (3, 4, 6, 3), BOTTLENECK)),
    "vit_b_16_224": ("vit_b16", "imagenet", 224, vit_b_16()),
    "vgg16_224": ("vgg16", "imagenet", 224, vgg16()),
    "vgg16_32": ("vgg16", "imagenet", 32, vgg16()),
}


def images(size):
    return np.random.default_rng(0).standard_normal((2, size, size, 3)).astype("float32")


def expected_logits(case):
    with np.load(LOGITS) as file:
        return file[case]


@pytest.mark.parametrize("case", [pytest.param(name, marks=pytest.mark.slow if "vgg" in name else ()) for name in CASES])
def test_logits_equal_torchvision(case):
    if not LOGITS.is_file():
        pytest.skip(f"{LOGITS} is not there")
    backbone, stem, size, shapes = CASES[case]
    model = build_classifier(backbone, 1000, image_size=size, stem=stem, normalization="none")
    account = from_tensors(model, backbone, tensors(shapes), "torchvision")
    assert account["loaded"] == len(model.weights) and not account["left_out"] and not account["resized"]
    expected = expected_logits(case)
    np.testing.assert_allclose(np.asarray(model(images(size))), expected, rtol=0, atol=1e-4 * expected.std())


def test_every_case_is_compared(shared):
    with np.load(shared / "parity" / "torchvision_logits.npz") as file:
        assert set(file.files) == set(CASES)


def test_every_name_map_is_compared():
    assert {backbone for backbone, *_ in CASES.values()} | {"resnet34"} == set(TORCHVISION.moves)


def test_resnet34_takes_torchvisions_names():
    model = build_classifier("resnet34", 1000, image_size=32)
    account = from_tensors(model, "resnet34", tensors(resnet(7, (3, 4, 6, 3))), "torchvision")
    assert account["loaded"] == len(model.weights)
    assert (
        sum(math.prod(shape) for name, shape in resnet(7, (3, 4, 6, 3)).items() if "running" not in name and "num_" not in name)
        == 21_797_672
    )


def test_other_head_and_other_stem_are_left_out_and_said():
    model = build_classifier("resnet18", 10, image_size=32, stem="cifar")
    before = np.asarray(model.get_layer("conv1").kernel)
    account = from_tensors(model, "resnet18", tensors(resnet(7)), "torchvision")
    assert set(account["left_out"]) == {"conv1/kernel", "logits/kernel", "logits/bias"}
    np.testing.assert_array_equal(np.asarray(model.get_layer("conv1").kernel), before)


def test_older_names_of_vit_are_known():
    model = build_classifier("vit_b16", 10)
    given = tensors(vit_b_16())
    older = {name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): array for name, array in given.items()}
    from_tensors(model, "vit_b16", older, "torchvision")
    kernel = np.asarray(model.get_layer("block12_mlp2").kernel)
    np.testing.assert_array_equal(kernel, given["encoder.layers.encoder_layer_11.mlp.3.weight"].T)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda given: given.pop("layer2.0.conv1.weight"), "only in the model (1): layer2_0_conv1/kernel"),
        (lambda given: given.update(extra=np.zeros(1)), "only in the file (1): extra"),
        (lambda given: given.update({"bn1.weight": np.ones(65)}), "bn1/gamma (65,) in the file, (64,) in the model"),
        (lambda given: given.update({"layer1.0.conv1.weight": np.ones((64, 9))}), "layer1.0.conv1.weight of shape (64, 9)"),
    ],
    ids=["missing", "left over", "shape", "rank"],
)
def test_tensors_that_do_not_fit_are_named(change, said):
    given = {name: np.zeros(shape, "float32") for name, shape in resnet(3).items()}
    change(given)
    model = build_classifier("resnet18", 10, image_size=32, stem="cifar")
    with pytest.raises(ConfigError) as error:
        from_tensors(model, "resnet18", given, "torchvision")
    assert said in str(error.value)


def test_backbone_without_counterpart_is_refused():
    with pytest.raises(ConfigError, match="torchvision names its own, such as conv1.weight, and it has no mobilenet"):
        from_tensors(None, "mobilenet", {"conv1.weight": np.zeros(1)}, "file.pth")
