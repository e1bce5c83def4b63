"""The sheet of augmented images: each original beside the model inputs of the first epochs."""

import numpy as np
import pytest
from PIL import Image

from tl_keras import data
from tl_keras.cli import verbs
from tl_keras.config import DataConfig
from tl_keras.data import augmentation_sheet, augmentation_strip, pipeline
from tl_keras.data.geometry import Geometry
from tl_keras.data.sampling import TrainingOrder

CONFIG = DataConfig(dataset="digits", augmentation="crop_flip")


def draw(tmp_path, **settings):
    path = tmp_path / "sheet.png"
    flags = {"dataset": "digits", "backbone": "alexnet_narrow", "augmentation": "randaugment", "output": path, **settings}
    return path, verbs.main(["sheet", *(f"--{name}={value}" for name, value in flags.items())])


@pytest.mark.parametrize("augmentation", ["none", "flip_rotate20_jitter+cutmix"])
def test_the_verb_writes_a_png(tmp_path, capsys, augmentation):
    path, code = draw(tmp_path, augmentation=augmentation)
    assert code == 0 and capsys.readouterr().out.strip() == str(path)
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape[0] > 800 and pixels.shape[1] > 800 and pixels.std() > 20


def test_rows_are_images_in_order_and_columns_are_epochs(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(augmentation_sheet, "_draw_image", lambda axes, image, caption: seen.append((image, caption)))
    source = data.load_source(CONFIG)
    augmentation_sheet.write_sheet(source, CONFIG, tmp_path / "sheet.png", geometry=Geometry(8, 1.0), seed=3)
    images = np.stack([image for image, _ in seen]).reshape(1 + augmentation_sheet.NUM_EPOCHS, augmentation_sheet.NUM_IMAGES, 8, 8, 3)
    train = data.make_splits(source, CONFIG, 3).train
    np.testing.assert_allclose(images[0], train.load_batch(range(augmentation_sheet.NUM_IMAGES)), atol=1e-3)
    names = [source.class_names[label] for label in train.labels[: augmentation_sheet.NUM_IMAGES]]
    assert [caption for _, caption in seen] == names * (1 + augmentation_sheet.NUM_EPOCHS)
    settings = {"num_classes": 10, "augmentation": "crop_flip", "sizes": (len(train),), "epoch": 1}
    second = next(pipeline.training_batches(TrainingOrder(train, 3), Geometry(8, 1.0), **settings).as_numpy_iterator())[0]
    trained_on = {image.tobytes() for image in second}
    assert all(image.tobytes() in trained_on for image in images[2])


@pytest.mark.parametrize(("augmentation", "is_changed"), [("none", False), ("crop_flip", True)])
def test_the_strip_of_a_run_has_a_line_for_each_image_and_a_column_for_each_epoch(tmp_path, augmentation, is_changed):
    train = data.make_splits(data.load_source(CONFIG), CONFIG, 3).train
    path, geometry = tmp_path / "strip.jpg", Geometry(32, 1.0)
    augmentation_strip.write_strip(train, path, geometry=geometry, num_classes=10, augmentation=augmentation, seed=3)
    pixels, step = np.asarray(Image.open(path)).astype(int), 32 + augmentation_strip.GAP
    lines, columns = augmentation_strip.NUM_IMAGES, 1 + augmentation_strip.NUM_EPOCHS
    assert pixels.shape == (augmentation_strip.GAP + lines * step, augmentation_strip.GAP + columns * step, 3)
    starts = [[augmentation_strip.GAP + step * index for index in range(count)] for count in (lines, columns)]
    tiles = np.array([[pixels[y : y + 32, x : x + 32] for x in starts[1]] for y in starts[0]])
    originals = augmentation_strip.first_batch(
        TrainingOrder(train.subset(np.arange(lines)), 3), geometry, num_classes=10, augmentation="none", epoch=0
    )[0]
    assert np.abs(tiles[:, 0] - originals).mean() < 4  # JPEG
    assert (np.abs(tiles[:, 1:] - tiles[:, :1]).mean() > 10) == is_changed


def test_captions_of_mixtures_give_the_fractions_of_the_classes():
    assert augmentation_sheet._caption(np.array([0.25, 0.0, 0.75]), ("ant", "bee", "$c$")) == "0.75 $c$\n0.25 ant"
    assert augmentation_sheet._caption(np.array([0.999, 0.001]), ("a" * 30, "bee")) == "a" * 17 + "…"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"output": ""}, "--output is required"),
        ({"augmentation": "flop"}, "Unknown augmentation"),
        ({"dataset": "no-set"}, "Unknown data set"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, capsys, settings, message):
    path, code = draw(tmp_path, **settings)
    assert code == 2 and message in capsys.readouterr().err and not path.exists()
