"""Loading weights: the registry against the installed Keras, and files of every format."""

import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format
from test_backbones import SMALL, random_pixels, with_slow_marks

from tl_keras.backbones import BACKBONES, build_classifier, feature_extractor, variables_by_path
from tl_keras.errors import ConfigError, DamagedError
from tl_keras.weights import WEIGHTS, LoadingInfo, find_weights_file, load_weights

APPLICATIONS = [name for name, backbone in BACKBONES.items() if backbone.builder.startswith(("applications", "vgg"))]


# The registry


@pytest.fixture
def keras_application(monkeypatch):
    """Return a function that builds a backbone as Keras does for ImageNet weights, and lists what Keras would fetch."""

    def build(name, **settings):
        requests = []
        monkeypatch.setattr(
            "keras.src.utils.file_utils.get_file",
            lambda fname, origin, *, cache_subdir="models", file_hash="", md5_hash="": requests.append(
                (fname, origin, file_hash or md5_hash or "")
            ),
        )
        monkeypatch.setattr(keras.Model, "load_weights", lambda *arguments, **settings: None)
        options = {key: value for key, value in BACKBONES[name].options.items() if key != "normalized_scale"}
        constructor = options.pop("constructor", "VGG16")
        return getattr(keras.applications, constructor)(weights="imagenet", **options, **settings), requests

    return build


@pytest.mark.parametrize("name", with_slow_marks(APPLICATIONS))
def test_files_and_layers_are_those_of_keras(name, keras_application):
    entry = WEIGHTS[name][0]
    size = BACKBONES[name].image_size  # for an unknown size Keras builds NASNetLarge with another graph
    reference, requests = keras_application(name, include_top=entry.top, pooling="avg", input_shape=(size, size, 3))
    assert requests == [(entry.name, entry.url, entry.hash)], "paste what Keras requests into weights/registry.py"

    def layer_weights(model):
        layers = [layer for layer in model.layers if layer.weights and layer.name != "predictions"]
        return [(type(layer), [tuple(weight.shape) for weight in layer.weights]) for layer in layers]

    ours = feature_extractor(build_classifier(name, 2))
    assert layer_weights(ours) == layer_weights(reference)
    if not entry.top:
        types = [type(layer).__name__ for layer in ours.layers if layer.name != "normalization"]
        assert sorted(types) == sorted(type(layer).__name__ for layer in reference.layers)


# Valid files


def save(model, path):
    if path.suffix == ".npz":
        np.savez(path, **{name: np.asarray(variable) for name, variable in variables_by_path(model).items()})
    elif path.suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    return path


@pytest.mark.parametrize(
    "name, suffix",
    [
        ("resnet18", ".weights.h5"),
        ("resnet18", ".keras"),
        ("resnet18", ".npz"),
        ("efficientnet_b0", ".npz"),  # Normalization computes with constants made from its weights
        ("convnext_tiny", ".npz"),  # LayerScale has a nameless weight
        ("convnext_tiny", ".weights.h5"),  # layers within layers
    ],
)
def test_saved_weights_are_loaded_again(name, suffix, tmp_path):
    model = build_classifier(name, 5, image_size=SMALL[name])
    path = save(model, tmp_path / f"saved{suffix}")
    loaded = build_classifier(name, 5, image_size=SMALL[name])
    assert load_weights(loaded, name, path) == LoadingInfo(path.name, len(model.weights))
    images = random_pixels(model)
    np.testing.assert_array_equal(np.asarray(loaded(images)), np.asarray(model(images)))


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".npz"])
def test_a_head_of_another_size_is_recorded_as_missing(suffix, tmp_path):
    model = build_classifier("alexnet_narrow", 62)
    model.compile("adam")
    other = build_classifier("alexnet_narrow", 10)
    info = load_weights(other, "alexnet_narrow", save(model, tmp_path / f"saved{suffix}"))
    assert info.loaded == len(model.weights) - 2
    assert info.missing["logits/bias"] == "(62,) in the file, (10,) here; new"
    images = random_pixels(model)
    np.testing.assert_array_equal(np.asarray(feature_extractor(other)(images)), np.asarray(feature_extractor(model)(images)))


