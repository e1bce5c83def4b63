"""The model card of an export: what it was trained on, how accurate and calibrated it is, its licence, and how to call it. In Markdown.

Names of classes, runs and data sets are untrusted text and are escaped.
"""

import platform
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tl_keras.report.text import escape_markdown
from tl_keras.utils.text import join_names
from tl_keras.weights import get_weights

MAX_LISTED = 50  # classes
USAGE: Mapping[str, str] = MappingProxyType(
    {
        "keras": """import keras
model = keras.models.load_model("model.keras", compile=False)
probabilities = model(images)                 # images: uint8 RGB (batch, height, width, 3)""",
        "saved_model": """import tensorflow as tf
model = tf.saved_model.load("saved_model")    # runs the graph in it: load only files that you trust
probabilities = model.serve(images)           # images: uint8 RGB (batch, height, width, 3)""",
        "onnx": """import onnxruntime
from preprocess import load, preprocess
session = onnxruntime.InferenceSession("model.onnx")
probabilities = session.run(None, {"image": preprocess(load("image.jpg"))[None]})[0]
# class names: json.loads(session.get_modelmeta().custom_metadata_map["class_names"])""",
        "litert": """from ai_edge_litert.interpreter import Interpreter
from preprocess import load, preprocess
interpreter = Interpreter("model.tflite")     # one image; others by interpreter.resize_tensor_input
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], preprocess(load("image.jpg"))[None])
interpreter.invoke()
probabilities = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
# class names: zipfile.ZipFile("model.tflite").read("labels.txt").decode().splitlines()""",
        "openvino": """import openvino
from preprocess import load, preprocess
# Without the hint, some processors compute in bfloat16: faster, and probabilities differ in the second decimal.
model = openvino.Core().compile_model("model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
probabilities = model(preprocess(load("image.jpg"))[None])[0]
# class names: json.loads(openvino.Core().read_model("model.xml").get_rt_info(["class_names"]).astype(str))""",
    }
)


def model_card(result: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return the text of `README.md`.

    Args:
        result: the content of `result.json` of the run.
        record: the content of `labels.json`.
    """
    sections = [
        ("Model", _model(result, record)),
        ("Data", _data(result)),
        ("Accuracy", _accuracy(result)),
        ("This export", _export(record)),
    ]
    lines = [f"# {escape_markdown(record['run'])}: image classifier, {record['format']}", ""]
    lines += [f"Input: {record['input']}. Output: {record['output']}. `labels.json` lists the classes.", ""]
    for heading, items in sections:
        lines += [f"## {heading}", "", *(f"- {item}" for item in items), ""]
    return "\n".join([*lines, "## Usage", "", "```python", USAGE[record["format"]], "```", ""])


def _model(result: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    model, config = result["model"], result["config"]
    geometry = f"{model['image_size']} x {model['image_size']} pixels, {model['interpolation']}, centre crop {model['crop_fraction']:.3g}"
    return [
        f"Backbone: {model['backbone']}, {model['parameters']:,} parameters; {geometry}",
        f"Pre-trained weights: {_weights(model)}",
        f"Fine-tuning strategy: {escape_markdown(config['strategy'])}, {config['epochs']} epochs, seed {config['seed']}; "
        f"tested epoch {result['selection']['epoch']} ({result['selection']['rule']})",
        "Trained with " + ", ".join(f"{name} {version}" for name, version in result["runtime"]["versions"].items()),
        "Exported with " + ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
    ]


def _weights(model: Mapping[str, Any]) -> str:
    """Return the name, origin and licence of the pre-trained weights, as far as they are known."""
    if model["weights"] == "none":
        return "none; trained from new weights"
    name, entry = escape_markdown(model["weights"]), get_weights(model["backbone"], model["weights"])
    if entry is None:
        return f"{name}, SHA-256 {model['weights_sha256'] or 'not recorded'}; their licence is not known"
    licence = f"{entry.licence}, which forbids commercial use" if entry.non_commercial else entry.licence
    return f"{name} ({entry.name} of {entry.source}); licence {licence}"


def _data(result: Mapping[str, Any]) -> list[str]:
    data, names = result["data"], result["data"]["class_names"]
    counts = f"{data['num_train']:,} training, {data['num_validation']:,} validation and {data['num_test']:,} test images"
    notes = [f"Note: {escape_markdown(note)}" for note in data["notes"]]
    if data["embedded"]:
        notes.append("Note: bundled stand-in data; the results are not comparable with published ones")
    return [
        f"Data set: {escape_markdown(data['dataset'])}, fingerprint {data['fingerprint']}",
        f"Split: {counts}",
        f"{len(names)} classes: {escape_markdown(join_names(names, MAX_LISTED))}",
        *notes,
    ]


def _accuracy(result: Mapping[str, Any]) -> list[str]:
    test = result["metrics"]["test"]
    low, high = test["interval"]
    interval = f"95 % interval {100 * low:.2f} to {100 * high:.2f}, n = {test['num_examples']:,}"
    ece = f"Expected calibration error: {100 * test['calibration']['ece']:.2f} points"
    if calibrated := test.get("calibrated"):
        ece += (
            f"; after temperature scaling on validation (temperature {calibrated['temperature']:.3f}) {100 * calibrated['ece']:.2f} points"
        )
    return [
        f"Test accuracy: {100 * test['accuracy']:.2f} % ({interval})",
        f"Balanced accuracy: {100 * test['balanced_accuracy']:.2f} %; cross-entropy {test['loss']:.4f} nats",
        ece,
    ]


def _export(record: Mapping[str, Any]) -> list[str]:
    """Return the facts of this export: quantization, calibration, and how it was checked."""
    temperature, latency = record["temperature"], record["latency_seconds"]
    times = ", ".join(f"{1000 * seconds:.1f} ms for a batch of {size}" for size, seconds in latency.items())
    return [
        f"Quantization: {record['quantize']}; {record['bytes'] / 1e6:.2f} MB",
        *_samples(record["samples"]),
        "Probabilities are calibrated: the temperature is part of the model" if temperature else "Probabilities are not calibrated",
        f"Checked in a fresh process without tl_keras on {record['num_images']} test images: probabilities differ from those of the "
        f"trained model by at most {record['max_difference']:.2g}, the likeliest class on {record['num_changed_labels']}",
        *_rounding(record.get("rounding")),
        *_measured(record["accuracy"]),
        *([f"Warning: written although {record['mismatch']}"] if record["mismatch"] else []),
        f"Loaded in {record['load_seconds']:.2f} s; {times}, on a {platform.machine()} processor",
    ]


def _samples(samples: Mapping[str, Any] | None) -> Sequence[str]:
    return [f"Ranges measured on {samples['num_images']} training images, listed in `labels.json`"] if samples else []


def _rounding(rounding: Mapping[str, Any] | None) -> Sequence[str]:
    if rounding is None:
        return []
    change = f"probabilities by at most {rounding['max_difference']:.2g} and the likeliest class of {rounding['num_changed_labels']}"
    return [
        f"`preprocess.py` rounds resized pixels to whole numbers, which the trained model did not: on these images that changes {change}"
    ]


def _measured(accuracy: Mapping[str, Any] | None) -> Sequence[str]:
    if accuracy is None:
        return []
    low, high = (100 * bound for bound in accuracy["interval"])
    return [
        f"Accuracy on the whole test split: {100 * accuracy['exported']:.2f} %, {100 * accuracy['difference']:+.2f} points from the "
        f"trained model in float32 (paired, 95 % interval {low:+.2f} to {high:+.2f}, n = {accuracy['num_examples']:,})"
    ]
