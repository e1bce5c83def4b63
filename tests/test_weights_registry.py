"""The registry of weights, and the search for its files."""

import hashlib
import re
from pathlib import PurePosixPath

import pytest

from tl_keras.backbones import BACKBONES, NORMALIZATIONS
from tl_keras.backbones.registry import INTERNAL
from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.weights import WEIGHTS, WeightsFile, find_weights_file
from tl_keras.weights.locate import CACHES, local_files
from tl_keras.weights.registry import AUGREG, EFFICIENTNET, KERAS, TORCHVISION, get_weights, normalization_of
from tl_keras.weights.weights_file import ALGORITHMS

ENTRIES = [(backbone, entry) for backbone, entries in WEIGHTS.items() for entry in entries]
HOSTS = {"keras": (KERAS, EFFICIENTNET), "torchvision": (TORCHVISION,), "augreg": (AUGREG,), "package_index": ("",), "embedded": ("",)}
every_entry = pytest.mark.parametrize(("backbone", "entry"), ENTRIES, ids=[f"{backbone}:{entry.variant}" for backbone, entry in ENTRIES])
BYTES = b"weights" * 1000

WITHOUT_WEIGHTS: set[str] = set()  # backbones that are trained from scratch only


def test_every_backbone_has_weights():
    assert set(WEIGHTS) == set(BACKBONES) - WITHOUT_WEIGHTS


@every_entry
def test_entry_is_consistent(backbone, entry):
    assert PurePosixPath(entry.name).name == entry.name and entry.name.endswith((".h5", ".npz", ".pth"))
    assert entry.url.startswith(HOSTS[entry.source]) and entry.embedded == (entry.source == "embedded")
    assert bool(entry.url) == (not entry.package and not entry.embedded) and bool(entry.package) == (entry.source == "package_index")
    assert len(entry.hash) in ALGORITHMS and re.fullmatch("[0-9a-f]*", entry.hash)
    assert normalization_of(backbone, entry.variant) in (*NORMALIZATIONS, INTERNAL)
    assert entry.interpolation in ("bilinear", "bicubic") and entry.resize >= entry.crop
    assert all(50 < value < 100 for value in entry.accuracy) and list(entry.accuracy) == sorted(entry.accuracy)
    assert entry.embedded or entry.source in CACHES
    assert entry.size == 0 or entry.size > 2**20


@every_entry
def test_names_of_torch_files_contain_their_hash(backbone, entry):
    digits = re.search(r"-([0-9a-f]{8})\.pth$", entry.name)
    assert bool(digits) == (entry.source in ("torchvision", "package_index"))
    assert not digits or entry.hash.startswith(digits[1])
    assert entry.source != "torchvision" or entry.url == TORCHVISION + entry.name


@pytest.mark.parametrize("backbone", WEIGHTS)
def test_variants_and_names_are_unique(backbone):
    entries = WEIGHTS[backbone]
    assert len({entry.variant for entry in entries}) == len({entry.name for entry in entries}) == len(entries)


def test_default_weights_are_imagenet_if_available():
    assert {backbone for backbone, entries in WEIGHTS.items() if entries[0].variant != "imagenet"} == {"alexnet_narrow"}


def test_non_commercial_weights_are_marked_and_never_the_default():
    marked = {(backbone, entry.variant) for backbone, entry in ENTRIES if entry.non_commercial}
    assert marked == {("vit_b16", "swag_e2e"), ("vit_b16", "swag_linear")}
    assert not any(entries[0].non_commercial for entries in WEIGHTS.values())


@pytest.mark.parametrize(
    ("backbone", "weights", "normalization"),
    [
        ("vgg16", "imagenet", "caffe"),
        ("vgg16", "torchvision", "imagenet"),
        ("vgg16", "none", "caffe"),
        ("vgg16", "/somewhere/vgg16-397923af.pth", "imagenet"),
        ("vgg16", "mine.pth", "imagenet"),
        ("vgg16", "mine.weights.h5", "caffe"),
        ("vit_b16", "imagenet", "imagenet"),
        ("vit_b16", "augreg_21k", "half"),
        ("vit_b16", f"cache/{get_weights('vit_b16', 'augreg_21k').name}", "half"),
        ("resnet50", "imagenet", "caffe"),
        ("resnet50_torch", "imagenet_v1", "imagenet"),
        ("efficientnet_b0", "imagenet", "internal"),
        ("efficientnet_lite0", "imagenet", "efficientnet_lite"),
        ("efficientnet_lite0", "mine.pth", "efficientnet_lite"),
    ],
)
def test_normalization_follows_the_weights(backbone, weights, normalization):
    assert normalization_of(backbone, weights) == normalization


# Search for files


