"""Exports a trained model for reuse without tl_keras: uint8 RGB images of any size in, probabilities out.

Every export is reloaded in a fresh process that cannot import tl_keras. Its probabilities on test images are compared with those
of the trained model behind its input pipeline before the export is moved to its directory.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from tl_keras import data
from tl_keras.config import RunConfig
from tl_keras.data import pipeline
from tl_keras.data.geometry import Geometry
from tl_keras.errors import ConfigError, UserError, unknown
from tl_keras.results import run_directory
from tl_keras.results.predictions import read_test_images
from tl_keras.runs.evaluate import geometry_of, load_model, sample_images
from tl_keras.runs.resolve import load_source
from tl_keras.utils import files

TOLERANCE = 1e-4  # in probability; float32 on the same device
NUM_IMAGES = 256  # of a data set that is given


class ExportError(UserError):
    """The outputs of an exported model differ from those of the trained one."""


def _save_keras(model: keras.Model, directory: Path) -> Path:
    path = directory / "model.keras"
    model.save(path)
    return path


def _save_saved_model(model: keras.Model, directory: Path) -> Path:
    path = directory / "saved_model"
    model.export(path, format="tf_saved_model", verbose=False)
    return path


# format -> (writer, statements that define `model`, a function from a uint8 batch to probabilities, in a process without tl_keras).
# The loaded SavedModel needs a name of its own, since its functions do not outlive it.
FORMATS: Mapping[str, tuple[Callable[[keras.Model, Path], Path], str]] = MappingProxyType(
    {
        "keras": (_save_keras, "model = keras.models.load_model(path)"),
        "saved_model": (_save_saved_model, "loaded = tf.saved_model.load(path); model = loaded.serve"),
    }
)

RELOAD_SCRIPT = """
import sys
sys.modules["tl_keras"] = None
import numpy as np, keras, tensorflow as tf
path, images_path, output_path = sys.argv[1:]
{load}
with np.load(images_path) as images:
    outputs = [np.asarray(model(images[name][None]))[0] for name in sorted(images.files)]
np.save(output_path, np.stack(outputs))
"""


def export(model: keras.Model, geometry: Geometry) -> keras.Model:
    """Return the serving model of a classifier.

    Args:
        model: float32 RGB (b, image_size, image_size, 3) in 0..255 -> logits (b, classes).
        geometry: crop and resize of its input, which become part of the serving model.

    Returns:
        A model of stock Keras layers in float32: uint8 RGB (b, height, width, 3) of any size -> probabilities (b, classes).
    """
    inputs = keras.Input((None, None, 3), dtype="uint8", name="image")
    resized = inputs
    for layer in geometry.resize_layers():
        resized = layer(resized)
    # Without training=False, Keras's preprocessing layers would switch on dropout in the layers behind them.
    logits = _in_float32(model)(resized, training=False)
    return keras.Model(inputs, keras.layers.Softmax(dtype="float32", name="probabilities")(logits), name="classifier")


def _in_float32(model: keras.Model) -> keras.Model:
    """Return the model with float32 computation, whatever precision it was trained in; its variables are float32 already."""
    config = json.loads(json.dumps(model.get_config()).replace('"mixed_bfloat16"', '"float32"').replace('"mixed_float16"', '"float32"'))
    copy = keras.Model.from_config(config)
    copy.set_weights(model.get_weights())
    return copy


def export_run(run_dir: Path, format: str, output: Path, data_settings: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Export the model of a finished run into the new directory `output`, with `labels.json`.

    The export is checked on the test images that the run has kept, so its data set is not needed.

    Args:
        format: a key of `FORMATS`.
        data_settings: `dataset` and other settings of data to check the export on instead, by name.

    Returns:
        The content of `labels.json`: model file, class names, input, output, and the largest difference from the trained model.

    Raises:
        ConfigError: The run is not finished, or `output` is not empty.
        ExportError: The reloaded model differs from the trained one by more than 1e-4 in probability. Nothing is written.
    """
    if format not in FORMATS:
        raise unknown("export format", format, FORMATS)
    result = run_directory.load_result(run_dir)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError("expected a directory that is new or empty.", setting="output", value=output)
    model = load_model(run_dir)
    geometry = geometry_of(result)
    examples = _check_examples(run_dir, result, data_settings)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as temporary:
        staging_dir = Path(temporary) / "export"
        staging_dir.mkdir()
        path = FORMATS[format][0](export(model, geometry), staging_dir)
        expected = _probabilities(_in_float32(model), examples, geometry)
        difference = _max_difference_after_reload(path, format, examples, expected)
        if not difference <= TOLERANCE:
            raise ExportError(
                f"The exported {format} model differs from the trained one by {difference:.2g} in probability on {len(examples)} test "
                f"images; at most {TOLERANCE:g} was expected. Nothing was written to {output}. Try another `format`."
            )
        record = _labels(path, result, len(examples), difference)
        files.write_json(staging_dir / "labels.json", record)
        _move_contents(staging_dir, output)
    return record


def _move_contents(staging_dir: Path, output: Path) -> None:
    output.mkdir(exist_ok=True)
    for path in staging_dir.iterdir():
        shutil.move(path, output / path.name)


def _check_examples(run_dir: Path, result: Mapping[str, Any], data_settings: Mapping[str, Any]) -> data.Examples:
    """Return the images to compare on: those that the run has kept, or some of another data set. Their labels are not used."""
    if not data_settings:
        images = read_test_images(run_dir)
    else:
        config = RunConfig.from_dict(result["config"]).replace(**data_settings)
        images = sample_images(load_source(config.data, for_scoring=True).test, NUM_IMAGES)
    return data.make_examples(data.ImageStore(images), np.zeros(len(images), np.int64))


def _probabilities(model: keras.Model, examples: data.Examples, geometry: Geometry) -> np.ndarray:
    """Return probabilities float32 (n, classes) of images from the input pipeline of the run."""
    batches = pipeline.evaluation_batches(examples, geometry, batch_size=64)
    logits = np.concatenate([model(images, training=False).numpy() for images, _, _ in batches])
    return keras.ops.convert_to_numpy(keras.ops.softmax(logits))


def _max_difference_after_reload(path: Path, format: str, examples: data.Examples, expected: np.ndarray) -> float:
    """Return the largest difference between `expected` and the probabilities of the export in a fresh process without tl_keras."""
    with tempfile.TemporaryDirectory() as temporary:
        images, outputs = Path(temporary) / "images.npz", Path(temporary) / "outputs.npy"
        files.write_npz(images, {f"{index:03d}": examples.image(index) for index in range(len(examples))})
        command = [sys.executable, "-c", RELOAD_SCRIPT.format(load=FORMATS[format][1]), str(path), str(images), str(outputs)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ExportError(f"The exported {format} model cannot be loaded in a fresh process:\n{done.stderr.strip()[-2000:]}")
        return float(np.abs(np.load(outputs) - expected).max())


def _labels(path: Path, result: Mapping[str, Any], num_images: int, difference: float) -> dict[str, Any]:
    names: Sequence[str] = result["data"]["class_names"]
    return {
        "model": path.name,
        "class_names": list(names),
        "input": "uint8 RGB (batch, height, width, 3), any height and width",
        "output": f"float32 probabilities (batch, {len(names)}), in the order of class_names",
        "run": result["name"],
        "embedded": result["data"]["embedded"],
        "test_accuracy": result["metrics"]["test"]["accuracy"],
        "num_images": num_images,
        "max_difference": difference,
    }
