"""Writes a serving model in each format. The packages of a format are imported when it is written.

The conversions are Keras's own (`Model.export`): tf2onnx for ONNX, TensorFlow's converter for LiteRT, OpenVINO's for OpenVINO.
"""

import contextlib
import io
import json
import logging
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from tl_keras.exports.formats import FLOAT16, INT8, TELEMETRY
from tl_keras.training.runtime import preserve_global_state

INPUT, OUTPUT = "image", "probabilities"  # names of the model's input and output
CLASS_NAMES = "class_names"  # key of the metadata: a JSON list
LITERT_LABELS = "labels.txt"  # a file in the model's file, which is also a ZIP archive, as Android's metadata library reads it
CALIBRATION_BATCH = 16

Samples = Sequence[np.ndarray]  # inputs that represent all others, uint8 (size, size, 3)


def write(format: str, model: keras.Model, path: Path, quantize: str, samples: Samples, class_names: Sequence[str]) -> None:
    """Write `model` to `path`.

    Args:
        format: key of `WRITERS`.
        model: a serving model; of its own size for onnx, litert and openvino.
        quantize: key of `QUANTIZATIONS`.
        samples: inputs on which the ranges of int8 are measured.
        class_names: stored in the metadata of the formats that have some.
    """
    with _undisturbed():
        WRITERS[format](model, path, quantize, samples, class_names)


def _write_keras(model: keras.Model, path: Path, quantize: str, samples: Samples, class_names: Sequence[str]) -> None:
    model.save(path)


def _write_saved_model(model: keras.Model, path: Path, quantize: str, samples: Samples, class_names: Sequence[str]) -> None:
    model.export(path, format="tf_saved_model", verbose=False)


def _write_onnx(model: keras.Model, path: Path, quantize: str, samples: Samples, class_names: Sequence[str]) -> None:
    import onnx
    import onnxruntime.transformers

    # The package extends `sys.path` at its first import, and needs that at later imports of its modules too.
    sys.path.append(str(Path(onnxruntime.transformers.__file__).parent))
    model.export(path, format="onnx", verbose=False)
    converted = onnx.load(path)
    _name_onnx_tensors(converted.graph)
    if quantize == FLOAT16:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        converted = convert_float_to_float16(converted, keep_io_types=True)
    elif quantize == INT8:
        converted = _quantize_onnx(converted, samples)
    onnx.helper.set_model_props(converted, {CLASS_NAMES: json.dumps(list(class_names))})
    onnx.save(converted, path)


def _name_onnx_tensors(graph: Any) -> None:
    """Give the output and the dimension of batches the names that users expect; tf2onnx calls them `Identity:0` and `unk__1`."""
    converted = graph.output[0].name
    for node in graph.node:
        node.output[:] = [OUTPUT if name == converted else name for name in node.output]
        node.input[:] = [OUTPUT if name == converted else name for name in node.input]
    graph.output[0].name = OUTPUT
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _quantize_onnx(converted: Any, samples: Samples) -> Any:
    """Return the model with quantized weights, per channel, and activations."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            starts = range(0, len(samples), CALIBRATION_BATCH)
            self._batches = iter([{INPUT: np.stack(samples[start : start + CALIBRATION_BATCH])} for start in starts])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    with tempfile.TemporaryDirectory() as temporary:
        given, prepared, quantized = (Path(temporary) / f"{name}.onnx" for name in ("given", "prepared", "quantized"))
        onnx.save(converted, given)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, quantized, Reader(), per_channel=True, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)
        return onnx.load(quantized)


def _write_litert(model: keras.Model, path: Path, quantize: str, samples: Samples, class_names: Sequence[str]) -> None:
    import tensorflow as tf

    options: dict[str, Any] = {}
    if quantize != "none":
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if quantize == FLOAT16:
        options["target_spec"] = {"supported_types": [tf.float16]}
    if quantize == INT8:
        options["representative_dataset"] = lambda: ({INPUT: sample[None]} for sample in samples)
    model.export(path, format="litert", verbose=False, **options)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(LITERT_LABELS, "".join(f"{name}\n" for name in class_names))


def _write_openvino(model: keras.Model, path: Path, quantize: str, samples: Samples, class_names: Sequence[str]) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as temporary:
        unfinished = str(Path(temporary) / path.name)
        model.export(unfinished, format="openvino", verbose=False)
        converted = openvino.Core().read_model(unfinished)
        converted.outputs[0].get_tensor().set_names({OUTPUT})
        if quantize == INT8:
            converted = _quantize_openvino(converted, samples)
        converted.set_rt_info(json.dumps(list(class_names)), [CLASS_NAMES])
        openvino.save_model(converted, path, compress_to_fp16=quantize == FLOAT16)


def _quantize_openvino(converted: Any, samples: Samples) -> Any:
    import nncf

    nncf.set_log_level(logging.ERROR)
    inputs = nncf.Dataset([sample[None] for sample in samples])
    return nncf.quantize(converted, inputs, preset=nncf.QuantizationPreset.MIXED, subset_size=len(samples))


Writer = Callable[[keras.Model, Path, str, Samples, Sequence[str]], None]
WRITERS: Mapping[str, Writer] = MappingProxyType(
    {
        "keras": _write_keras,
        "saved_model": _write_saved_model,
        "onnx": _write_onnx,
        "litert": _write_litert,
        "openvino": _write_openvino,
    }
)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the converters from changing global state, from printing, and from reporting their use.

    They extend `sys.path` and the handlers of the root logger, draw progress bars, and OpenVINO sends usage data if its package for that
    can be imported. Keras adds `np.object` for tf2onnx and expects to find it at the next conversion.
    """
    path, handlers = list(sys.path), list(logging.root.handlers)
    telemetry, has_object = sys.modules.get(TELEMETRY), "object" in vars(np)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # makes its import fail
    vars(np).setdefault("object", object)
    try:
        with preserve_global_state(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of deprecated functions that the converters call
            yield
    finally:
        sys.path[:], logging.root.handlers[:] = path, handlers
        del sys.modules[TELEMETRY]
        if telemetry is not None:
            sys.modules[TELEMETRY] = telemetry
        if not has_object:
            del vars(np)["object"]
