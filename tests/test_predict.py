"""Prediction: the images that it takes, its agreement with the run, models from elsewhere, and its tables."""

import csv
import doctest
import json
import pickle
import shutil
import sys
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from tl_keras import data
from tl_keras.backbones import build_classifier
from tl_keras.cli import verbs
from tl_keras.data.geometry import Geometry
from tl_keras.data.image_inputs import list_images
from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.results.metrics import log_softmax
from tl_keras.results.predicted import Predictions
from tl_keras.results.predictions import read_predictions
from tl_keras.runs.evaluate import geometry_of
from tl_keras.runs.networks import Classifier, in_float32
from tl_keras.runs.predict import Predictor
from tl_keras.runs.resolve import load_source
from tl_keras.runs.run import run


def softmax(logits, temperature=1.0):
    return np.exp(log_softmax(logits / temperature))


def images_of(config):
    """Return the test images of a run, uint8 (height, width, 3) each."""
    test = data.make_splits(load_source(config.data), config.data, config.seed).test
    return [test.image(position) for position in range(len(test))]


@pytest.fixture(scope="module")
def predictor(finished_run):
    return Predictor.of_run(finished_run.directory)


@pytest.fixture(scope="module")
def images(finished_run):
    return images_of(finished_run.config)


@pytest.fixture
def folder(tmp_path, images):
    """Three images in sub-folders, two files that are no images, and what file managers and annotation tools leave behind."""
    for name, image in zip(("b/2.png", "a/1.png", "0.png"), images, strict=False):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "in" / name)
    for name in ("a/notes.txt", "a/1.xml", ".hidden.png", "Thumbs.db", "a/@eaDir/1.png"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text("no image")
    return tmp_path / "in"


def spoil(folder):
    (folder / "a" / "0.jpg").write_bytes(b"\xff\xd8 no JPEG")
    return folder / "a" / "0.jpg"


# Agreement with the run


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize("calibrated", [False, True])
def test_test_images_have_the_predictions_of_the_run(as_array, calibrated, finished_run, predictor, images):
    logits, _ = read_predictions(finished_run.directory)
    temperature = finished_run.result["temperature"] if calibrated else None
    found = predictor.predict(np.stack(images) if as_array else images, calibrated=calibrated)
    np.testing.assert_allclose(found.probabilities, softmax(logits, temperature or 1), atol=1e-5)
    np.testing.assert_array_equal(found.indices, logits.argmax(axis=1))
    assert found.temperature == temperature and found.class_names == tuple("0123456789")


def test_images_of_several_sizes_are_cropped_and_resized_as_in_the_run(tiny_config, tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            height, width = rng.integers(5, 60, 2)
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    config = tiny_config.replace(
        dataset=f"folder:{tmp_path / 'photos'}", fraction=1.0, epochs=1, crop_fraction=0.8, interpolation="bicubic", limit_test=0,
        validation_fraction=0.0, batch_size=8,
    )  # fmt: skip
    run(config, tmp_path / "run")
    logits, _ = read_predictions(tmp_path / "run")
    predictor = Predictor.of_run(tmp_path / "run")
    found = predictor.predict(images_of(config), calibrated=False, batch_size=3)
    np.testing.assert_allclose(found.probabilities, softmax(logits), atol=1e-5)
    with pytest.raises(ConfigError, match=r"calibrated=False"):
        predictor.predict(images_of(config))


def test_a_run_in_half_precision_predicts_in_float32(finished_run):
    model = keras.models.load_model(finished_run.directory / "model.keras", compile=False)
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = build_classifier("tiny", 10)
    half.set_weights(model.get_weights())
    assert half.get_layer("stem_conv").compute_dtype == "bfloat16"
    assert {layer.compute_dtype for layer in in_float32(half).layers if layer.weights} == {"float32"} and in_float32(model) is model
    networks = [Classifier(network, Geometry(16, 1.0)) for network in (model, half)]
    inputs = [network.prepare(np.full((20, 30, 3), 99, np.uint8)) for network in networks]
    np.testing.assert_allclose(networks[1].log_scores(inputs[1:]), networks[0].log_scores(inputs[:1]), atol=1e-6)


def test_threads_get_what_one_thread_gets(finished_run, images):
    fresh = Predictor.of_run(finished_run.directory)
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda start: fresh.predict(images[start : start + 5], batch_size=2), range(16)))
    for start, found in enumerate(results):
        serial = fresh.predict(images[start : start + 5], batch_size=2)
        np.testing.assert_array_equal(found.probabilities, serial.probabilities)
        assert found.files == serial.files