def test_half_precision_is_widened(tmp_path):
    model = build_classifier("alexnet_narrow", 3)
    path = tmp_path / "half.npz"
    np.savez(path, **{name: np.asarray(variable, "float16") for name, variable in variables_by_path(model).items()})
    loaded = build_classifier("alexnet_narrow", 3)
    load_weights(loaded, "alexnet_narrow", path)
    np.testing.assert_allclose(
        np.asarray(loaded.get_layer("conv1").kernel), np.asarray(model.get_layer("conv1").kernel), rtol=1e-3, atol=1e-6
    )


KERAS_PREPROCESSING = {
    "mobilenet_0.25": keras.applications.mobilenet.preprocess_input,
    "resnet50": keras.applications.resnet.preprocess_input,
    "densenet121": keras.applications.densenet.preprocess_input,
    "xception": keras.applications.xception.preprocess_input,
    "efficientnet_b0": lambda images: images,
    "convnext_tiny": lambda images: images,
}


# resnet50 has the layers and the normalization (caffe) of a large Keras file; densenet121 and xception differ in the normalization alone.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ("densenet121", "xception") else name for name in KERAS_PREPROCESSING]
)
def test_a_keras_file_gives_the_features_of_keras(name, keras_application, tmp_path):
    size = SMALL[name]
    reference, _ = keras_application(name, include_top=False, pooling="avg", input_shape=(size, size, 3))
    for weight in reference.weights:  # initial values would hide a swap of scales, shifts and running statistics
        if len(weight.shape) == 1:
            weight.assign(weight + 0.1 * keras.random.uniform(weight.shape, seed=0))
    for layer in reference.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    path = tmp_path / "application.h5"
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, reference)
    model = build_classifier(name, 4, image_size=size)
    assert load_weights(model, name, path).loaded == len(reference.weights)
    images = random_pixels(model)
    expected = np.asarray(reference(KERAS_PREPROCESSING[name](images.copy())))
    assert np.isfinite(expected).all() and expected.std() > 0
    np.testing.assert_allclose(np.asarray(feature_extractor(model)(images)), expected, rtol=1e-3, atol=1e-4 * expected.std())


@pytest.mark.slow
def test_a_keras_file_of_vgg16_fills_its_fully_connected_layers(keras_application, tmp_path):
    reference, _ = keras_application("vgg16", include_top=True, classifier_activation=None)
    with h5py.File(tmp_path / "vgg16.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, reference)
    model = build_classifier("vgg16", 10, image_size=32)
    assert set(load_weights(model, "vgg16", tmp_path / "vgg16.h5").missing) == {"logits/kernel", "logits/bias"}
    for layer in ("block5_conv3", "fc1", "fc2"):
        np.testing.assert_array_equal(np.asarray(model.get_layer(layer).kernel), np.asarray(reference.get_layer(layer).kernel))


@pytest.mark.parametrize("size", [0, 96])
def test_the_real_mobilenet_gives_the_features_of_keras(size, shared, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(shared / "weights" / "keras"))
    path = find_weights_file("mobilenet_0.75", "imagenet")
    model = build_classifier("mobilenet_0.75", 10, image_size=size)
    info = load_weights(model, "mobilenet_0.75", path)
    assert path.name == "mobilenet_7_5_224_tf_no_top.h5" and info.loaded == len(model.weights) - 2
    reference = keras.applications.MobileNet(
        alpha=0.75, include_top=False, weights=str(path), input_shape=model.input.shape[1:], pooling="avg"
    )
    images = random_pixels(model)
    features = np.asarray(feature_extractor(model)(images))
    np.testing.assert_allclose(features, np.asarray(reference(images / 127.5 - 1)), atol=1e-3)
    assert features.std() > 0.1


# Damaged, hostile and wrong files


def truncated(path, model):
    save(model, path)
    path.write_bytes(path.read_bytes()[:5000])


def web_page(path, model):
    path.write_text("<!DOCTYPE html><html>Not found</html>")


def empty(path, model):
    path.touch()


@pytest.fixture(scope="module")
def model():
    return build_classifier("alexnet_narrow", 3)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".npz", ".h5"])
