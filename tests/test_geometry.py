"""Geometry: crop and resize against Pillow and stock layers, on the device as in the pipeline, and as the weights want them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tl_keras.config import RunConfig
from tl_keras.data.geometry import Geometry
from tl_keras.results import run_directory
from tl_keras.runs.evaluate import evaluate_run
from tl_keras.runs.resolve import resolve
from tl_keras.runs.run import run
from tl_keras.runs.setup import build_setup

RANDOM = np.random.default_rng(0)
SOURCE_SIZES = [(32, 32), (33, 47), (300, 201), (7, 5), (224, 224), (500, 375)]
BOUND = 5e-3  # grey levels; TensorFlow computes coordinates in float32


@pytest.mark.parametrize("size", [None, (20, 20), (14, 30)])
def test_images_that_shrink_or_differ_in_size_are_resized_in_the_pipeline(size):
    for interpolation in ("bilinear", "bicubic"):
        geometry = Geometry(12, 1.0, interpolation, source_size=size)
        assert geometry.device_resize() is None and geometry.pipeline_resize(size) is not None
        enlarging = Geometry(12, 1.0, interpolation, source_size=(12, 30))
        assert enlarging.device_resize() is not None and enlarging.pipeline_resize((12, 30)) is None


@pytest.mark.parametrize("size", SOURCE_SIZES, ids=str)
@pytest.mark.parametrize(
    "image_size, crop_fraction, interpolation",
    [(224, 0.875, "bilinear"), (64, 1.0, "bicubic"), (33, 0.9, "bilinear"), (33, 0.9, "bicubic")],
)
def test_geometry_equals_stock_layers(size, image_size, crop_fraction, interpolation):
    images = RANDOM.integers(0, 256, (2, *size, 3)).astype(np.uint8)
    geometry, side = Geometry(image_size, crop_fraction, interpolation), round(image_size / crop_fraction)
    resizing = keras.layers.Resizing(side, side, interpolation, crop_to_aspect_ratio=True, antialias=True, dtype="float32")
    expected = keras.layers.CenterCrop(image_size, image_size)(resizing(images.astype(np.float32))).numpy().clip(0, 255)
    for images_in in (images, tf.constant(images)):
        np.testing.assert_allclose(geometry.resize(tf.constant(images_in)), expected, atol=0.255)
    layers = keras.Sequential([keras.Input((None, None, 3), dtype="uint8"), *geometry.resize_layers()])
    np.testing.assert_allclose(layers(images), expected, atol=1e-3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("image_size, crop_fraction", [(32, 0.8), (150, 0.75)], ids=["shrinks", "grows"])
def test_geometry_agrees_with_pillow(image_size, crop_fraction, interpolation):
    """Pillow resizes in float32, since it would else round and clip to 8 bits after each of its two passes."""
    image, side = np.asarray(Image.effect_noise((120, 90), 60)), round(image_size / crop_fraction)
    middle = Image.fromarray(image[:, 15:105].astype(np.float32)).resize((side, side), Image.Resampling[interpolation.upper()])
    start = (side - image_size) // 2
    expected = np.asarray(middle)[start : start + image_size, start : start + image_size].clip(0, 255)
    ours = Geometry(image_size, crop_fraction, interpolation).resize(tf.constant(np.repeat(image[None, ..., None], 3, axis=3))).numpy()[0]
    np.testing.assert_allclose(ours, np.repeat(expected[..., None], 3, axis=2), atol=BOUND)
    assert ours.min() >= 0 and ours.max() <= 255


def test_both_interpolations_agree_with_pillow_in_8_bits_where_nothing_is_clipped():
    image = (128 + 40 * np.sin(np.arange(90)[:, None] / 3) * np.cos(np.arange(90) / 4)).astype(np.uint8)
    for interpolation in ("bilinear", "bicubic"):
        expected = np.asarray(Image.fromarray(image).resize((40, 40), Image.Resampling[interpolation.upper()]), np.float32)
        ours = Geometry(40, 1.0, interpolation).resize(tf.constant(np.repeat(image[None, ..., None], 3, axis=3))).numpy()[0, ..., 0]
        assert np.abs(ours - expected).max() < 1.2


@pytest.mark.parametrize("size", [(32, 32), (9, 14), (21, 8), (1, 1)], ids=str)
@pytest.mark.parametrize("image_size, crop_fraction", [(64, 1.0), (33, 0.9), (40, 224 / 232), (32, 1.0)])
def test_bicubic_on_the_device_is_that_of_the_pipeline(size, image_size, crop_fraction):
    geometry = Geometry(image_size, crop_fraction, "bicubic", source_size=size)
    images = tf.constant(RANDOM.choice([0, 255, 100], (3, *size, 3)).astype(np.uint8))
    on_device = geometry.device_resize()(images)
    assert on_device.dtype == tf.float32 and on_device.shape == (3, image_size, image_size, 3)
    np.testing.assert_allclose(on_device, geometry.resize(images), atol=BOUND)
    if image_size > 2 * max(size) > 2:
        bilinear = Geometry(image_size, crop_fraction, "bilinear").resize(images)
        assert np.abs(on_device - bilinear).max() > 5


def test_bicubic_on_the_device_compiles_with_xla():
    resize = Geometry(24, 0.9, "bicubic", source_size=(8, 10)).device_resize()
    images = tf.constant(RANDOM.integers(0, 256, (2, 8, 10, 3)).astype(np.uint8))
    np.testing.assert_allclose(tf.function(resize, jit_compile=True, autograph=False)(images), resize(images), atol=BOUND)


def test_geometry_is_float32_under_a_lower_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    for interpolation in ("bilinear", "bicubic"):
        images = np.float32(RANDOM.integers(0, 256, (2, 8, 8, 3)))
        for layer in Geometry(11, 0.7, interpolation).resize_layers():
            images = layer(images)
            assert images.dtype == tf.float32


# settings -> image size, side before the centre crop, interpolation
PETS = {"dataset": "oxford_iiit_pet"}
IN_EFFECT = [
    ({**PETS, "backbone": "resnet18"}, (224, 256, "bilinear")),
    ({**PETS, "backbone": "resnet50_torch"}, (224, 232, "bilinear")),
    ({**PETS, "backbone": "resnet50_torch", "weights": "imagenet_v1"}, (224, 256, "bilinear")),
    ({**PETS, "backbone": "resnet50_torch", "weights": "files/resnet50-0676ba61.pth"}, (224, 256, "bilinear")),
    ({**PETS, "backbone": "resnet50_torch", "weights": "files/mine.pth"}, (224, 256, "bilinear")),
    ({**PETS, "backbone": "resnet50_torch", "weights": "none"}, (224, 256, "bilinear")),
    ({**PETS, "backbone": "vit_b16", "weights": "swag_e2e"}, (384, 384, "bicubic")),
    ({**PETS, "backbone": "vit_b16", "weights": "swag_linear"}, (224, 224, "bicubic")),
    ({**PETS, "backbone": "vit_b16", "weights": "swag_e2e", "image_size": 224}, (224, 224, "bicubic")),
    ({**PETS, "backbone": "efficientnet_lite0"}, (224, 256, "bicubic")),
    ({**PETS, "backbone": "efficientnet_lite2"}, (260, 292, "bicubic")),
    ({**PETS, "backbone": "efficientnet_b3"}, (300, 343, "bilinear")),
    ({**PETS, "backbone": "resnet50_torch", "image_size": 128}, (128, 133, "bilinear")),
    ({**PETS, "backbone": "resnet18", "interpolation": "bicubic", "crop_fraction": 1.0}, (224, 224, "bicubic")),
    ({**PETS, "backbone": "efficientnet_lite0", "interpolation": "bilinear"}, (224, 256, "bilinear")),
    ({"dataset": "cifar10", "backbone": "efficientnet_lite0", "image_size": 96}, (96, 96, "bicubic")),
    ({"dataset": "cifar10", "backbone": "resnet50_torch"}, (224, 224, "bilinear")),
    ({"dataset": "digits", "backbone": "tiny", "weights": "none"}, (16, 16, "bilinear")),
    ({"dataset": "oxford_flowers102", "backbone": "resnet18"}, (224, 224, "bilinear")),
]


@pytest.mark.parametrize("settings, expected", IN_EFFECT, ids=str)
def test_crop_size_and_interpolation_are_those_of_the_weights_unless_set(settings, expected):
    geometry = resolve(RunConfig().replace(**settings)).geometry
    assert (geometry.image_size, round(geometry.image_size / geometry.crop_fraction), geometry.interpolation) == expected


def test_the_description_of_a_run_names_interpolation_and_crop():
    assert str(Geometry(224, 0.875, "bicubic")) == "224 px (bicubic, crop 0.875)" and str(Geometry(32, 1.0)) == "32 px (bilinear)"


def test_photographs_of_users_are_not_cropped(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    assert resolve(RunConfig().replace(dataset=f"folder:{tmp_path}", backbone="resnet18")).geometry == Geometry(224, 1.0)


def logits_of(config, directory, **arguments):
    run(config, directory, **arguments)
    with np.load(directory / "predictions.npz") as predictions:
        return predictions["logits"]


def test_a_bicubic_run_is_the_same_on_the_device_and_in_the_pipeline(tiny_config, tmp_path, monkeypatch):
    config = tiny_config.replace(epochs=1, interpolation="bicubic", crop_fraction=0.9)
    assert build_setup(resolve(config)).geometry.resizes_on_device
    on_device = logits_of(config, tmp_path / "device")
    bilinear = logits_of(config.replace(interpolation="bilinear"), tmp_path / "bilinear")
    monkeypatch.setattr(Geometry, "resizes_on_device", False)
    np.testing.assert_allclose(logits_of(config, tmp_path / "pipeline"), on_device, atol=1e-3)
    assert np.abs(bilinear - on_device).max() > 1e-2


class StopAfterOneEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_an_augmentation_that_resizes_is_cached_and_resumed(tiny_config, tmp_path):
    """Images of the model's size come from the pipeline, though the data set is one that the device could enlarge."""
    settings = {"augmentation": "random_resized_crop+flip", "interpolation": "bicubic", "epochs": 2}
    config = tiny_config.replace(strategy="head", selection="last", **settings)
    spec = build_setup(resolve(config)).batches.training(0).element_spec[0]
    assert spec.dtype == "float32" and spec.shape[1:] == (16, 16, 3)
    live = logits_of(config, tmp_path / "live")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "stopped", callbacks=[StopAfterOneEpoch()])
    np.testing.assert_array_equal(logits_of(config, tmp_path / "stopped"), live)
    np.testing.assert_array_equal(logits_of(config.replace(cache_views=2, cache="memory"), tmp_path / "cached"), live)
    result = run_directory.load_result(tmp_path / "cached")
    assert result["phases"][0]["cache"]["split_point"] == "features" and result["model"]["interpolation"] == "bicubic"


def test_a_run_is_evaluated_with_its_own_geometry(finished_run, monkeypatch):
    """The geometry of the record is used, not what the settings resolve to for another data set or version."""
    result = {**finished_run.result, "model": {**finished_run.result["model"], "crop_fraction": 0.5}}
    monkeypatch.setattr("tl_keras.results.run_directory.load_result", lambda directory: result)
    recorded = finished_run.result["metrics"]["test"]["loss"]
    assert evaluate_run(finished_run.directory, {}).metrics["loss"] != pytest.approx(recorded, rel=1e-3)