def test_mirror_images_are_averaged_in_probability(predictor, images):
    plain, mirrored = (predictor.predict(np.stack(images)[:, :, ::step]).probabilities for step in (1, -1))
    found = predictor.predict(images, tta=True)
    np.testing.assert_allclose(found.probabilities, (plain + mirrored) / 2, atol=1e-5)
    np.testing.assert_array_equal(found.indices, found.probabilities.argmax(axis=1))
    assert abs(plain - mirrored).max() > 0.01


class FixedScores:
    """A network that returns the same scores for whatever it is given."""

    def __init__(self, scores):
        self._scores = scores

    def prepare(self, image):
        return image

    def log_scores(self, inputs):
        return self._scores


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(2, 5)), elements=st.floats(-90, 90, width=32)),
    st.floats(0.05, 20),
)
def test_the_temperature_changes_no_label(scores, temperature):
    predictor = Predictor(FixedScores(scores), [str(name) for name in range(scores.shape[1])], temperature)
    pixels = np.zeros((len(scores), 2, 2, 3), np.uint8)
    found, plain = (predictor.predict(pixels, calibrated=calibrated) for calibrated in (True, False))
    assert found.labels == plain.labels
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert (found.confidences >= found.probabilities.max(axis=1) - 1e-6).all()


# Images


def test_a_directory_is_searched_and_sorted(folder, predictor, images):
    found = predictor.predict(folder)
    assert found.files == tuple(str(folder / name) for name in ("0.png", "a/1.png", "b/2.png")) and not found.skipped
    expected = predictor.predict([images[2], images[1], images[0]])
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    single = predictor.predict(str(folder / "b" / "2.png"))
    assert len(single) == 1 and single.labels == found.labels[2:]


def test_paths_and_arrays_can_be_mixed(folder, predictor, images):
    found = predictor.predict([folder / "a", images[0], np.stack(images[:2]), str(folder / "0.png")])
    assert found.files == (str(folder / "a" / "1.png"), "image 1", "image 2", "image 3", str(folder / "0.png"))


def test_links_that_lead_back_are_entered_once(folder):
    (folder / "a" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "b" / "again").symlink_to(folder / "a", target_is_directory=True)
    assert len(list_images(folder)) == 3


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_results_do_not_depend_on_the_batches(count, batch_size, predictor, images):
    calls = []
    found = predictor.predict(images[:count], batch_size=batch_size, on_progress=lambda *numbers: calls.append(numbers))
    np.testing.assert_allclose(found.probabilities, predictor.predict(images).probabilities[:count], atol=1e-6)
    assert len(found) == count and calls == [(min(done, count), count) for done in range(batch_size, count + batch_size, batch_size)]


