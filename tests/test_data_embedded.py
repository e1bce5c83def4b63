"""The embedded data sets and the table of data sets."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tl_keras import data
from tl_keras.config import DataConfig
from tl_keras.data import digits, glyphs
from tl_keras.errors import ConfigError, DamagedError

EMBEDDED = {"digits": (1297, 500, 10), "glyphs": (11160, 1240, 62)}


@pytest.fixture(scope="module", params=EMBEDDED)
def embedded(request):
    return data.load_source(DataConfig(dataset=request.param))


def test_embedded_data_sets_have_their_documented_sizes(embedded):
    num_train, num_test, num_classes = EMBEDDED[embedded.name]
    assert (len(embedded.train), len(embedded.test), len(embedded.class_names)) == (num_train, num_test, num_classes)
    assert embedded.validation is None and embedded.embedded and len(embedded.fingerprint) == 64
    counts = embedded.train.class_counts
    assert len(counts) == num_classes and max(counts.values()) - min(counts.values()) <= 7
    images = embedded.train.load_batch(range(500))
    assert images.shape == (500, 8, 8, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    assert images.max(axis=(1, 2, 3)).min() > 150
    assert not set(embedded.train.indices) & set(embedded.test.indices)


def test_every_embedded_data_set_is_tested():
    assert {name for name, entry in data.DATASETS.items() if entry.loader != "tfds"} == set(EMBEDDED)


def test_embedded_digits_equal_the_output_of_the_script():
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location("make_digits", Path(__file__).parents[1] / "tools" / "make_digits.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with np.load(digits.PATH, allow_pickle=False) as stored:
        made = script.make()
        assert set(stored.files) == set(made), "run `make embedded`"
        for name, values in made.items():
            np.testing.assert_array_equal(stored[name], values, err_msg="run `make embedded`")


def test_a_damaged_file_of_digits_is_reported(tmp_path, monkeypatch):
    digits_bytes = digits.PATH.read_bytes()
    monkeypatch.setattr(digits, "PATH", tmp_path / "digits.npz")
    for content in (b"", b"no archive", digits_bytes[:1000]):
        digits.PATH.write_bytes(content)
        with pytest.raises(DamagedError, match="Reinstall"):
            digits.load(DataConfig(dataset="digits"))


def test_glyphs_depend_on_the_seed_only_and_every_font_has_all_characters():
    images, labels = glyphs.render(2, seed=5)
    np.testing.assert_array_equal(images, glyphs.render(2, seed=5)[0])
    assert not np.array_equal(images, glyphs.render(2, seed=6)[0])
    np.testing.assert_array_equal(np.bincount(labels), 2)
    for font in glyphs.FONTS:
        shapes = {glyphs._draw(character, font, 0).tobytes() for character in glyphs.CHARACTERS}
        assert len(shapes) > 55, f"{font} has no glyphs of its own for some characters"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dataset": "CIFAR-10"}, "Known: .*cifar10.*folder:PATH"),
        ({"dataset": ""}, "Known"),
        ({"dataset": "CIFAR10"}, "lower case. Write `dataset=cifar10`"),
        ({"dataset": "cifar10:3.0.2"}, "a version is not chosen by name; .* `dataset=cifar10`"),
        ({"dataset": "../cifar10"}, "Known"),
        ({"dataset": "cifar10", "label": "species"}, "`label=species`: cifar10 has label"),
        ({"dataset": "folder:/no/such/path"}, "/no/such/path is not a folder"),
    ],
)
def test_impossible_names_are_refused_before_loading(settings, message):
    with pytest.raises(ConfigError, match=message):
        data.find_dataset(DataConfig(**settings))


def test_entries_are_found_by_name():
    assert not data.find_dataset(DataConfig()).crops
    assert data.find_dataset(DataConfig(dataset="oxford_iiit_pet", label="species")).crops
    assert data.find_dataset(DataConfig(dataset="stanford_dogs", label="anything")).loader == "tfds"


def test_the_tables_load_no_tensorflow():
    code = "import sys, tl_keras.data as d; d.find_dataset; sys.exit(bool({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
