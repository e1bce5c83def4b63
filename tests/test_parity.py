"""The ports of torchvision's networks: the same weights and the same images give the same logits.

The shapes, weights and reference logits are in torch_reference.py.
"""

import math

import numpy as np
import pytest
from torch_reference import CASES, make_images, make_tensors, resnet, torchvision_logits, vit_b_16

from tl_keras.backbones import build_classifier
from tl_keras.errors import ConfigError
from tl_keras.weights.from_publisher import assign_published
from tl_keras.weights.name_maps import TORCHVISION


@pytest.mark.parametrize("case", [pytest.param(name, marks=pytest.mark.slow if "vgg" in name else ()) for name in CASES])
def test_logits_equal_torchvision(case):
    backbone, stem, size, shapes = CASES[case]
    model = build_classifier(backbone, 1000, image_size=size, stem=stem, normalization="none")
    info = assign_published(model, backbone, make_tensors(shapes), "torchvision")
    assert info.loaded == len(model.weights) and not info.missing and not info.resized
    expected = torchvision_logits()[case]
    np.testing.assert_allclose(np.asarray(model(make_images(size))), expected, rtol=0, atol=1e-4 * expected.std())


def test_every_case_of_the_reference_is_compared():
    assert set(torchvision_logits()) == set(CASES)


def test_every_name_map_is_compared():
    assert {backbone for backbone, *_ in CASES.values()} | {"resnet34"} == set(TORCHVISION.mappings)


def test_names_of_torchvision_fill_resnet34():
    model = build_classifier("resnet34", 1000, image_size=32)
    info = assign_published(model, "resnet34", make_tensors(resnet(7, (3, 4, 6, 3))), "torchvision")
    assert info.loaded == len(model.weights)
    trained = [shape for name, shape in resnet(7, (3, 4, 6, 3)).items() if "running" not in name and "num_" not in name]
    assert sum(math.prod(shape) for shape in trained) == 21_797_672


def test_another_head_and_another_stem_keep_their_weights_and_are_listed_as_missing():
    model = build_classifier("resnet18", 10, image_size=32, stem="cifar")
    before = np.asarray(model.get_layer("conv1").kernel)
    info = assign_published(model, "resnet18", make_tensors(resnet(7)), "torchvision")
    assert set(info.missing) == {"conv1/kernel", "logits/kernel", "logits/bias"}
    np.testing.assert_array_equal(np.asarray(model.get_layer("conv1").kernel), before)


def test_older_names_of_vit_are_accepted():
    model = build_classifier("vit_b16", 10)
    given = make_tensors(vit_b_16())
    older = {name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): array for name, array in given.items()}
    assign_published(model, "vit_b16", older, "torchvision")
    kernel = np.asarray(model.get_layer("block12_mlp2").kernel)
    np.testing.assert_array_equal(kernel, given["encoder.layers.encoder_layer_11.mlp.3.weight"].T)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda given: given.pop("layer2.0.conv1.weight"), "only in the model (1): layer2_0_conv1/kernel"),
        (lambda given: given.update({"layer1.2.conv1.weight": np.zeros(1)}), "only in the file (1): layer1.2.conv1.weight"),
        (lambda given: given.update({"bn1.weight": np.ones(65)}), "bn1/gamma (65,) in the file, (64,) in the model"),
        (lambda given: given.update({"layer1.0.conv1.weight": np.ones((64, 9))}), "layer1.0.conv1.weight of shape (64, 9)"),
    ],
    ids=["missing", "left over", "shape", "rank"],
)
def test_tensors_that_do_not_fit_are_named(change, message):
    given = {name: np.zeros(shape, "float32") for name, shape in resnet(3).items()}
    change(given)
    model = build_classifier("resnet18", 10, image_size=32, stem="cifar")
    with pytest.raises(ConfigError) as error:
        assign_published(model, "resnet18", given, "torchvision")
    assert message in str(error.value)


def test_a_backbone_that_torchvision_lacks_is_refused():
    with pytest.raises(ConfigError, match="names of torchvision, such as conv1.weight, and it has no mobilenet"):
        assign_published(None, "mobilenet", {"conv1.weight": np.zeros(1)}, "file.pth")
