"""Exports: every format and quantization against the trained model, their files, and the refusal of one that differs from its run."""

import dataclasses
import importlib.util
import json
import logging
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from tl_keras.cli import verbs
from tl_keras.data.decode import decode_image
from tl_keras.data.geometry import Geometry
from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.exports import ExportError, checks, converters, export, export_run, formats, model_card, preprocess, trained
from tl_keras.exports.formats import FORMATS, QUANTIZATIONS, choose_formats
from tl_keras.exports.predictor import open_predictor
from tl_keras.exports.trained import TrainedRun
from tl_keras.results import run_directory
from tl_keras.results.split_record import TRAIN, read_split
from tl_keras.runs.run import run

PAIRS = [
    (name, quantize) for name, known in FORMATS.items() for quantize in QUANTIZATIONS if quantize == "none" or not known.no_quantization
]
SIZES = [(8, 8), (70, 33), (33, 70), (500, 401)]


@pytest.fixture(scope="module")
def run_dir(tiny_config, tmp_path_factory):
    """A bicubic run in bfloat16, so that the export is seen to compute in float32."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    settings = {"precision": "mixed_bfloat16", "crop_fraction": 0.875, "interpolation": "bicubic", "fraction": 1.0}
    run(tiny_config.replace(**settings, learning_rate=0.1, epochs=8, augmentation="none"), directory)
    return directory


@pytest.fixture(scope="module")
def loaded(run_dir):
    """The run with its data, to be checked on images of several sizes."""
    loaded = TrainedRun.load(run_dir, calibrated=True, data_settings={}, with_data=True)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in SIZES for _ in range(3)]
    return dataclasses.replace(loaded, images=images)


def require(format, quantize="none"):
    for package in formats._packages(FORMATS[format], quantize):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")


def global_state():
    levels = {name: logger.level for name, logger in logging.root.manager.loggerDict.items() if isinstance(logger, logging.Logger)}
    packages = ("absl", "tensorflow", "keras")
    return list(sys.path), list(logging.root.handlers), {name: levels.get(name) for name in packages}, "object" in vars(np)


@pytest.mark.parametrize("format, quantize", PAIRS, ids=map("-".join, PAIRS))
def test_an_export_agrees_with_its_run_and_describes_itself(format, quantize, loaded, tmp_path):
    """Images of four sizes go through a fresh process without TensorFlow, and the whole test split is scored in it."""
    require(format, quantize)
    known, directory, before = FORMATS[format], tmp_path / "export", global_state()
    record = export.write_export(loaded, known, quantize, directory, force=quantize == "int8")
    assert global_state() == before and "openvino_telemetry" not in sys.modules
    beside = set() if known.takes_any_size else {"preprocess.py", "preprocessing.json"}
    weights = {"model.bin"} if format == "openvino" else set()
    assert {path.name for path in directory.iterdir()} == {known.file, "labels.json", "README.md"} | beside | weights
    assert json.loads((directory / "labels.json").read_text()) == record
    assert record["class_names"] == list("0123456789") and record["embedded"] and record["num_images"] == len(loaded.images)
    assert record["temperature"] == loaded.result["temperature"] != 1
    assert record["max_difference"] <= {"none": 1e-4, "float16": 0.01, "int8": 0.3}[quantize]
    assert record["accuracy"]["num_examples"] == 99 and abs(record["accuracy"]["difference"]) <= (0.1 if quantize == "int8" else 0.011)
    assert record["accuracy"]["trained"] == pytest.approx(loaded.result["metrics"]["test"]["accuracy"], abs=0.03)
    assert (record["samples"] is not None) == (quantize == "int8")
    assert record["load_seconds"] > 0 and all(seconds > 0 for seconds in record["latency_seconds"].values())
    assert list(record["latency_seconds"]) == ["1", "64"]
    assert record["bytes"] >= 0.9 * sum(path.stat().st_size for path in directory.rglob("model.*"))
    if format == "litert":
        assert zipfile.ZipFile(directory / known.file).read("labels.txt").decode().split() == list("0123456789")
    found, expected = open_predictor(directory).predict(loaded.images), loaded.probabilities(loaded.resized(loaded.images))
    np.testing.assert_allclose(found.probabilities, expected, atol={"none": 0.01, "float16": 0.02, "int8": 0.3}[quantize])
    assert found.class_names == tuple("0123456789") and found.temperature == loaded.temperature
    card = (directory / "README.md").read_text()
    assert "## Accuracy" in card and f"Quantization: {quantize}" in card and "calibrated" in card


@pytest.mark.parametrize("format", ["onnx", "litert", "openvino"])
def test_a_damaged_export_is_refused_by_name(format, tmp_path, monkeypatch):
    require(format)
    (tmp_path / FORMATS[format].file).write_bytes(b"no model")
    with pytest.raises(DamagedError, match="preprocessing.json does not say how images are resized"):
        open_predictor(tmp_path)
    (tmp_path / "preprocessing.json").write_text('{"image_size": 32, "side": 36, "interpolation": "bilinear"}')
    with pytest.raises(DamagedError, match=f"{FORMATS[format].file} cannot be loaded"):
        open_predictor(tmp_path)
    monkeypatch.setattr("tl_keras.exports.predictor.find_spec", lambda name: None)
    with pytest.raises(MissingError, match="which is not installed. Run pip install"):
        open_predictor(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "litert", "openvino"])
def test_names_of_classes_and_the_usage_of_the_model_card(format, loaded, tmp_path):
    """The program in the model card runs as it is, without TensorFlow, and reads the names that its comment says."""
    require(format)
    directory = tmp_path / "export"
    export.write_export(loaded, FORMATS[format], "none", directory)
    Image.fromarray(loaded.images[-1]).save(directory / "image.png")
    usage = (directory / "README.md").read_text().partition("```python\n")[2].partition("```")[0].replace("image.jpg", "image.png")
    names = next(line.partition(": ")[2] for line in usage.splitlines() if line.startswith("# class names"))
    blocked = "import sys; sys.modules.update(dict.fromkeys(['tensorflow', 'keras', 'tl_keras']))\nimport json, zipfile\n"
    script = f"{blocked}{usage}\nprint(json.dumps([probabilities.tolist(), list({names})]))"
    done = subprocess.run([sys.executable, "-c", script], cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    probabilities, found = json.loads(done.stdout.splitlines()[-1])
    assert found == list("0123456789")
    np.testing.assert_allclose(probabilities, loaded.probabilities(loaded.resized(loaded.images[-1:])), atol=0.01)


@pytest.mark.parametrize("crop_fraction", [1.0, 0.875])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_preprocess_equals_the_input_pipeline(interpolation, crop_fraction, loaded):
    """Both resize images that grow and that shrink, with antialiasing, and differ by the rounding to whole numbers alone."""
    geometry = Geometry(32, crop_fraction, interpolation)
    settings = dataclasses.replace(loaded, geometry=geometry).preprocessing
    other = settings | {"interpolation": "bicubic" if interpolation == "bilinear" else "bilinear"}
    for size in SIZES:
        image = np.random.default_rng(size[1]).integers(0, 256, (*size, 3), np.uint8)
        expected = np.asarray(geometry.resize(image[None]))[0]
        received = preprocess.preprocess(image, settings)
        assert received.dtype == np.uint8 and np.abs(received - expected).max() < 0.51
        assert np.abs(preprocess.preprocess(image, other) - expected).max() > 2
        np.testing.assert_array_equal(preprocess.preprocess(Image.fromarray(image), settings), received)


def test_preprocess_opens_files_as_the_package_does(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels[..., :3]).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "transparent.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(pixels[..., :3]).quantize(8).save(tmp_path / "palette.gif")
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(np.asarray(preprocess.load(path)), decode_image(path), err_msg=path.name)
    assert np.asarray(preprocess.load(tmp_path / "turned.jpg")).shape == (9, 6, 3)


IMPORTS = [
    (format, package) for format, known in FORMATS.items() for package in ("tl_keras", "keras", "tensorflow") if package in known.without
]


@pytest.mark.parametrize("format, package", IMPORTS, ids=map("-".join, IMPORTS))
def test_an_export_that_needs_another_package_is_refused(format, package, tmp_path):
    """An import fails in the process of the check even where the package is installed."""
    (tmp_path / "preprocess.py").write_text(f"import {package}\n")
    with pytest.raises(ExportError, match=f"import of {package} halted"):
        checks.reload_export(FORMATS[format], tmp_path / FORMATS[format].file, 8, [np.zeros((8, 8, 3), np.uint8)])


def test_foreign_formats_are_checked_without_tensorflow():
    assert {name for name, known in FORMATS.items() if "tensorflow" in known.without} == {"onnx", "litert", "openvino"}
    assert "keras" in FORMATS["saved_model"].without and all("tl_keras" in known.without for known in FORMATS.values())


def test_the_command_exports_a_model(run_dir, tmp_path, capsys):
    output = tmp_path / "exported"
    assert verbs.main(["export", f"--run_dir={run_dir}", f"--output={output}"]) == 0
    assert "model.keras" in (printed := capsys.readouterr().out) and "64 test images: largest difference in probability" in printed
    assert {path.name for path in output.iterdir()} == {"model.keras", "labels.json", "README.md"}


def test_a_different_model_is_refused_and_leaves_nothing(run_dir, tmp_path, monkeypatch):
    wrong = checks.Reloaded(np.full((64, 10), 0.1, np.float32), None, 1.0, {"1": 0.1})
    monkeypatch.setattr(export, "reload_export", lambda *arguments: wrong)
    with pytest.raises(ExportError, match="differs from the trained one: its probabilities differ by up to"):
        export_run(run_dir, "keras", tmp_path / "exported", force=True)
    assert list(tmp_path.iterdir()) == []


def test_other_pixels_are_refused(loaded, tmp_path, monkeypatch):
    other = dataclasses.replace(loaded, geometry=dataclasses.replace(loaded.geometry, interpolation="bilinear"))
    monkeypatch.setattr(TrainedRun, "prepare", lambda self, image: preprocess.preprocess(image, loaded.preprocessing))
    reloaded = checks.Reloaded(loaded.probabilities(loaded.resized(loaded.images)), None, 1.0, {})
    with pytest.raises(ExportError, match="preprocess.py differs from the input pipeline of the run by .* of 255 levels"):
        export._compare(other, FORMATS["onnx"], reloaded)


def test_output_must_be_new_and_the_run_finished(run_dir, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(ConfigError, match="new or empty"):
        export_run(run_dir, "keras", tmp_path / "used")
    with pytest.raises(ConfigError, match="holds no run"):
        export_run(tmp_path, "keras", tmp_path / "new")
    with pytest.raises(ConfigError, match="Known: all, keras, litert, onnx"):
        export_run(run_dir, "pickle", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_keras_and_saved_model_are_not_quantized(run_dir, tmp_path):
    for format in ("keras", "saved_model"):
        with pytest.raises(ConfigError, match=f"not with `format={format}`: .*Choose one of onnx, litert, openvino"):
            export_run(run_dir, format, tmp_path / "new", quantize="int8")
    with pytest.raises(ConfigError, match="Unknown quantization 'int4'"):
        export_run(run_dir, "onnx", tmp_path / "new", quantize="int4")


def test_all_means_every_format_with_the_quantization(monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: "installed")
    assert [known.name for known in choose_formats("all", "none")] == list(FORMATS)
    assert [known.name for known in choose_formats("all", "float16")] == ["onnx", "litert", "openvino"]


def test_missing_packages_are_named_with_the_command(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    monkeypatch.setattr(TrainedRun, "load", None)  # nothing is loaded before
    with pytest.raises(
        MissingError, match="needs ai_edge_litert. Run pip install ai-edge-litert, or install tl_keras with its extra litert"
    ):
        export_run(run_dir, "litert", tmp_path / "new")
    with pytest.raises(MissingError, match="needs openvino. Run pip install openvino, "):
        export_run(run_dir, "openvino", tmp_path / "new")
    with pytest.raises(MissingError, match="needs openvino and nncf"):
        export_run(run_dir, "openvino", tmp_path / "new", quantize="int8")
    with pytest.raises(MissingError, match="extra onnx and litert and openvino"):
        export_run(run_dir, "all", tmp_path / "new")


def test_int8_needs_the_data_of_the_run(run_dir, monkeypatch):
    def absent(config, **options):
        raise MissingError("Data set photos is absent.")

    monkeypatch.setattr(trained, "load_source", absent)
    with pytest.raises(MissingError, match="`quantize=int8` measures ranges on training images.* Data set photos is absent"):
        TrainedRun.load(run_dir, calibrated=True, data_settings={}, with_data=True)


def test_ranges_are_measured_on_recorded_training_images(run_dir, loaded):
    recorded = read_split(run_dir)
    num_train = int((recorded.splits == TRAIN).sum())
    assert len(set(loaded.samples.indices)) == len(loaded.samples.images) == trained.MAX_SAMPLES
    assert loaded.samples.indices[0] == 0 and loaded.samples.indices[-1] == num_train - 1
    test = {image.tobytes() for image in loaded.test_images()}
    assert not any(image.tobytes() in test for image in loaded.samples.images)


def test_the_temperature_changes_probabilities_and_no_label(run_dir, loaded):
    plain = TrainedRun.load(run_dir, calibrated=False, data_settings={}, with_data=False)
    assert plain.temperature is None and loaded.temperature == run_directory.load_result(run_dir)["temperature"]
    inputs = plain.resized(plain.images)
    before, after = plain.probabilities(inputs), loaded.probabilities(inputs)
    scaled = before.astype(float) ** (1 / loaded.temperature)
    np.testing.assert_allclose(after, scaled / scaled.sum(axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert np.abs(before - after).max() > 1e-3


def test_an_inaccurate_int8_model_is_refused_unless_it_is_wanted():
    labels = np.zeros(200, int)
    trained_classes, exported = labels.copy(), np.where(np.arange(200) < 3, 1, 0)
    accuracy = checks.compare_accuracy(labels, trained_classes, exported)
    assert accuracy["difference"] == -0.015 and accuracy["trained"] == 1 and accuracy["exported"] == 0.985
    outputs = {"num_images": 64, "max_difference": 0.4, "num_changed_labels": 2}
    reason = checks.refusal("int8", outputs, accuracy)
    assert "accuracy on 200 test images changes by -1.50 points (95 % interval" in reason
    with pytest.raises(ExportError, match=r"changes by -1.50 points .*or write it nevertheless with `force=true`"):
        export._refuse(FORMATS["onnx"], "int8", reason, force=False)
    export._refuse(FORMATS["onnx"], "int8", reason, force=True)
    assert not checks.refusal("int8", outputs, accuracy | {"difference": -0.01})


@pytest.mark.parametrize("quantize, difference", [("none", 2e-4), ("float16", 0.06), ("none", float("nan"))])
def test_probabilities_and_labels_must_agree(quantize, difference):
    same = {"num_images": 64, "max_difference": 0.0, "num_changed_labels": 0}
    assert not checks.refusal(quantize, same, None)
    assert "probabilities differ" in checks.refusal(quantize, same | {"max_difference": difference}, None)
    assert "likeliest class differs on 1 of 64" in checks.refusal(quantize, same | {"num_changed_labels": 1}, None)


def test_outputs_are_compared_image_by_image():
    expected = np.array([[0.6, 0.4], [0.5, 0.5], [0.1, 0.9]])
    found = checks.compare_outputs(expected, np.array([[0.45, 0.55], [0.5, 0.5], [0.1, 0.9]]))
    assert found == {"num_images": 3, "max_difference": pytest.approx(0.15), "num_changed_labels": 1}


@pytest.mark.parametrize("more, less", [(0.05, 0.1), (0.1, 0.1), (0.2, 0.3)])
def test_the_paired_interval_covers_the_difference(more, less):
    """Its coverage over all outcomes of 60 images is near 95 %."""
    num, outcomes = 60, [(gained, lost) for gained in range(61) for lost in range(61 - gained)]
    chances = stats.multinomial.pmf([(gained, lost, num - gained - lost) for gained, lost in outcomes], num, [more, less, 1 - more - less])
    intervals = [checks.paired_interval(gained, lost, num) for gained, lost in outcomes]
    coverage = sum(chance for chance, (low, high) in zip(chances, intervals, strict=True) if low <= more - less <= high)
    assert 0.94 < coverage < 0.985
    low, high = checks.paired_interval(3, 8, num)
    assert checks.paired_interval(8, 3, num) == pytest.approx((-high, -low))


def test_converters_leave_global_state_also_when_they_fail(monkeypatch):
    before = global_state()

    def fail(*arguments):
        sys.path.append("/elsewhere")
        logging.basicConfig()
        raise ValueError("not possible")

    monkeypatch.setattr(converters, "WRITERS", {"onnx": fail})
    with pytest.raises(ValueError, match="not possible"):
        converters.write("onnx", None, None, "none", [], [])
    assert global_state() == before


def card_of(loaded, result=(), **changes):
    record = {
        **export._labels(loaded, FORMATS["onnx"], "none"), "bytes": 1000, "num_images": 12, "max_difference": 1e-7, "num_changed_labels": 0,
        "accuracy": None, "load_seconds": 0.1, "latency_seconds": {"1": 0.001}, "versions": {"onnx": "1.23.2"}, "mismatch": "",
    }  # fmt: skip
    return model_card.model_card({**loaded.result, **dict(result)}, record | changes)


def test_the_model_card_has_the_facts_of_the_run(loaded):
    card, test = card_of(loaded), loaded.result["metrics"]["test"]
    assert f"Test accuracy: {100 * test['accuracy']:.2f} % (95 % interval {100 * test['interval'][0]:.2f}" in card
    assert f"calibration error: {100 * test['calibration']['ece']:.2f} points; after temperature scaling" in card
    assert "none; trained from new weights" in card and loaded.result["data"]["fingerprint"] in card and "onnx 1.23.2" in card
    assert "Fine-tuning strategy: full, 8 epochs, seed 0" in card and "99 test images" in card and "bundled" in card
    assert "not calibrated" in card_of(loaded, temperature=None)
    assert "Warning: written although its accuracy fell" in card_of(loaded, mismatch="its accuracy fell")


def test_the_model_card_names_the_licence_of_the_weights(loaded):
    def weights(backbone, weights, **changes):
        model = loaded.result["model"] | {"backbone": backbone, "weights": weights} | changes
        return next(line for line in card_of(loaded, {"model": model}).splitlines() if "Pre-trained" in line)

    assert "licence BSD-3-Clause" in weights("resnet18", "imagenet")
    assert "CC-BY-NC-4.0, which forbids commercial use" in weights("vit_b16", "swag_e2e")
    assert "SHA-256 abc; their licence is not known" in weights("resnet18", "/tmp/own.npz", weights_sha256="abc")


def test_names_from_outside_are_escaped_in_the_model_card(loaded):
    data = loaded.result["data"] | {"class_names": ["<script>", "a|b"], "dataset": "[x](y)"}
    card = card_of(loaded, {"data": data}, run="*bold*\n# heading")
    assert "<script>" not in card.replace("\\<script\\>", "") and "\\[x\\](y)" in card and "\n# heading" not in card
