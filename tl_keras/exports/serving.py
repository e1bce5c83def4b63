"""Models for serving, made of stock Keras layers in float32: uint8 RGB images in, probabilities out."""

import keras
import numpy as np

from tl_keras.data.geometry import Geometry
from tl_keras.runs.networks import in_float32
from tl_keras.runs.temperature import fold_temperature


def serving_model(model: keras.Model, geometry: Geometry, temperature: float | None = None) -> keras.Model:
    """Return the serving model of a classifier.

    Args:
        model: float RGB (b, image_size, image_size, 3) in 0..255 -> logits (b, classes).
        geometry: crop and resize of its input, which become part of the serving model.
        temperature: divisor of the logits; None: 1.

    Returns:
        A model: uint8 RGB (b, height, width, 3) of any size -> probabilities float32 (b, classes).
    """
    inputs = keras.Input((None, None, 3), dtype="uint8", name="image")
    resized = inputs
    for layer in geometry.resize_layers():
        resized = layer(resized)
    return _with_probabilities(inputs, resized, float32_classifier(model, temperature))


def fixed_size_model(classifier: keras.Model) -> keras.Model:
    """Return the serving model for images of the model's own size: uint8 RGB (b, size, size, 3) -> probabilities (b, classes).

    Args:
        classifier: a model that `float32_classifier` returned.
    """
    inputs = keras.Input(classifier.input_shape[1:], dtype="uint8", name="image")
    pixels = keras.layers.Rescaling(1.0, dtype="float32")(inputs)
    model = _with_probabilities(inputs, pixels, classifier)
    model(np.zeros((1, *model.input_shape[1:]), np.uint8))  # Keras converts a model to ONNX only after it was called.
    return model


def float32_classifier(model: keras.Model, temperature: float | None) -> keras.Model:
    """Return `model` with float32 computation and its logits divided by `temperature`, if there is one."""
    model = in_float32(model)
    return model if temperature is None else fold_temperature(model, temperature)


def _with_probabilities(inputs: keras.KerasTensor, pixels: keras.KerasTensor, classifier: keras.Model) -> keras.Model:
    # Without training=False, Keras's preprocessing layers would switch on dropout in the layers behind them.
    logits = classifier(pixels, training=False)
    return keras.Model(inputs, keras.layers.Softmax(dtype="float32", name="probabilities")(logits), name="classifier")
