"""Features of images before the head, and the file that holds them."""

import keras
import numpy as np
import pytest
from PIL import Image

from tl_keras.backbones import feature_extractor
from tl_keras.cli import verbs
from tl_keras.runs.embed import embed_images
from tl_keras.runs.predict import Predictor


@pytest.fixture(scope="module")
def predictor(finished_run):
    return Predictor.of_run(finished_run.directory)


@pytest.fixture
def folder(tmp_path):
    """Two classes with two images each."""
    rng = np.random.default_rng(0)
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "in" / name)
    return tmp_path / "in"


def test_features_are_what_the_head_sees(finished_run, predictor):
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)  # the size of the model
    model = keras.models.load_model(finished_run.directory / "model.keras", compile=False)
    expected = np.asarray(feature_extractor(model)(images.astype(np.float32), training=False))
    found = predictor.embed(images, batch_size=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_array_equal((found @ kernel + bias).argmax(axis=1), predictor.predict(images).indices)
    assert predictor.embed([]).shape == (0, expected.shape[1])


def test_labels_are_those_of_folders_of_classes(folder, predictor):
    pixels = np.zeros((8, 8, 3), np.uint8)
    found = embed_images(predictor, [folder, pixels, folder / "cat", str(folder / "dog" / "2.png")])
    assert found.labels == ("cat", "cat", "dog", "dog", "", "cat", "cat", "dog")
    assert found.files[4] == "image 4" and found.features.shape == (8, 16)
    flat = embed_images(predictor, folder / "cat")
    assert flat.labels == ("", "")


def test_the_file_has_features_files_and_labels_and_nothing_pickled(folder, finished_run, predictor, tmp_path, capsys):
    (folder / "dog" / "3.png").write_text("no image")
    output = tmp_path / "new" / "features.npz"
    assert verbs.main(["embed", f"--run_dir={finished_run.directory}", str(folder), f"--output={output}", "--batch_size=3"]) == 6
    captured = capsys.readouterr()
    assert "features of 4 images, 16 each, labels of 2 classes" in captured.out and "3.png" in captured.err
    with np.load(output, allow_pickle=False) as file:
        content = {name: file[name] for name in file.files}
    assert set(content) == {"features", "files", "labels"}
    assert content["labels"].tolist() == ["cat", "cat", "dog", "dog"] and content["features"].dtype == np.float32
    np.testing.assert_allclose(content["features"], predictor.embed(content["files"].tolist()), atol=1e-5)


def test_images_without_classes_have_no_labels(folder, finished_run, tmp_path, capsys):
    output = tmp_path / "features.npz"
    assert verbs.main(["embed", f"--run_dir={finished_run.directory}", str(folder / "cat" / "1.png"), f"--output={output}"]) == 0
    with np.load(output, allow_pickle=False) as file:
        assert set(file.files) == {"features", "files"}
    assert verbs.main(["embed", f"--run_dir={finished_run.directory}", str(folder), "--output=features.txt"]) == 2
    assert ".npz" in capsys.readouterr().err