@pytest.fixture
def published(monkeypatch, tmp_path):
    """An entry for resnet18 whose download is simulated, with all caches below tmp_path."""
    entry = WeightsFile("imagenet", "published.pth", "https://host/published.pth", hashlib.sha256(BYTES).hexdigest(), source="torchvision")
    monkeypatch.setattr("tl_keras.weights.locate.WEIGHTS", {**WEIGHTS, "resnet18": (entry,)})
    monkeypatch.setattr("tl_keras.utils.connectivity.is_reachable", lambda url, timeout: True)
    monkeypatch.setattr("tl_keras.weights.locate.fetch", lambda entry, directory: put(directory / entry.name))
    for variable in ("KERAS_HOME", "TL_KERAS_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return entry


def put(path, content=BYTES):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_none_needs_no_file():
    assert find_weights_file("alexnet", "none") is None


def test_a_path_is_returned_unchanged(tmp_path):
    assert find_weights_file("alexnet", str(put(tmp_path / "mine.npz"))) == tmp_path / "mine.npz"


def test_an_absent_file_is_fetched_to_the_cache_once(published, tmp_path, monkeypatch):
    path = find_weights_file("resnet18", "imagenet")
    assert path == tmp_path / "TL_KERAS_WEIGHTS" / "published.pth" and path.read_bytes() == BYTES
    monkeypatch.setattr("tl_keras.utils.connectivity.is_reachable", lambda url, timeout: pytest.fail("used the network"))
    assert find_weights_file("resnet18", "imagenet") == path


def test_the_default_cache_is_in_the_home_directory(published, tmp_path, monkeypatch):
    monkeypatch.delenv("TL_KERAS_WEIGHTS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_weights_file("resnet18", "imagenet") == tmp_path / ".cache" / "tl_keras" / "weights" / "published.pth"


def test_the_torch_cache_is_read(published, tmp_path):
    in_torch = put(tmp_path / "TORCH_HOME" / "hub" / "checkpoints" / "published.pth")
    assert find_weights_file("resnet18", "imagenet") == in_torch and list(local_files(published)) == [in_torch]


def test_keras_files_are_fetched_to_the_keras_cache(published, tmp_path):
    fetched = find_weights_file("mobilenet_0.25", "imagenet")
    assert fetched.parent == tmp_path / "KERAS_HOME" / "models"


def test_weights_dir_comes_before_the_caches(published, tmp_path):
    in_cache = find_weights_file("resnet18", "imagenet")
    assert find_weights_file("resnet18", "imagenet", str(tmp_path / "mine")) == in_cache
    in_cache.unlink()
    assert find_weights_file("resnet18", "imagenet", str(tmp_path / "mine")) == tmp_path / "mine" / "published.pth"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"truncated", hashlib.sha256(b"truncated").hexdigest()),
        (b"<!DOCTYPE html>", "web page"),
        (b"\n <HTML>", "web page"),
        (b"", "0 bytes"),
    ],
)
def test_a_damaged_file_is_reported_and_kept(content, reason, published, tmp_path):
    path = put(tmp_path / "TL_KERAS_WEIGHTS" / "published.pth", content)
    with pytest.raises(DamagedError) as error:
        find_weights_file("resnet18", "imagenet")
    assert all(words in str(error.value) for words in (str(path), published.url, reason))
    assert path.read_bytes() == content


def test_the_error_for_an_unreachable_host_tells_how_to_get_the_file(published, tmp_path, monkeypatch):
    monkeypatch.setattr("tl_keras.utils.connectivity.is_reachable", lambda url, timeout: False)
    with pytest.raises(MissingError) as error:
        find_weights_file("resnet18", "imagenet", str(tmp_path / "mine"))
    directories = [str(tmp_path / name) for name in ("mine", "TL_KERAS_WEIGHTS")]
    assert all(words in str(error.value) for words in (published.name, published.url, published.hash, "weights_dir", *directories))


def test_a_non_commercial_licence_is_printed(published, monkeypatch, capsys):
    assert find_weights_file("vit_b16", "imagenet") is not None
    assert "non-commercial" not in capsys.readouterr().err
    assert find_weights_file("vit_b16", "swag_linear") is not None
    assert "CC-BY-NC-4.0: for non-commercial use only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("backbone", "weights", "error", "words"),
    [
        ("alexnet", "imagenet_v1", MissingError, "a backbone that has them: resnet50_torch"),
        ("resnet50", "glyphs", MissingError, "a backbone that has them: alexnet_narrow"),
        ("resnet50", "imagnet", ConfigError, "Did you mean 'imagenet'"),
        ("resnet50", "absent.npz", MissingError, "no such file"),
        ("resnet50", "absent/imagenet", MissingError, "no such file"),
        ("resnet", "imagenet", ConfigError, "Unknown backbone"),
    ],
)
def test_unavailable_weights_raise_an_error_with_advice(backbone, weights, error, words):
    with pytest.raises(error) as raised:
        find_weights_file(backbone, weights)
    assert words in str(raised.value)
