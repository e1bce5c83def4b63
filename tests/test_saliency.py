"""Grad-CAM: the heat lies on the object, is finite for every kind of backbone, and is written as pictures."""

import re

import keras
import numpy as np
import pytest
from PIL import Image

from tl_keras.backbones import BACKBONES, build_classifier
from tl_keras.cli import verbs
from tl_keras.data.geometry import Geometry
from tl_keras.errors import ConfigError
from tl_keras.runs.networks import Classifier
from tl_keras.runs.predict import Predictor
from tl_keras.runs.saliency import MIN_SIDE, GradCam, overlay, target_layer, write_saliency

SIDE, SQUARE = 32, 8
FAST = {"tiny": 16, "alexnet_narrow": 64, "mobilenet_0.25": 32}
# One backbone of each kind, and its smallest convenient image.
KINDS = {
    "vgg16": 64, "resnet18": 64, "resnet50": 64, "resnet50_v2": 64, "densenet121": 64, "inception_v3": 96, "xception": 96,
    "nasnet_mobile": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "efficientnet_b0": 64, "efficientnet_v2_b0": 64,
    "efficientnet_lite0": 64, "convnext_tiny": 64, "vit_b16": 64,
}  # fmt: skip


def make_squares(num, seed):
    """Return noise float32 (num, SIDE, SIDE, 3), with a bright square in every other image, and the corners of the squares."""
    rng = np.random.default_rng(seed)
    images, corners = rng.uniform(0, 120, (num, SIDE, SIDE, 3)).astype(np.float32), rng.integers(0, SIDE - SQUARE, (num, 2))
    for image, (row, column) in list(zip(images, corners, strict=True))[1::2]:
        image[row : row + SQUARE, column : column + SQUARE] = 250
    return images, np.arange(num) % 2, corners


@pytest.fixture(scope="module", params=["linear", "one_logit"])
def finder(request):
    """A classifier that has learned to find the square."""
    keras.utils.set_random_seed(0)
    model = build_classifier("tiny", 2, image_size=SIDE, head=request.param)
    images, labels, _ = make_squares(256, seed=1)
    model.compile(keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, batch_size=32, epochs=12, verbose=0)
    return Classifier(model, Geometry(SIDE, 1.0))


def test_the_heat_lies_on_the_object(finder):
    images, labels, corners = make_squares(40, seed=2)
    maps, classes = GradCam(finder)(list(images))
    assert (classes == labels).mean() > 0.95
    fractions = []
    for heat, (row, column) in list(zip(maps, corners, strict=True))[1::2]:
        full = np.asarray(Image.fromarray(heat).resize((SIDE, SIDE), Image.Resampling.BILINEAR)).clip(0)
        margin = SIDE // heat.shape[0]
        near = full[max(0, row - margin) : row + SQUARE + margin, max(0, column - margin) : column + SQUARE + margin]
        fractions.append(near.sum() / full.sum())
    by_chance = (SQUARE + 2 * SIDE // maps.shape[1]) ** 2 / SIDE**2
    assert np.mean(fractions) > 0.8 > 2 * by_chance, (np.mean(fractions), by_chance)


def test_both_classes_of_a_head_have_heat(finder):
    maps, classes = GradCam(finder)(list(make_squares(40, seed=3)[0]))
    assert set(classes) == {0, 1}
    for label in (0, 1):
        assert maps[classes == label].max() == 1, "the constant logit of `one_logit` has no gradient of its own"


def check_backbone(name, side):
    keras.utils.set_random_seed(0)
    classifier = Classifier(build_classifier(name, 3, image_size=side), Geometry(side, 1.0))
    images = np.random.default_rng(0).uniform(0, 255, (2, side, side, 3)).astype(np.float32)
    maps, classes = GradCam(classifier)(list(images))
    assert maps.shape[0] == 2 and min(maps.shape[1:]) > 1 and classes.shape == (2,)
    assert np.isfinite(maps).all() and maps.min() >= 0 and maps.max() <= 1
    return classifier.model


@pytest.mark.parametrize("name", FAST)
def test_maps_of_cheap_backbones(name):
    check_backbone(name, FAST[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_maps_of_every_family(name):
    model = check_backbone(name, KINDS[name])
    expected = {"vit_b16": "block12_ln1", "convnext_tiny": "add"}
    assert target_layer(model).name.startswith(expected.get(name, ""))


def test_every_family_is_covered():
    families = {re.match("[a-z]+", name)[0] for name in BACKBONES}
    assert families == {re.match("[a-z]+", name)[0] for name in (*KINDS, *FAST)} - {"tiny"}


def test_upsampled_maps_are_passed_over():
    """At 64 pixels the last maps of AlexNet are one pixel, enlarged for its dense layers."""
    layer = target_layer(build_classifier("alexnet_narrow", 2))
    assert layer.name == "conv5_out" and layer.output.shape[1:3] == (3, 3)


def test_an_image_without_positions_is_refused():
    inputs = keras.Input((2, 2, 3))
    outputs = keras.layers.Dense(2, name="logits")(keras.layers.GlobalAveragePooling2D()(keras.layers.MaxPooling2D()(inputs)))
    model = keras.Model(inputs, outputs)
    with pytest.raises(ConfigError, match="no map"):
        target_layer(keras.Model(model.layers[1].output, outputs))


def test_an_overlay_is_the_image_where_there_is_no_heat():
    image = np.random.default_rng(0).uniform(0, 255, (MIN_SIDE, MIN_SIDE, 3)).astype(np.float32)
    np.testing.assert_array_equal(overlay(image, np.zeros((7, 7), np.float32)), image.round().astype(np.uint8))
    heat = np.zeros((7, 7), np.float32)
    heat[0, 0] = 1
    changed = (overlay(image, heat) != image.round().astype(np.uint8)).any(axis=2)
    assert changed[:32, :32].mean() > 0.9 and not changed[112:, 112:].any()
    assert overlay(image[:100, :100], heat).shape == (300, 300, 3)


def test_pictures_are_named_by_position_file_and_label(finished_run, tmp_path):
    predictor = Predictor.of_run(finished_run.directory)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "../in/b c\u00fc.png"):
        Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "c.png").write_text("no image")
    paths = write_saliency(predictor, tmp_path / "in", tmp_path / "out", on_corrupt="skip")
    label = predictor.predict(tmp_path / "in" / "a.png").labels[0]
    assert [path.name for path in paths] == [f"0000_a_{label}.png", f"0001_b-c-_{label}.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [path.name for path in paths]
    assert all(Image.open(path).size == (224, 224) for path in paths)


def test_pictures_of_the_command_line(finished_run, tmp_path, capsys):
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(tmp_path / "a.png")
    command = ["predict", f"--run_dir={finished_run.directory}", str(tmp_path / "a.png"), f"--saliency={tmp_path / 'maps'}"]
    assert verbs.main(command) == 0 and "maps: 1" in capsys.readouterr().err
    assert len(list((tmp_path / "maps").iterdir())) == 1