@pytest.mark.parametrize("damage", [truncated, web_page, empty])
def test_a_damaged_file_is_named(damage, suffix, model, tmp_path):
    path = tmp_path / f"file{suffix}"
    if damage is truncated and suffix == ".h5":
        path = truncated(tmp_path / "file.weights.h5", model) or (tmp_path / "file.weights.h5").rename(path)
    else:
        damage(path, model)
    with pytest.raises(DamagedError, match=path.name):
        load_weights(model, "alexnet_narrow", path)


def test_pickles_are_refused(model, tmp_path):
    path = tmp_path / "pickled.npz"
    np.savez(path, **{"conv1/kernel": np.array([{}], dtype=object)})
    with pytest.raises(DamagedError, match="allow_pickle"):
        load_weights(model, "alexnet_narrow", path)


def test_links_to_other_files_are_not_followed(model, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file.create_group("layers/conv2d/vars").attrs["name"] = "conv1"
        file["layers/conv2d/vars/0"] = np.asarray(model.get_layer("conv1").kernel)
    with h5py.File(tmp_path / "links.weights.h5", "w") as file:
        file["layers"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "layers")
    with pytest.raises(ConfigError, match="only in the model"):
        load_weights(model, "alexnet_narrow", tmp_path / "links.weights.h5")


def test_data_stored_in_other_files_is_refused(model, tmp_path):
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    with h5py.File(tmp_path / "outside.weights.h5", "w") as file:
        file.create_dataset("layers/conv2d/vars/0", (16,), "float32", external=[(str(tmp_path / "secret"), 0, 64)])
    with pytest.raises(DamagedError, match="is stored in another file"):
        load_weights(model, "alexnet_narrow", tmp_path / "outside.weights.h5")


def test_a_file_larger_than_the_model_is_refused_unread(model, tmp_path):
    with h5py.File(tmp_path / "huge.weights.h5", "w") as file:
        file.create_dataset("layers/conv2d/vars/0", (2**40,), "float32", chunks=(1024,))
    with zipfile.ZipFile(tmp_path / "huge.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("conv1/kernel.npy", "w") as entry:
        for _ in range(300):
            entry.write(bytes(2**20))
    for name in ("huge.weights.h5", "huge.npz"):
        with pytest.raises(DamagedError, match="claims"):
            load_weights(model, "alexnet_narrow", tmp_path / name)


@pytest.mark.parametrize("suffix", [".weights.h5", ".npz"])
def test_weights_of_another_backbone_are_refused(suffix, model, tmp_path):
    path = save(build_classifier("resnet18", 3, image_size=32), tmp_path / f"other{suffix}")
    before = np.asarray(model.get_layer("conv1").kernel)
    with pytest.raises(ConfigError) as error:
        load_weights(model, "alexnet_narrow", path)
    assert "only in the file" in str(error.value) and "only in the model" in str(error.value)
    np.testing.assert_array_equal(np.asarray(model.get_layer("conv1").kernel), before)


def test_a_keras_file_of_another_model_is_refused(model, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, build_classifier("resnet18", 3, image_size=32))
    with pytest.raises(ConfigError, match="of another model"):
        load_weights(model, "alexnet_narrow", tmp_path / "other.h5")


def test_an_unknown_format_is_refused(model, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"some other bytes")
    with pytest.raises(ConfigError, match=r"no weights file of a known format; it begins with b'some other bytes'"):
        load_weights(model, "alexnet_narrow", tmp_path / "weights.bin")
