"""Copies of pictures in another size or compression, in other splits."""

import numpy as np
import pytest
from PIL import Image

from tl_keras import data
from tl_keras.config import RunConfig
from tl_keras.data import near_copies
from tl_keras.results.split_record import read_split, write_split
from tl_keras.runs.run_data import record_split
from tl_keras.runs.setup import split_data


def photo(seed, width=60, height=45, span=128):
    """Return a smooth picture whose grey levels are within `span` of each other."""
    levels = np.random.default_rng(seed).integers(0, span, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


CHANGES = {
    "half.png": lambda image: image.resize((40, 32)),
    "double.png": lambda image: image.resize((120, 90), Image.Resampling.BICUBIC),
    "compressed.jpg": lambda image: image,
}


@pytest.fixture
def config(tmp_path):
    """A folder with splits. In test, the last picture of train is there in other sizes, and the first one unchanged."""
    for number, split in enumerate(("train", "test")):
        for label in ("cat", "dog"):
            (tmp_path / split / label).mkdir(parents=True)
            for index in range(6):
                photo(100 * number + 10 * len(label + split) + index + (label == "dog") * 50).save(
                    tmp_path / split / label / f"{index}.png"
                )
    original = Image.open(tmp_path / "train" / "cat" / "5.png")
    for name, change in CHANGES.items():
        change(original).save(tmp_path / "test" / "dog" / name, **({"quality": 20} if name.endswith("jpg") else {}))
    (tmp_path / "test" / "cat" / "equal.png").write_bytes((tmp_path / "train" / "cat" / "0.png").read_bytes())
    return RunConfig().replace(dataset=f"folder:{tmp_path}", validation_fraction=0.0)


def notes(config, recorded=None):
    source, _ = split_data(data.load_source(config.data), config, recorded)
    return [note for note in source.notes if "another size" in note]


def test_copies_in_another_size_or_compression_are_noted(config, tmp_path):
    expected = "3 images outside train look like training images in another size or compression: "
    for _ in range(2):  # the second time with kept checks
        (note,) = notes(config)
        assert note.startswith(expected) and set(note.removeprefix(expected).split(", ")) == {f"test/dog/{name}" for name in CHANGES}
    write_split(tmp_path, record_split(source := data.load_source(config.data), data.make_splits(source, config.data, 0)))
    assert notes(config, read_split(tmp_path)) == [note]


@pytest.mark.parametrize("settings", [{"width": 30, "height": 24}, {"span": 50}], ids=["small", "of little contrast"])
def test_pictures_that_are_alike_by_chance_are_not_compared(config, tmp_path, settings):
    for label in ("cat", "dog"):
        for path in (tmp_path / "train" / label).glob("*.png"):
            photo(int(path.stem), **settings).save(path)
    photo(5, **settings).resize((80, 60), Image.Resampling.BICUBIC).save(tmp_path / "test" / "dog" / "copy.png")
    assert not notes(config)


def test_too_many_images_are_not_compared_and_that_is_noted(config, monkeypatch):
    monkeypatch.setattr(near_copies, "MAX_PAIRS", 100)
    assert notes(config) == ["copies of training images in another size or compression are not looked for: too many images"]


def test_images_that_are_no_files_are_not_compared():
    config = RunConfig().replace(dataset="digits")
    source = data.load_source(config.data)
    assert not near_copies.describe_near_copies(data.make_splits(source, config.data, 0))
