"""Exports a trained model for reuse without tl_keras: uint8 RGB images in, probabilities out.

Every export is reloaded in a fresh process that cannot import tl_keras, nor TensorFlow and Keras unless the format is theirs. Its
probabilities on test images are compared with those of the trained model before the export is moved to its directory.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tl_keras.errors import ConfigError
from tl_keras.exports import converters, preprocess
from tl_keras.exports.checks import ExportError, Reloaded, compare_accuracy, compare_outputs, refusal, reload_export
from tl_keras.exports.formats import ALL, INT8, NONE, Format, choose_formats
from tl_keras.exports.model_card import model_card
from tl_keras.exports.serving import fixed_size_model, serving_model
from tl_keras.exports.trained import TrainedRun
from tl_keras.utils import files
from tl_keras.utils.progress import progress_steps
from tl_keras.weights.trained_model import facts_of_result

STEPS = 3  # of an export: converting, reloading, comparing
MAX_PIXEL_DIFFERENCE = 1.0  # of 255 levels, between preprocess.py and the input pipeline
PACKAGES = ("tl_keras", "tensorflow", "keras", "numpy", "pillow", "onnx", "tf2onnx", "onnxruntime", "ai-edge-litert", "openvino", "nncf")


def export_run(
    run_dir: Path,
    format: str,
    output: Path,
    *,
    quantize: str = NONE,
    calibrated: bool = True,
    force: bool = False,
    data_settings: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """Export the model of a finished run into the new directory `output`.

    The directory also has `labels.json`, a model card `README.md`, and for formats that take images of the model's own size
    `preprocess.py` with `preprocessing.json`. The export is compared with the trained model on the test images that the run has
    kept, so its data set is not needed, except for int8.

    Args:
        format: key of `FORMATS`, or `all` for one sub-directory per format.
        quantize: key of `QUANTIZATIONS`.
        calibrated: True for calibrated probabilities, where the run has a temperature.
        force: True to write a quantized model that does not match the trained one.
        data_settings: settings of data, by name, e.g. `data_dir`. With `dataset`, images to compare on instead of those that the run kept.

    Returns:
        Format -> the content of its `labels.json`.

    Raises:
        ConfigError: The run is not finished, `output` is not empty, or the format cannot be quantized.
        MissingError: Packages of a format, or the data set for int8, are missing.
        ExportError: An export does not match the trained model. Nothing is written.
    """
    formats = choose_formats(format, quantize)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError("expected a directory that is new or empty.", setting="output", value=output)
    trained = TrainedRun.load(run_dir, calibrated=calibrated, data_settings=data_settings, with_data=quantize == INT8)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as temporary:
        staging = Path(temporary) / "export"
        records = {}
        with progress_steps(STEPS * len(formats)) as begin:
            for one in formats:
                directory = staging / one.name if format == ALL else staging
                records[one.name] = write_export(trained, one, quantize, directory, force=force, begin=begin)
        _move_contents(staging, output)
    return records


def write_export(
    trained: TrainedRun,
    format: Format,
    quantize: str,
    directory: Path,
    *,
    force: bool = False,
    begin: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Write one export and everything beside it into the new directory `directory`, and return the content of its `labels.json`.

    If the test split of `trained` was read, the accuracy of the export on it is measured. `begin` is called with the title of each of
    the `STEPS`.

    Raises:
        ExportError: The export does not match the trained model, or cannot be loaded.
    """
    begin(f"converting to {format.name}")
    directory.mkdir(parents=True)
    path = directory / format.file
    if not format.takes_any_size:
        shutil.copyfile(preprocess.__file__, directory / "preprocess.py")
        files.write_json(directory / "preprocessing.json", trained.preprocessing)
    samples = [] if quantize != INT8 or trained.samples is None else [trained.prepare(image) for image in trained.samples.images]
    model = serving_model(trained.classifier, trained.geometry) if format.takes_any_size else fixed_size_model(trained.classifier)
    converters.write(format.name, model, path, quantize, samples, trained.class_names)
    size = sum(file.stat().st_size for file in _files_of(directory, path))
    begin(f"reloading the {format.name} model in a new process")
    reloaded = _reload(trained, format, path)
    begin(f"comparing the {format.name} model")
    outputs = _compare(trained, format, reloaded)
    accuracy = None
    if trained.test is not None and reloaded.input_probabilities is not None:
        accuracy = compare_accuracy(trained.test.labels, trained.predicted_test, reloaded.input_probabilities.argmax(axis=1))
    if reason := refusal(quantize, outputs, accuracy):
        _refuse(format, quantize, reason, force)
    record = _labels(trained, format, quantize) | outputs | {"accuracy": accuracy, "bytes": size}
    record |= {"load_seconds": reloaded.load_seconds, "latency_seconds": reloaded.latency_seconds, "versions": _versions()}
    record["mismatch"] = reason
    files.write_json(directory / "labels.json", record)
    files.write_text(directory / "README.md", model_card(trained.result, record))
    return record


