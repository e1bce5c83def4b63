"""Loads an export in a fresh process, predicts images with it and measures its times.

    python -I -B reload.py JOB.json

This file is run by its path and imports nothing of tl_keras. The job names the packages whose import shall fail.
"""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Predict = Callable[[np.ndarray], np.ndarray]  # uint8 RGB (b, height, width, 3) -> probabilities float32 (b, classes)

BATCH_SIZE = 32
LATENCY_BATCHES = (1, 64)
LATENCY_SECONDS = 0.2  # for which calls are repeated


def load_keras(path: str) -> Predict:
    """Load a `.keras` file."""
    import keras
    import tensorflow as tf

    model = keras.models.load_model(path, compile=False)
    signature = [tf.TensorSpec((None, None, None, 3), tf.uint8)]
    call = tf.function(lambda images: model(images, training=False), input_signature=signature)
    return lambda images: call(images).numpy()


def load_saved_model(path: str) -> Predict:
    """Load a SavedModel."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return lambda images: loaded.serve(tf.constant(images)).numpy()


def load_onnx(path: str) -> Predict:
    """Load an ONNX model in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"image": images})[0]


def load_litert(path: str) -> Predict:
    """Load a `.tflite` file in LiteRT, on all cores. The input is resized when the batch size changes."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=os.cpu_count())
    position, output = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    batch_sizes: list[int] = []

    def predict(images: np.ndarray) -> np.ndarray:
        if batch_sizes[-1:] != [len(images)]:
            interpreter.resize_tensor_input(position, images.shape)
            interpreter.allocate_tensors()
            batch_sizes.append(len(images))
        interpreter.set_tensor(position, images)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return predict


def load_openvino(path: str) -> Predict:
    """Load an OpenVINO model. It is told to compute in float32, since by default some processors use bfloat16."""
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled(images)[0]


LOADERS: dict[str, Callable[[str], Predict]] = {
    "keras": load_keras,
    "saved_model": load_saved_model,
    "onnx": load_onnx,
    "litert": load_litert,
    "openvino": load_openvino,
}


def run_job(job: dict[str, Any]) -> None:
    """Write the probabilities of the images of a job, and its times in seconds.

    Keys of the job: `format`, `model`, `image_size`, `blocked` (packages), `images` (NPZ file of images of any size), `inputs` (NPZ file
    of inputs of the model, or null), `output` (NPZ file to write) and `times` (JSON file to write).
    """
    prepare = _preprocess_of(Path(job["model"]).parent)
    with np.load(job["images"]) as images:
        kept = [prepare(images[name]) for name in sorted(images.files)]
    warm_up = np.zeros((1, job["image_size"], job["image_size"], 3), np.uint8)
    predict, load_seconds = _load(job["format"], job["model"], warm_up)
    outputs = {"images": _predict(predict, kept)}
    if job["inputs"]:
        with np.load(job["inputs"]) as inputs:
            outputs["inputs"] = _predict(predict, (inputs[name] for name in sorted(inputs.files)))
    np.savez(job["output"], **outputs)  # type: ignore[arg-type]  # NumPy's stub takes the names for its own arguments
    latency = {str(size): _latency(predict, np.repeat(warm_up, size, axis=0)) for size in LATENCY_BATCHES}
    Path(job["times"]).write_text(json.dumps({"load_seconds": load_seconds, "latency_seconds": latency}))


def _preprocess_of(directory: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of the `preprocess.py` beside an export; without one, images stay as they are."""
    path = directory / "preprocess.py"
    if not path.exists():
        return lambda image: image
    spec = importlib.util.spec_from_file_location("preprocess", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.preprocess


def _load(format: str, path: str, warm_up: np.ndarray) -> tuple[Predict, float]:
    """Return the loaded model, and the seconds until its first prediction was done. The runtime's import counts."""
    started = time.perf_counter()
    predict = LOADERS[format](path)
    predict(warm_up)
    return predict, time.perf_counter() - started


def _predict(predict: Predict, images: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([predict(batch) for batch in _batches(images)])


def _batches(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield successive images of one size in batches."""
    batch: list[np.ndarray] = []
    for image in images:
        if batch and (len(batch) == BATCH_SIZE or image.shape != batch[0].shape):
            yield np.stack(batch)
            batch = []
        batch.append(image)
    yield np.stack(batch)


def _latency(predict: Predict, images: np.ndarray) -> float:
    """Return the median seconds of a call."""
    predict(images)
    times, end = list[float](), time.perf_counter() + LATENCY_SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        predict(images)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


if __name__ == "__main__":
    description = json.loads(Path(sys.argv[1]).read_text())
    sys.modules.update(dict.fromkeys(description["blocked"]))  # None makes an import fail
    run_job(description)
