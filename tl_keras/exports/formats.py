"""The formats of exports: their files, the packages that they need, and how they can be quantized. No package is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType

from tl_keras.errors import ConfigError, MissingError, unknown

NONE, FLOAT16, INT8, ALL = "none", "float16", "int8", "all"
QUANTIZATIONS: Mapping[str, str] = MappingProxyType(
    {
        NONE: "float32",
        FLOAT16: "weights, and in ONNX also the computation, in float16: half the size",
        INT8: "weights and activations in 8 bits, with ranges measured on training images: a quarter of the size",
    }
)
TL_KERAS = ("tl_keras",)
KERAS = (*TL_KERAS, "keras", "tf_keras")
TENSORFLOW = (*KERAS, "tensorflow")
TELEMETRY = "openvino_telemetry"  # sends usage data wherever OpenVINO can import it


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        file: name of the model's file or directory.
        help: one line on it.
        without: packages that an export must not need: their import fails where it is checked.
        packages: packages, by the names of their modules, that write and run it beside TensorFlow and Keras; the extra has its name.
        int8_packages: further ones for int8.
        no_quantization: reason why it is not quantized; empty if it is.
    """

    name: str
    file: str
    help: str
    without: Sequence[str]
    packages: Sequence[str] = ()
    int8_packages: Sequence[str] = ()
    no_quantization: str = ""

    @property
    def takes_any_size(self) -> bool:
        """True if the model resizes; if not, `preprocess.py` does."""
        return not self.packages


KERAS_REASON = (
    "a .keras file holds the layers in float32, and Keras's own quantization covers Dense and Embedding layers but not convolutions"
)
SAVED_MODEL_REASON = "TensorFlow has no quantized kernels for the operations of a SavedModel; its converter for them writes litert"

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        format.name: format
        for format in (
            Format("keras", "model.keras", "a Keras file; images of any size", TL_KERAS, no_quantization=KERAS_REASON),
            Format("saved_model", "saved_model", "a TensorFlow SavedModel; images of any size", KERAS, no_quantization=SAVED_MODEL_REASON),
            Format("onnx", "model.onnx", "ONNX, for ONNX Runtime", TENSORFLOW, ("onnx", "tf2onnx", "onnxruntime")),
            Format("litert", "model.tflite", "LiteRT (TensorFlow Lite), for phones", TENSORFLOW, ("ai_edge_litert",)),
            Format("openvino", "model.xml", "OpenVINO, for Intel processors", (*TENSORFLOW, TELEMETRY), ("openvino",), ("nncf",)),
        )
    }
)


def choose_formats(format: str, quantize: str) -> list[Format]:
    """Return the formats that are asked for. `all` with a quantization means those that can be quantized.

    Raises:
        ConfigError: A name is unknown, or the format is not quantized; the message has the reason.
        MissingError: Packages are not installed; the message has the command that installs them.
    """
    if format not in (*FORMATS, ALL):
        raise unknown("export format", format, (*FORMATS, ALL))
    if quantize not in QUANTIZATIONS:
        raise unknown("quantization", quantize, QUANTIZATIONS)
    chosen = [known for known in FORMATS.values() if format in (known.name, ALL)]
    if quantize != NONE and format != ALL and (reason := chosen[0].no_quantization):
        possible = ", ".join(known.name for known in FORMATS.values() if not known.no_quantization)
        raise ConfigError(f"not with `format={format}`: {reason}. Choose one of {possible}.", setting="quantize", value=quantize)
    chosen = [known for known in chosen if quantize == NONE or not known.no_quantization]
    _require_packages(chosen, quantize)
    return chosen


def _require_packages(formats: Sequence[Format], quantize: str) -> None:
    missing = {known.name: [name for name in _packages(known, quantize) if find_spec(name) is None] for known in formats}
    if lacking := {name: packages for name, packages in missing.items() if packages}:
        names = "; ".join(f"`format={name}` needs {' and '.join(packages)}" for name, packages in lacking.items())
        distributions = sorted({name.replace("_", "-") for packages in lacking.values() for name in packages})
        raise MissingError(
            f"Packages are not installed: {names}. Run pip install {' '.join(distributions)}, or install tl_keras with its extra "
            f"{' and '.join(lacking)}, which has the tested versions."
        )


def _packages(format: Format, quantize: str) -> Sequence[str]:
    return (*format.packages, *(format.int8_packages if quantize == INT8 else ()))