def _refuse(format: Format, quantize: str, reason: str, force: bool) -> None:
    if quantize != NONE and force:
        return
    advice = "Use another `quantize`, or write it nevertheless with `force=true`." if quantize != NONE else "Use another `format`."
    raise ExportError(f"The exported {format.name} model differs from the trained one: {reason}. Nothing was written. {advice}")


def _files_of(directory: Path, path: Path) -> Sequence[Path]:
    """Return the files of a model: `path`, those in it, and those of the same name beside it, e.g. the weights of OpenVINO."""
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    return [file for file in directory.iterdir() if file.stem == path.stem]


def _reload(trained: TrainedRun, format: Format, path: Path) -> Reloaded:
    inputs = None
    if trained.test is not None:
        inputs = trained.test_images() if format.takes_any_size else map(trained.prepare, trained.test_images())
    return reload_export(format, path, trained.geometry.image_size, trained.images, inputs)


def _compare(trained: TrainedRun, format: Format, reloaded: Reloaded) -> dict[str, Any]:
    """Return how far the export is from the trained model, on the same inputs.

    Of a format with `preprocess.py` these are rounded to uint8. Its pixels, and its probabilities with and without that, are compared too.

    Raises:
        ExportError: The pixels differ by more than one level.
    """
    resized = trained.resized(trained.images)
    expected = trained.probabilities(resized)
    if format.takes_any_size:
        return compare_outputs(expected, reloaded.probabilities)
    prepared = np.stack([trained.prepare(image) for image in trained.images])
    pixel_difference = float(np.abs(prepared - resized).max())
    if not pixel_difference <= MAX_PIXEL_DIFFERENCE:
        raise ExportError(f"preprocess.py differs from the input pipeline of the run by {pixel_difference:.2f} of 255 levels.")
    on_prepared = trained.probabilities(prepared.astype(np.float32))
    rounding = compare_outputs(expected, on_prepared)
    return compare_outputs(on_prepared, reloaded.probabilities) | {
        "max_pixel_difference": pixel_difference,
        "rounding": {name: rounding[name] for name in ("max_difference", "num_changed_labels")},
    }


def _labels(trained: TrainedRun, format: Format, quantize: str) -> dict[str, Any]:
    names, size, result = trained.class_names, trained.geometry.image_size, trained.result
    samples = trained.samples if quantize == INT8 else None
    any_size = "uint8 RGB (batch, height, width, 3), any height and width"
    own_size = f"uint8 RGB (batch, {size}, {size}, 3); preprocess.py makes it from images of any size"
    return {
        "model": format.file,
        "format": format.name,
        "quantize": quantize,
        "class_names": list(names),
        "input": any_size if format.takes_any_size else own_size,
        "output": f"float32 probabilities (batch, {len(names)}), in the order of class_names",
        "image_size": size,
        "temperature": trained.temperature,
        "trained": facts_of_result(result),
        "run": result["name"],
        "embedded": result["data"]["embedded"],
        "test_accuracy": result["metrics"]["test"]["accuracy"],
        "samples": samples and {"split": "train", "num_images": len(samples.images), "indices": samples.indices},
    }


def _versions() -> dict[str, str]:
    """Return the versions of the installed packages that write or run exports."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _move_contents(staging: Path, output: Path) -> None:
    output.mkdir(exist_ok=True)
    for path in staging.iterdir():
        shutil.move(path, output / path.name)
