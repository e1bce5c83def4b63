"""The check that Keras runs on TensorFlow, which everything that trains or loads a model needs."""

import os
import sys

from tl_keras.errors import ConfigError
from tl_keras.utils.tensorflow_import import import_tensorflow


def require_tensorflow() -> None:
    """Import TensorFlow.

    Raises:
        ConfigError: Keras has another backend.
    """
    keras = sys.modules.get("keras")
    backend = keras.backend.backend() if keras else os.environ.get("KERAS_BACKEND") or "tensorflow"
    if backend != "tensorflow":
        raise ConfigError(
            f"Keras runs on {backend}; tl_keras needs TensorFlow. Set the environment variable KERAS_BACKEND to tensorflow before Keras "
            "is imported."
        )
    import_tensorflow()