REFUSED = {
    "float": (np.zeros((4, 4, 3), np.float32), ConfigError, "pixels of 0..1 and of 0..255 cannot be told apart"),
    "wide integers": (np.zeros((4, 4, 3), np.int64), ConfigError, "received an array int64"),
    "transparency": (np.zeros((4, 4, 4), np.uint8), ConfigError, r"received an array uint8 \(4, 4, 4\)"),
    "grey": (np.zeros((4, 4), np.uint8), ConfigError, "received an array uint8"),
    "empty": (np.zeros((2, 0, 4, 3), np.uint8), ConfigError, "received an array uint8"),
    "names": (np.array(["a.png"]), ConfigError, "Expected a path, an array uint8 RGB"),
    "number": (3, TypeError, "received int"),
    "bytes": ([b"x"], TypeError, "received bytes in the list"),
    "nested": ([[1, 2]], TypeError, "received list in the list"),
    "mapping": ({"a": 1}, TypeError, "received dict"),
    "absent": ("absent.png", MissingError, "absent.png: there is no such file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_inputs_are_refused_with_the_reason(name, predictor):
    given_images, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        predictor.predict(given_images)


def test_a_directory_without_images_and_impossible_settings(tmp_path, predictor):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match="holds no images"):
        predictor.predict(tmp_path)
    with pytest.raises(ConfigError, match="batch_size=0"):
        predictor.predict([], batch_size=0)
    with pytest.raises(ConfigError, match="on_corrupt"):
        predictor.predict([], on_corrupt="ignore")


def test_corrupt_files_stop_or_are_left_out(folder, predictor):
    clean, damaged = predictor.predict(folder), spoil(folder)
    with pytest.raises(DamagedError, match=r"0\.jpg.*on_corrupt=skip"):
        predictor.predict(folder)
    found = predictor.predict(folder, on_corrupt="skip", batch_size=1)
    assert found.files == clean.files and list(found.skipped) == [str(damaged)] and "0.jpg" in found.skipped[str(damaged)]
    np.testing.assert_array_equal(found.indices, clean.indices)
    assert len(predictor.predict(damaged, on_corrupt="skip")) == 0


# Models from files


def serve(run, temperature=None):
    """Return the model of a run as an export has it: uint8 images of any size to probabilities."""
    inputs = images = keras.Input((None, None, 3), dtype="uint8")
    for layer in geometry_of(run.result).resize_layers():
        images = layer(images)
    logits = keras.models.load_model(run.directory / "model.keras", compile=False)(images, training=False)
    return keras.Model(inputs, keras.layers.Softmax()(logits / (temperature or 1.0)))


@pytest.fixture(scope="module")
def exports(finished_run, tmp_path_factory):
    """Exports of the run: one with its temperature folded in, and one without as a SavedModel."""
    root, temperature = tmp_path_factory.mktemp("exports"), finished_run.result["temperature"]
    names = finished_run.result["data"]["class_names"]
    for name, folded in (("keras", temperature), ("saved_model", None)):
        (root / name).mkdir()
        (root / name / "labels.json").write_text(json.dumps({"class_names": names, "temperature": folded}))
    serve(finished_run, temperature).save(root / "keras" / "model.keras")
    serve(finished_run).export(root / "saved_model" / "saved_model", format="tf_saved_model", verbose=False)
    return root


def test_an_export_predicts_what_the_run_predicts(exports, predictor, images):
    mixed = [*images[:6], np.repeat(images[6], 3, axis=0)]
    for calibrated in (True, False):  # The temperature can be taken out again.
        found = Predictor.of_export(exports / "keras").predict(mixed, calibrated=calibrated)
        expected = predictor.predict(mixed, calibrated=calibrated)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
        assert found.class_names == expected.class_names and found.temperature == expected.temperature
    with pytest.raises(ConfigError, match="no features"):
        Predictor.of_export(exports / "keras").embed(images[:2])


def test_a_saved_model_predicts_and_its_danger_is_said(exports, predictor, images, caplog):
    loaded = Predictor.of_export(exports / "saved_model")
    assert "graph of a SavedModel is run" in caplog.text
    found = loaded.predict(images[:5], calibrated=False)
    np.testing.assert_allclose(found.probabilities, predictor.predict(images[:5], calibrated=False).probabilities, atol=1e-5)
    with pytest.raises(ConfigError, match="calibrated=False"):
        loaded.predict(images[:5])
    inner = Predictor.open(exports / "saved_model" / "saved_model")
    assert inner.class_names == loaded.class_names and not inner.notes


def test_the_file_of_a_run_knows_its_run_and_a_lone_one_says_what_it_lacks(finished_run, predictor, images, tmp_path):
    for path in (finished_run.directory / "model.keras", finished_run.directory):
        found = Predictor.open(path)
        assert found.class_names == predictor.class_names and found.temperature == predictor.temperature and not found.notes
    shutil.copy(finished_run.directory / "model.keras", tmp_path / "lone.keras")
    lone = Predictor.of_model_file(tmp_path / "lone.keras")
    assert lone.class_names == tuple("0123456789") and "numbers" in lone.notes[0] and "without a crop" in lone.notes[1]
    assert lone.predict(images, calibrated=False).labels == predictor.predict(images, calibrated=False).labels


def test_absent_and_other_models_are_refused(tmp_path, exports):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    (tmp_path / "text.keras").write_text("<html>")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "model.onnx").touch()
    for path, error, message in (
        ("absent.keras", MissingError, "no file"),
        ("other.keras", ConfigError, "uint8 RGB"),
        ("text.keras", DamagedError, "HTML page"),
        ("empty", ConfigError, r"model\.onnx, which its own runtime"),
    ):
        with pytest.raises(error, match=message):
            Predictor.open(tmp_path / path)
    with pytest.raises(MissingError):
        Predictor.of_export(tmp_path / "absent")
    with pytest.raises(ConfigError, match="is no export"):
        Predictor.of_export(exports)


@pytest.mark.parametrize("labels", ["[]", "{}", '{"class_names": ["a"]}', '{"class_names": "ab"}', "{"])
def test_wrong_labels_are_refused(labels, exports, tmp_path):
    shutil.copytree(exports / "keras", tmp_path / "export")
    (tmp_path / "export" / "labels.json").write_text(labels)
    with pytest.raises(DamagedError, match=r"labels\.json"):
        Predictor.of_export(tmp_path / "export")


