"""Opens whatever predicts: a run, a model file, or an export in any format, each behind the same `Predictor`."""

import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tl_keras.errors import DamagedError, MissingError
from tl_keras.exports.formats import FORMATS
from tl_keras.exports.preprocess import preprocess
from tl_keras.exports.reload import LOADERS
from tl_keras.runs.networks import ServedModel
from tl_keras.runs.predict import Predictor, read_labels
from tl_keras.utils.files import read_json
from tl_keras.utils.text import printable

RUNTIMES: Mapping[str, str] = MappingProxyType({"onnx": "onnxruntime", "litert": "ai_edge_litert", "openvino": "openvino"})
PREPROCESSING = "preprocessing.json"
MAX_SIDE = 8192  # pixels


class FixedSizeModel(ServedModel):
    """An exported model for images of its own size, behind the crop and resize of its run.

    Its calls follow one another, since an interpreter of LiteRT is not for several threads.

    Args:
        call: uint8 RGB (b, image_size, image_size, 3) -> probabilities float32 (b, classes).
        num_classes: number of probabilities.
        settings: content of `preprocessing.json`.
    """

    def __init__(self, call: Callable[[np.ndarray], np.ndarray], num_classes: int, settings: Mapping[str, Any]):
        lock = threading.Lock()

        def call_alone(images: np.ndarray) -> np.ndarray:
            with lock:
                return call(images)

        super().__init__(call_alone, num_classes)
        self._settings = settings

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Return the image as the model takes it, uint8 (image_size, image_size, 3)."""
        return preprocess(image, self._settings)


def open_predictor(path: str | Path) -> Predictor:
    """Return the predictor of a run, a `.keras` file, a delta file, or an export in any format.

    The program `preprocess.py` of an export is not run: its numbers in `preprocessing.json` are read.

    Raises:
        MissingError: There is no such path, or the runtime of the format is not installed; the message has the command.
        DamagedError: The model or a file beside it cannot be read.
        ConfigError: It is none of these, or its layers could run code.
    """
    directory = Path(path).expanduser()
    format = next((name for name in RUNTIMES if (directory / FORMATS[name].file).is_file()), "")
    return _of_format(directory, format) if format else Predictor.open(path)


def _of_format(directory: Path, format: str) -> Predictor:
    if find_spec(RUNTIMES[format]) is None:
        package = RUNTIMES[format].replace("_", "-")
        raise MissingError(f"{printable(directory)} is an export for {package}, which is not installed. Run pip install {package}.")
    settings, file = _read_preprocessing(directory), directory / FORMATS[format].file
    side = settings["image_size"]
    try:
        call = LOADERS[format](str(file))
        num_classes = call(np.zeros((1, side, side, 3), np.uint8)).shape[-1]
    except Exception as error:  # runtimes do not document what they raise for a damaged file
        raise DamagedError(f"{printable(file)} cannot be loaded ({str(error)[:200]}). Export the model again.") from error
    return Predictor.named(FixedSizeModel(call, num_classes, settings), num_classes, read_labels(directory))


def _read_preprocessing(directory: Path) -> Mapping[str, Any]:
    """Return `preprocessing.json` of an export; DamagedError if it is not one."""
    settings = read_json(directory / PREPROCESSING)
    sides = [settings.get(name) for name in ("image_size", "side")] if isinstance(settings, dict) else [None]
    is_valid = all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in sides)
    if not is_valid or settings.get("interpolation") not in ("bilinear", "bicubic"):
        raise DamagedError(f"{printable(directory / PREPROCESSING)} does not say how images are resized. Export the model again.")
    return settings
