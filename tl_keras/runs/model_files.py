"""Opens models that may come from elsewhere: `.keras` files and SavedModels."""

import json
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_keras.data.file_formats import describe_format
from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.utils.files import READ_ERRORS
from tl_keras.utils.text import printable, to_one_line

CONFIG = "config.json"  # the entry of a .keras archive that holds layers and connections
MAX_CONFIG_BYTES = 64 * 2**20
MAX_RATIO = 20  # of unpacked to packed bytes; Keras does not compress
# Layers of Keras that run code of the file, load other files, or call other frameworks.
REFUSED = frozenset((
    "Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "StringLookup", "IntegerLookup", "IndexLookup",
    "TextVectorization",
))  # fmt: skip

log = logging.getLogger("tl_keras")


def load_keras_file(path: Path) -> keras.Model:
    """Return the model of a `.keras` file that may be hostile. No code in it runs.

    Raises:
        MissingError: There is no such file.
        DamagedError: It is not a `.keras` archive, is corrupt, or unpacks to far more than its size.
        ConfigError: It has a layer that is not one of Keras's, or one that runs code or reads other files.
    """
    if not path.is_file():
        raise MissingError(f"There is no file {printable(path)}.")
    try:
        _check_layers(_read_config(path), path)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (DamagedError, ConfigError):
        raise
    except Exception as error:  # Keras raises exceptions of any type on files that are no models
        reason = to_one_line(error)[:300]
        raise DamagedError(f"{printable(path)} cannot be read as a Keras model ({reason}). Save or export it again.") from error


def _read_config(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > MAX_RATIO * path.stat().st_size or archive.getinfo(CONFIG).file_size > MAX_CONFIG_BYTES:
                raise DamagedError(f"{printable(path)} unpacks to {unpacked:,} bytes, far more than a model of its size. Do not use it.")
            return json.loads(archive.read(CONFIG))
    except zipfile.BadZipFile:
        with path.open("rb") as file:
            received = describe_format(file.read(512))
        raise DamagedError(f"{printable(path)}: expected a .keras file, received {received}.") from None
    except (*READ_ERRORS, RecursionError) as error:
        raise DamagedError(f"{printable(path)} is not a .keras file ({to_one_line(error)}). Save or export it again.") from error


def _check_layers(config: Any, path: Path) -> None:
    for node in _objects(config):
        name, module = node["class_name"], node.get("module")
        own = module is None or str(module).split(".")[0] in ("keras", "builtins")
        if name in REFUSED or not own or str(node.get("registered_name") or "").startswith("Custom>"):
            raise ConfigError(
                f"{printable(path)} has an object {to_one_line(name)!r} of {to_one_line(module)!r}, which could run code or read files. "
                "Expected a model of Keras's own layers, without Lambda, such as a run or `tl-keras export` writes."
            )


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every serialized object in the configuration of a model."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for part in value.values():
            yield from _objects(part)
    elif isinstance(value, list):
        for part in value:
            yield from _objects(part)


def load_saved_model(directory: Path) -> Callable[[np.ndarray], Any]:
    """Return the function `serve` of a SavedModel. A SavedModel is a program: its operations run, and a log message says so.

    Raises:
        DamagedError: The directory does not hold a readable SavedModel.
        ConfigError: It has no function `serve`.
    """
    log.warning("Loading %s: the graph of a SavedModel is run, so use only files that you trust.", printable(directory))
    try:
        loaded = tf.saved_model.load(str(directory))
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        reason = to_one_line(error)[:300]
        raise DamagedError(f"{printable(directory)} cannot be read as a SavedModel ({reason}). Export it again.") from error
    if not callable(getattr(loaded, "serve", None)):
        raise ConfigError(f"{printable(directory)}: the SavedModel has no function `serve`. Expected one from Keras's `model.export`.")

    def serve(images: np.ndarray) -> Any:
        return loaded.serve(tf.constant(images))  # `loaded` is referred to, since its functions do not outlive it

    return serve
