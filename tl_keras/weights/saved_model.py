"""Reads the variables of a SavedModel from its checkpoint. The model is not loaded, so none of its functions runs.

Keras writes every variable with its name, the path of the variable in the model, in the object graph of the checkpoint. Other writers
may leave the names out. Then the variables cannot be told apart, and the model is refused.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.backbones import stable_path
from tl_keras.errors import ConfigError
from tl_keras.utils.hashing import fingerprint
from tl_keras.weights.weights_file import TensorInfo, file_hash

CHECKPOINT = "variables/variables"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
SEED = "/seed_generator_state"  # the variable of a dropout layer


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint.

    Attributes:
        reader: TensorFlow's reader.
        keys: variable path -> its keys in the checkpoint. Keras lists a variable twice: in order, and among those of all functions.
        infos: key -> path, shape and dtype of the variable.
    """

    reader: Any
    keys: dict[str, list[str]]
    infos: dict[str, TensorInfo]


def list_variables(directory: Path) -> list[TensorInfo]:
    """Return path, shape and dtype of every variable of a SavedModel, without reading its values."""
    checkpoint = _open(directory)
    return [checkpoint.infos[keys[0]] for keys in checkpoint.keys.values()]


def read_variables(directory: Path, require_size: Callable[[int], None]) -> dict[str, np.ndarray]:
    """Return the variables of a SavedModel by path.

    Args:
        require_size: called with the size in bytes that the checkpoint states, before a value is read; raises if it is too large.

    Raises:
        ConfigError: The variables have no names that tell them apart.
        ValueError: The checkpoint is damaged.
    """
    checkpoint = _open(directory)
    require_size(sum(8 * math.prod(checkpoint.infos[key].shape) for keys in checkpoint.keys.values() for key in keys) // 2)
    arrays: dict[str, np.ndarray] = {}
    for name, keys in checkpoint.keys.items():
        arrays[name], *copies = (_call(checkpoint.reader.get_tensor, key) for key in keys)
        if not all(np.array_equal(arrays[name], copy) for copy in copies):
            raise _unnamed(directory, f"different variables are called {name}")
    return arrays


def hash_files(directory: Path) -> str:
    """Return the SHA-256 of the checkpoint of a SavedModel."""
    files = sorted(path for path in (directory / CHECKPOINT).parent.iterdir() if path.is_file())
    return fingerprint("saved_model", [part.encode() for path in files for part in (path.name, file_hash(path))])


def _open(directory: Path) -> Checkpoint:
    import tensorflow as tf
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    reader = _call(tf.train.load_checkpoint, str(directory / CHECKPOINT))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    if OBJECT_GRAPH not in shapes:
        raise _unnamed(directory, "its checkpoint has no object graph")
    graph = _call(trackable_object_graph_pb2.TrackableObjectGraph.FromString, _call(reader.get_tensor, OBJECT_GRAPH))
    checkpoint = Checkpoint(reader, {}, {})
    for entry in (entry for node in graph.nodes for entry in node.attributes):
        key, name = entry.checkpoint_key, stable_path(entry.full_name)
        if key in shapes and not name.endswith(SEED):
            if "/" not in name:
                raise _unnamed(directory, f"one of them is called {name!r}, without its layer")
            checkpoint.keys.setdefault(name, []).append(key)
            checkpoint.infos[key] = TensorInfo(name, tuple(shapes[key]), dtypes[key].name)
    return checkpoint


def _unnamed(directory: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"the variables of the SavedModel cannot be told apart: {reason}. Give the run, or export it with `format=keras`, whose file has "
        "names for all of them.",
        setting="weights",
        value=directory,
    )


def _call(function: Any, argument: Any) -> Any:
    """Return `function(argument)`. Errors of TensorFlow and protobuf on damaged files become ValueError, as in the other formats."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return function(argument)
    except (tf.errors.OpError, RuntimeError, DecodeError) as error:
        raise ValueError(str(error)) from error