def rewrite(source, target, change):
    """Copy a .keras archive with its configuration changed by `change`."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            after.writestr(name, json.dumps(change(json.loads(content))) if name == "config.json" else content)


def change_layer(**values):
    def change(config):
        config["config"]["layers"][-1].update(values)
        return config

    return change


@pytest.mark.parametrize(
    "change",
    [
        change_layer(class_name="Lambda"),
        change_layer(class_name="TFSMLayer"),
        change_layer(module="os", class_name="system"),
        change_layer(module="kerasevil.layers"),
        change_layer(registered_name="Custom>Dense"),
        change_layer(config={"activation": {"class_name": "__lambda__", "config": {}}}),
    ],
    ids=["lambda", "file", "module", "prefix", "custom", "activation"],
)
def test_models_that_could_run_code_are_refused_before_they_are_built(change, finished_run, tmp_path, monkeypatch):
    rewrite(finished_run.directory / "model.keras", tmp_path / "evil.keras", change)
    monkeypatch.setattr(keras.models, "load_model", lambda *args, **options: pytest.fail("it was built"))
    with pytest.raises(ConfigError, match="could run code"):
        Predictor.of_model_file(tmp_path / "evil.keras")


def test_a_real_lambda_is_refused(tmp_path):
    inputs = keras.Input((None, None, 3), dtype="uint8")
    keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs)).save(tmp_path / "lambda.keras")
    with pytest.raises(ConfigError, match="without Lambda"):
        Predictor.of_model_file(tmp_path / "lambda.keras")


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(10**6))
    with pytest.raises(DamagedError, match="unpacks to 1,000,002 bytes"):
        Predictor.of_model_file(tmp_path / "bomb.keras")


@pytest.mark.parametrize("damage", ["cut", "no config", "no json", "deep"])
def test_a_damaged_archive_is_named(damage, finished_run, tmp_path):
    source, path = finished_run.directory / "model.keras", tmp_path / "damaged.keras"
    if damage == "cut":
        path.write_bytes(source.read_bytes()[:500])
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(*{"no config": ("x", ""), "no json": ("config.json", "{"), "deep": ("config.json", "[" * 10**5)}[damage])
    with pytest.raises(DamagedError, match=r"damaged\.keras"):
        Predictor.of_model_file(path)


# Tables


@pytest.fixture
def predictions():
    probabilities = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], np.float32)
    return Predictions(("=b.png", "caf\udce9.png"), ("cat", "label", "-dog"), probabilities, np.array([1, 1]), 1.5, {"c.png": "why"})


def test_the_likeliest_classes_come_first_and_a_tie_keeps_its_label(predictions):
    assert predictions.labels == ("label", "label") and predictions.confidences.tolist() == pytest.approx([0.5, 0.4])
    assert [name for name, _ in predictions.top(3)[0]] == ["label", "-dog", "cat"]
    assert [name for name, _ in predictions.top(2)[1]] == ["label", "cat"]
    assert predictions.labels_above(0.45) == ("label", "uncertain")
    assert repr(predictions) == "<Predictions of 2 images, 3 classes, 1 skipped>"
    assert predictions.to_records(1)[1] == {
        "file": "caf\\xe9.png",
        "label": "label",
        "confidence": pytest.approx(0.4),
        "top": {"label": pytest.approx(0.4)},
    }


def test_csv_has_a_column_for_each_class_and_no_formula(predictions, tmp_path):
    predictions.to_csv(tmp_path / "new" / "a.csv")
    lines = (tmp_path / "new" / "a.csv").read_text().splitlines()
    assert lines == [
        "file,label,confidence,cat,class label,'-dog",
        "'=b.png,label,0.500000,0.200000,0.500000,0.300000",
        "caf\\xe9.png,label,0.400000,0.400000,0.400000,0.200000",
    ]


def test_predictions_can_be_pickled(predictions):
    copy = pickle.loads(pickle.dumps(predictions))
    np.testing.assert_array_equal(copy.probabilities, predictions.probabilities)
    assert (copy.files, copy.labels, copy.temperature, copy.skipped) == (predictions.files, predictions.labels, 1.5, {"c.png": "why"})


def test_a_data_frame_needs_pandas(predictions, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        predictions.to_dataframe()
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=dict))
    columns = predictions.to_dataframe()
    assert list(columns) == ["file", "label", "confidence", "cat", "class label", "-dog"] and columns["file"] == predictions.files
    np.testing.assert_array_equal(columns["cat"], predictions.probabilities[:, 0])


# The command line


def call(capsys, *arguments):
    code = verbs.main(list(map(str, arguments)))
    return code, *capsys.readouterr()


def test_the_table_of_the_command(finished_run, folder, predictor, capsys):
    code, output, message = call(capsys, "predict", folder, f"--run_dir={finished_run.directory}", folder / "0.png", "--top=2")
    heading, *lines = output.splitlines()
    expected = predictor.predict([folder, folder / "0.png"])
    assert code == 0 and heading.split() == ["file", "label", "confidence", "top", "2"] and not message
    assert [line.split()[:3] for line in lines] == [
        [file, label, f"{confidence:.3f}"]
        for file, label, confidence in zip(expected.files, expected.labels, expected.confidences, strict=True)
    ]
    assert all(line.count(",") == 1 for line in lines)


def test_files_that_are_no_images_are_left_out_and_have_their_own_exit_code(finished_run, folder, capsys, tmp_path):
    damaged = spoil(folder)
    command = ["predict", f"--run_dir={finished_run.directory}", folder, "--threshold=1"]
    code, output, message = call(capsys, *command, f"--output={tmp_path / 'out.json'}")
    record = json.loads((tmp_path / "out.json").read_text())
    assert code == 6 and "1 of 4 files" in message and str(damaged) in message and "out.json" in output
    assert len(record["predictions"]) == 3 and list(record["skipped"]) == [str(damaged)]
    assert {entry["label"] for entry in record["predictions"]} == {"uncertain"} and record["temperature"] == finished_run.result[
        "temperature"
    ]
    code, output, message = call(capsys, *command, "--on_corrupt=error")
    assert code == 4 and not output and "--on_corrupt=skip" in message


def test_csv_and_other_models_on_the_command_line(exports, folder, predictor, capsys, tmp_path):
    code, output, _ = call(capsys, "predict", f"--model={exports / 'keras'}", folder, "--csv", "--tta", "--batch_size=2")
    heading, *rows = csv.reader(output.splitlines())
    expected = predictor.predict(folder, tta=True)
    assert code == 0 and heading == ["file", "label", "confidence", *"0123456789"]
    assert [row[:2] for row in rows] == [list(pair) for pair in zip(expected.files, expected.labels, strict=True)]
    np.testing.assert_allclose(np.array([row[3:] for row in rows], float), expected.probabilities, atol=2e-6)
    code, _, message = call(capsys, "predict", f"--model={exports / 'saved_model'}", folder)
    assert code == 2 and "--calibrated=False" in message
    code, output, _ = call(
        capsys, "predict", f"--model={exports / 'saved_model'}", folder, "--nocalibrated", f"--output={tmp_path / 'a.csv'}"
    )
    assert code == 0 and (tmp_path / "a.csv").read_text().startswith("file,label,confidence,0,1")


def test_wrong_commands_fail_before_anything_is_loaded(finished_run, folder, exports, capsys, monkeypatch):
    monkeypatch.setattr("tl_keras.cli.predict.quiet_tensorflow", lambda: pytest.fail("TensorFlow is loaded"))
    run_dir = f"--run_dir={finished_run.directory}"
    for expected, message, *arguments in (
        (3, "absent.png", run_dir, folder, "absent.png"),
        (3, "absent", "--model=absent", folder),
        (2, "either --run_dir or --model", folder),
        (2, "either", run_dir, f"--model={exports}", folder),
        (2, "expected images or directories", run_dir),
        (2, "holds no run", f"--run_dir={folder}", folder),
        (2, "--threshold=2.0", run_dir, folder, "--threshold=2"),
        (2, "--top=0", run_dir, folder, "--top=0"),
        (2, "not both", run_dir, folder, "--json", "--csv"),
        (2, "Unknown flag --tops", run_dir, folder, "--tops=3"),
    ):
        code, output, found = call(capsys, "predict", *arguments)
        assert (code, output) == (expected, "") and message in found and found.startswith("error: ")


def test_a_name_that_begins_with_a_dash_follows_two_dashes(finished_run, images, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(images[0]).save("-1.png")
    code, output, _ = call(capsys, "predict", f"--run_dir={finished_run.directory}", "--", "-1.png")
    assert code == 0 and "-1.png" in output


def test_the_examples_of_the_docstrings(finished_run):
    tests = [
        *doctest.DocTestFinder().find(Predictor, globs={"Predictor": Predictor, "np": np, "finished_run": finished_run.directory}),
        *doctest.DocTestFinder().find(Predictions, globs={"Predictions": Predictions}),
    ]
    results = [doctest.DocTestRunner().run(test) for test in tests if test.examples]
    assert sum(result.attempted for result in results) == 6 and not any(result.failed for result in results)
