"""Models behind one interface: decoded images of any size in, logits or log-probabilities out. All may be called from several threads."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from tl_keras.backbones import LOGITS, feature_extractor
from tl_keras.data.geometry import Geometry


class Network(Protocol):
    """A model that predicts images.

    `prepare` turns pixels uint8 (h, w, 3) into one input. `log_scores` returns of a list of inputs float (n, classes), whose softmax are
    the probabilities.
    """

    def prepare(self, image: np.ndarray) -> np.ndarray: ...
    def log_scores(self, inputs: Sequence[np.ndarray]) -> np.ndarray: ...


class Classifier:
    """A classifier of `backbones.build_classifier` behind the crop and resize of its run, in float32.

    Attributes:
        model: from RGB 0..255, float32 (b, size, size, 3), to logits. It computes in float32, whatever precision it was trained in.
        num_features: number of values that the head sees of an image.
    """

    def __init__(self, model: keras.Model, geometry: Geometry):
        self.model = in_float32(model)
        side = geometry.image_size
        resize = geometry.pipeline_resize(None) or geometry.resize
        self._resize = compiled(resize, tf.TensorSpec((None, None, None, 3), tf.uint8))
        self._forward = compiled(lambda images: self.model(images, training=False), tf.TensorSpec((None, side, side, 3), tf.float32))
        features = feature_extractor(self.model)
        self.num_features = int(features.output_shape[-1])
        self._features = compiled(lambda images: features(images, training=False), tf.TensorSpec((None, side, side, 3), tf.float32))

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Return the image as the model sees it, float32 (size, size, 3)."""
        return self._resize(tf.constant(image[None])).numpy()[0]

    def log_scores(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return logits, float32 (n, classes)."""
        return self._forward(tf.constant(np.stack(inputs))).numpy()

    def features(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return what the head sees, float32 (n, channels)."""
        return self._features(tf.constant(np.stack(inputs))).numpy()


class ServedModel:
    """An exported model: uint8 RGB (b, h, w, 3) of any size to probabilities.

    Args:
        call: the model as a function of a batch.
        num_classes: number of probabilities.
    """

    def __init__(self, call: Callable[[np.ndarray], Any], num_classes: int):
        self._call, self._num_classes = call, num_classes

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Return the image unchanged, since the model resizes."""
        return image

    def log_scores(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return log-probabilities, float64 (n, classes). Images of one size form one batch."""
        probabilities = np.empty((len(inputs), self._num_classes))
        for shape in {image.shape for image in inputs}:
            positions = [position for position, image in enumerate(inputs) if image.shape == shape]
            probabilities[positions] = np.asarray(self._call(np.stack([inputs[position] for position in positions])))
        with np.errstate(divide="ignore"):
            return np.log(probabilities)


def compiled(function: Callable[[Any], Any], spec: tf.TensorSpec) -> Callable[[Any], Any]:
    """Return a function of one tensor, traced now, so that threads do not trace it."""
    return tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()


def in_float32(model: keras.Model) -> keras.Model:
    """Return the model with float32 computation; a copy if it computes in another type. Its variables are float32 already."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    config = json.loads(json.dumps(model.get_config()).replace('"mixed_bfloat16"', '"float32"').replace('"mixed_float16"', '"float32"'))
    copy = keras.Model.from_config(config)
    copy.set_weights(model.get_weights())
    return copy


def is_classifier(model: keras.Model) -> bool:
    """Return True for a classifier of this package: square images of one size to the layer `logits`."""
    shape = getattr(model, "input_shape", None)
    square = isinstance(shape, tuple) and len(shape) == 4 and shape[1] == shape[2] is not None and shape[3] == 3
    return square and any(layer.name == LOGITS for layer in model.layers)
