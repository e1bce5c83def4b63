"""The registry of weights, and finding the files that it names."""

import hashlib
import re
from pathlib import PurePosixPath

import pytest

from tl_keras.backbones import BACKBONES, NORMALIZATIONS
from tl_keras.backbones.registry import INTERNAL
from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.weights import WEIGHTS, WeightsFile, find_weights_file
from tl_keras.weights.locate import CACHES, found_files
from tl_keras.weights.registry import AUGREG, EFFICIENTNET, KERAS, TORCHVISION, get_weights, normalization_of
from tl_keras.weights.weights_file import ALGORITHMS

ROWS = [(backbone, row) for backbone, rows in WEIGHTS.items() for row in rows]
HOSTS = {"keras": (KERAS, EFFICIENTNET), "torchvision": (TORCHVISION,), "augreg": (AUGREG,), "embedded": ("",)}
every_row = pytest.mark.parametrize(("backbone", "row"), ROWS, ids=[f"{backbone}:{row.variant}" for backbone, row in ROWS])
BYTES = b"weights" * 1000


def test_every_backbone_has_weights():
    assert set(WEIGHTS) == set(BACKBONES)


@every_row
def test_row_is_consistent(backbone, row):
    assert PurePosixPath(row.name).name == row.name and row.name.endswith((".h5", ".npz", ".pth"))
    assert row.url.startswith(HOSTS[row.source]) and row.embedded == (row.source == "embedded")
    assert len(row.hash) in ALGORITHMS and re.fullmatch("[0-9a-f]*", row.hash)
    assert normalization_of(backbone, row.variant) in (*NORMALIZATIONS, INTERNAL)
    assert row.interpolation in ("bilinear", "bicubic") and row.resize >= row.crop
    assert all(50 < value < 100 for value in row.accuracy) and list(row.accuracy) == sorted(row.accuracy)
    assert row.embedded or row.source in CACHES
    assert row.size == 0 or row.size > 2**20


@every_row
def test_torchvision_names_carry_their_hash(backbone, row):
    digits = re.search(r"-([0-9a-f]{8})\.pth$", row.name)
    assert bool(digits) == (row.source == "torchvision")
    assert not digits or (row.hash.startswith(digits[1]) and row.url == TORCHVISION + row.name)


@pytest.mark.parametrize("backbone", WEIGHTS)
def test_variants_and_names_are_unique(backbone):
    rows = WEIGHTS[backbone]
    assert len({row.variant for row in rows}) == len({row.name for row in rows}) == len(rows)


def test_default_weights_are_imagenet_wherever_there_are_any():
    assert {backbone for backbone, rows in WEIGHTS.items() if rows[0].variant != "imagenet"} == {"alexnet_narrow"}


def test_non_commercial_weights_are_marked_and_never_the_default():
    marked = {(backbone, row.variant) for backbone, row in ROWS if row.non_commercial}
    assert marked == {("vit_b16", "swag_e2e"), ("vit_b16", "swag_linear")}
    assert not any(rows[0].non_commercial for rows in WEIGHTS.values())


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
    ],
)
def test_normalization_follows_the_weights(backbone, weights, normalization):
    assert normalization_of(backbone, weights) == normalization


# Finding files


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A row for resnet18 whose file a stand-in for the network gives; and caches below tmp_path."""
    row = WeightsFile("imagenet", "published.pth", "https://host/published.pth", hashlib.sha256(BYTES).hexdigest(), source="torchvision")
    monkeypatch.setattr("tl_keras.weights.locate.WEIGHTS", {**WEIGHTS, "resnet18": (row,)})
    monkeypatch.setattr("tl_keras.utils.connectivity.is_reachable", lambda url, timeout: True)
    monkeypatch.setattr("tl_keras.weights.locate.fetch", lambda row, directory: put(directory / row.name))
    for variable in ("KERAS_HOME", "TL_KERAS_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return row


def put(path, content=BYTES):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_none_needs_no_file():
    assert find_weights_file("alexnet", "none") is None


def test_path_is_taken_as_it_is(tmp_path):
    assert find_weights_file("alexnet", str(put(tmp_path / "mine.npz"))) == tmp_path / "mine.npz"


def test_absent_file_is_fetched_to_the_cache_once(published, tmp_path, monkeypatch):
    path = find_weights_file("resnet18", "imagenet")
    assert path == tmp_path / "TL_KERAS_WEIGHTS" / "published.pth" and path.read_bytes() == BYTES
    monkeypatch.setattr("tl_keras.utils.connectivity.is_reachable", lambda url, timeout: pytest.fail("asked the network"))
    assert find_weights_file("resnet18", "imagenet") == path


def test_default_cache_is_in_the_home_directory(published, tmp_path, monkeypatch):
    monkeypatch.delenv("TL_KERAS_WEIGHTS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_weights_file("resnet18", "imagenet") == tmp_path / ".cache" / "tl_keras" / "weights" / "published.pth"


def test_torch_cache_is_read(published, tmp_path):
    in_torch = put(tmp_path / "TORCH_HOME" / "hub" / "checkpoints" / "published.pth")
    assert find_weights_file("resnet18", "imagenet") == in_torch and list(found_files(published)) == [in_torch]


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
def test_damaged_file_is_named_and_kept(content, reason, published, tmp_path):
    path = put(tmp_path / "TL_KERAS_WEIGHTS" / "published.pth", content)
    with pytest.raises(DamagedError) as error:
        find_weights_file("resnet18", "imagenet")
    assert all(said in str(error.value) for said in (str(path), published.url, reason))
    assert path.read_bytes() == content


def test_unreachable_host_says_how_to_get_the_file(published, tmp_path, monkeypatch):
    monkeypatch.setattr("tl_keras.utils.connectivity.is_reachable", lambda url, timeout: False)
    with pytest.raises(MissingError) as error:
        find_weights_file("resnet18", "imagenet", str(tmp_path / "mine"))
    places = [str(tmp_path / place) for place in ("mine", "TL_KERAS_WEIGHTS")]
    assert all(said in str(error.value) for said in (published.name, published.url, published.hash, "weights_dir", *places))


def test_non_commercial_licence_is_said(published, monkeypatch, capsys):
    assert find_weights_file("vit_b16", "imagenet") is not None
    assert "non-commercial" not in capsys.readouterr().err
    assert find_weights_file("vit_b16", "swag_linear") is not None
    assert "CC-BY-NC-4.0: for non-commercial use only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("backbone", "weights", "error", "said"),
    [
        ("alexnet", "imagenet_v1", MissingError, "a backbone that has them: resnet50_torch"),
        ("resnet50", "glyphs", MissingError, "a backbone that has them: alexnet_narrow"),
        ("resnet50", "imagnet", ConfigError, "Did you mean 'imagenet'"),
        ("resnet50", "absent.npz", MissingError, "no such file"),
        ("resnet50", "absent/imagenet", MissingError, "no such file"),
        ("resnet", "imagenet", ConfigError, "Unknown backbone"),
    ],
)
def test_what_cannot_be_had_is_said(backbone, weights, error, said):
    with pytest.raises(error) as raised:
        find_weights_file(backbone, weights)
    assert said in str(raised.value)
