"""Geometry: how images of any size become the square inputs of a model. Keras is imported when a resize is built.

Resizing can happen in two places. The input pipeline resizes on the CPU, in float32. If all images have one size and grow, the
pipeline can leave them as uint8 and the device resizes them: 224 x 224 pixels in float32 are 200 times the bytes of CIFAR's
32 x 32 in uint8.

Both interpolations are those of Pillow, except that Pillow rounds to 8 bits after each of its two passes. Bicubic has the kernel of
Keys (1981) with a = -0.5 and is clipped to 0..255.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Size = tuple[int, int]
ResizeFn = Callable[["tf.Tensor"], "tf.Tensor"]


@dataclass(frozen=True)
class Geometry:
    """Centre crop and resize from source images to model inputs.

    Attributes:
        image_size: side of the model's square input, in pixels.
        crop_fraction: fraction of the shorter side that the centre crop keeps, in (0, 1].
        interpolation: `bilinear` or `bicubic`.
        source_size: (height, width) of all source images; None if they differ or if the pipeline shall resize in any case.
    """

    image_size: int
    crop_fraction: float
    interpolation: str = "bilinear"
    source_size: Size | None = None

    def __str__(self) -> str:
        """Return e.g. `224 px (bicubic, crop 0.875)`."""
        crop = f", crop {self.crop_fraction:.3g}" if self.crop_fraction < 1 else ""
        return f"{self.image_size} px ({self.interpolation}{crop})"

    @property
    def resizes_on_device(self) -> bool:
        """True if the pipeline leaves images at `source_size`.

        Images that shrink are resized in the pipeline, since XLA cannot compile the antialiasing filter that they need.
        """
        return self.source_size is not None and self._enlarges(self.source_size)

    def in_pipeline(self) -> "Geometry":
        """Return the same geometry with the resize in the pipeline."""
        return replace(self, source_size=None)

    def resize_layers(self, *, antialias: bool = True) -> list["keras.Layer"]:
        """Return stock layers from images (b, h, w, 3) of any size to float32 (b, image_size, image_size, 3).

        They crop the centre to a square, resize it to `image_size / crop_fraction`, and crop the centre of that. Antialiasing does
        not change images that grow, but takes three times as long. Bicubic always has it, since TensorFlow's operation without
        antialiasing looks its kernel up in a table.
        """
        import keras

        is_bicubic = self.interpolation == "bicubic"
        resizing = keras.layers.Resizing(
            self._side, self._side, self.interpolation, crop_to_aspect_ratio=True, antialias=antialias or is_bicubic, dtype="float32"
        )
        return [
            keras.layers.Rescaling(1.0, dtype="float32"),  # Resizing would round its result for integer inputs.
            resizing,
            keras.layers.CenterCrop(self.image_size, self.image_size, dtype="float32"),
            *([keras.layers.ReLU(max_value=255.0, dtype="float32")] if is_bicubic else []),  # It overshoots at edges.
        ]

    def resize(self, images: "tf.Tensor") -> "tf.Tensor":
        """Resize images (b, h, w, 3), uint8 or float32, to float32 (b, image_size, image_size, 3)."""
        return _resize_fn(self.in_pipeline(), tuple(images.shape[1:3]))(images)

    def pipeline_resize(self, size: Size | None) -> ResizeFn | None:
        """Return what the pipeline does to images of `size` (None: of several sizes), or None if the device resizes."""
        return None if self.resizes_on_device else _resize_fn(self.in_pipeline(), size or (None, None))

    def device_resize(self) -> ResizeFn | None:
        """Return what the device does to images of `source_size`, or None if the pipeline resizes."""
        if not (self.source_size and self.resizes_on_device):
            return None
        build = _bicubic_fn if self.interpolation == "bicubic" else _resize_fn
        return build(self.in_pipeline(), self.source_size)

    @property
    def _side(self) -> int:
        return round(self.image_size / self.crop_fraction)

    def _enlarges(self, size: Size) -> bool:
        return min(size) <= self._side


def with_resize(resize: ResizeFn | None, model: Callable[..., Any]) -> Callable[..., Any]:
    """Return `model`, a function (images, training=...) -> outputs, with `resize` in front; `model` itself for None."""
    if resize is None:
        return model
    return lambda images, training: model(resize(images), training=training)


@lru_cache(maxsize=8)
def _resize_fn(geometry: Geometry, size: tuple[int | None, int | None]) -> ResizeFn:
    """Return a function that applies the layers to images of `size`. It is built once, not once per epoch."""
    height, width = size
    enlarges = height is not None and width is not None and geometry._enlarges((height, width))
    layers = geometry.resize_layers(antialias=not enlarges)

    def resize(images: "tf.Tensor") -> "tf.Tensor":
        for layer in layers:
            images = layer(images)
        return images

    return resize


@lru_cache(maxsize=8)
def _bicubic_fn(geometry: Geometry, size: Size) -> ResizeFn:
    """Return a function that equals the layers on images of `size` that grow, in operations that GPUs and XLA have.

    TensorFlow's bicubic operations run on CPUs only. Products of matrices would be in reduced precision on GPUs, so the four
    neighbours of each pixel are gathered and added up.
    """
    import tensorflow as tf

    rows, columns = (_bicubic_taps(length, min(size), geometry._side, geometry.image_size) for length in size)

    def interpolate(images: "tf.Tensor", axis: int, indices: np.ndarray, weights: np.ndarray) -> "tf.Tensor":
        shape = (-1, *[1] * (3 - axis))
        return tf.add_n([tf.gather(images, indices[:, tap], axis=axis) * weights[:, tap].reshape(shape) for tap in range(4)])

    def resize(images: "tf.Tensor") -> "tf.Tensor":
        widened = interpolate(tf.cast(images, tf.float32), 2, *columns)  # first, since rows of an image are contiguous in memory
        return tf.clip_by_value(interpolate(widened, 1, *rows), 0.0, 255.0)

    return resize


def _bicubic_taps(length: int, square: int, side: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the four source pixels of each pixel of one axis, int (image_size, 4), and their weights, float32 (image_size, 4).

    The middle `square` of `length` pixels grow to `side`, of which the middle `image_size` are returned. Pixels beyond the square have
    no weight.
    """
    positions = np.arange(image_size) + (side - image_size) // 2
    centres = (positions + 0.5) * square / side - 0.5
    indices = np.floor(centres).astype(int)[:, None] + np.arange(-1, 3)
    weights = _keys_kernel(np.abs(centres[:, None] - indices)) * ((indices >= 0) & (indices < square))
    weights /= weights.sum(axis=1, keepdims=True)
    return indices.clip(0, square - 1) + (length - square) // 2, weights.astype(np.float32)


def _keys_kernel(distances: np.ndarray) -> np.ndarray:
    """Return the weights of pixels at `distances` of 0 to 2 pixels (Keys 1981, a = -0.5)."""
    near = (1.5 * distances - 2.5) * distances**2 + 1
    far = ((-0.5 * distances + 2.5) * distances - 4) * distances + 2
    return np.where(distances <= 1, near, far)
