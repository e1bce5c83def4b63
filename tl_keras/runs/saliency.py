"""Grad-CAM: pictures of the regions of an image that speak for a class (Selvaraju et al. 2017, arXiv:1610.02391).

Each channel of a map is weighted by the mean gradient of the class's logit by it. The positive part of the weighted sum is drawn over
the image. Convolutional networks have their last map for that, a ViT the patches that enter its last attention: the output of its
last block reaches the logits through the class token alone.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from keras import layers
from PIL import Image

from tl_keras.backbones import LOGITS
from tl_keras.errors import ConfigError
from tl_keras.runs.networks import Classifier, compiled
from tl_keras.runs.predict import Images, Predictor, Progress, no_progress
from tl_keras.utils.files import atomic_write

TOKENS = "_ln1"  # suffix of the norm in front of the attention of a block
# Layers whose output is a map at another resolution than that of the features in it.
RESAMPLING = (
    layers.UpSampling2D, layers.ZeroPadding2D, layers.MaxPooling2D, layers.AveragePooling2D, layers.AdaptiveAveragePooling2D,
    layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D,
)  # fmt: skip
COLOURS = "turbo"
MAX_OPACITY = 0.65
MIN_SIDE = 224  # pixels of a picture
MAX_NAME = 60  # letters


class GradCam:
    """Maps of relevance of a classifier's images. Thread-safe.

    Args:
        classifier: the network.

    Raises:
        ConfigError: No layer of the model has a map of more than one position.
    """

    def __init__(self, classifier: Classifier):
        model = classifier.model
        head = model.get_layer(LOGITS)
        self._model = keras.Model(model.input, [target_layer(model).output, model.output])
        self._is_one_logit = head.units == 1  # then the first logit is 0, so that only their difference has a gradient
        self._compute = compiled(self._maps, tf.TensorSpec(model.input_shape, tf.float32))

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the map of each image for its predicted class, and that class.

        Args:
            inputs: images as the classifier takes them, float32 (size, size, 3).

        Returns:
            Maps float32 (n, height, width) in 0..1, the largest value of each 1 unless no region speaks for the class; and int64 (n,).
        """
        maps, classes = (result.numpy() for result in self._compute(tf.constant(np.stack(inputs))))
        largest = maps.max(axis=(1, 2), keepdims=True)
        return maps / np.where(largest > 0, largest, 1), classes

    def _maps(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            features, logits = self._model(images, training=False)
            classes = tf.argmax(logits, axis=1)
            scores = tf.gather(logits, classes, axis=1, batch_dims=1)
            scores = scores - tf.gather(logits, 1 - classes, axis=1, batch_dims=1) if self._is_one_logit else scores
        gradients = tape.gradient(scores, features)
        maps, gradients = (_patch_grid(part) if len(part.shape) == 3 else part for part in (features, gradients))
        weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * maps, axis=3)), classes


def target_layer(model: keras.Model) -> Any:
    """Return the layer or operation whose output is drawn.

    It is the norm before the last attention, or the last map (b, h, w, c) of several positions. ConvNeXt adds its branches by an
    operation that is no layer.
    """
    if tokens := [layer for layer in model.layers if layer.name.endswith(TOKENS)]:
        return tokens[-1]
    for operation in reversed(model.operations):
        shape = getattr(operation.output, "shape", ())
        if len(shape) == 4 and min(shape[1:3]) > 1 and not isinstance(operation, RESAMPLING):
            return operation
    raise ConfigError(f"{model.name} with images of {model.input_shape[1]} pixels has no map of several positions to draw.")


def _patch_grid(tokens: tf.Tensor) -> tf.Tensor:
    """Return tokens (b, 1 + n * n, d) without the class token as maps (b, n, n, d)."""
    side = math.isqrt(tokens.shape[1] - 1)
    return tf.reshape(tokens[:, 1:], (-1, side, side, tokens.shape[2]))


def write_saliency(
    predictor: Predictor,
    images: Images,
    directory: Path,
    *,
    batch_size: int = 32,
    on_corrupt: str = "error",
    on_progress: Progress = no_progress,
) -> list[Path]:
    """Write one PNG for each image: as the model saw it, coloured where it speaks for the predicted class.

    Args:
        predictor: of a run or its `model.keras`.
        directory: receives `0000_NAME_LABEL.png`, ...; created if needed.
        images, batch_size, on_corrupt, on_progress: as those of `Predictor.predict`.

    Returns:
        The files, in the order of the images.

    Raises:
        ConfigError: The model is an export, or has no map to draw.
    """
    grad_cam, paths = GradCam(predictor.classifier("layers to draw")), list[Path]()
    for batch in predictor.batches(images, {}, batch_size=batch_size, on_corrupt=on_corrupt, on_progress=on_progress):
        for name, image, heat, label in zip(batch.names, batch.inputs, *grad_cam(batch.inputs), strict=True):
            stem = "_".join(map(_file_name, (Path(name).stem, predictor.class_names[label])))
            paths.append(directory / f"{len(paths):04d}_{stem}.png")
            with atomic_write(paths[-1]) as temporary:
                Image.fromarray(overlay(image, heat)).save(temporary, "PNG")
    return paths


def _file_name(text: str) -> str:
    """Return `text` with everything but letters, digits, dots and dashes replaced, since names come from outside."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text)[:MAX_NAME]


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return an image with a map over it, uint8 (side, side, 3), enlarged to at least `MIN_SIDE` pixels.

    The map's opacity grows with its value, so regions without relevance show the image.

    Args:
        image: float32 (size, size, 3) in 0..255.
        heat: float32 (height, width) in 0..1.
    """
    side = image.shape[0] * math.ceil(MIN_SIDE / image.shape[0])
    picture = Image.fromarray(image.round().clip(0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    values = np.asarray(Image.fromarray(heat.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)
    colours = 255 * matplotlib.colormaps[COLOURS](values)[..., :3]
    opacity = MAX_OPACITY * values[..., None]
    return ((1 - opacity) * np.asarray(picture) + opacity * colours).round().astype(np.uint8)
