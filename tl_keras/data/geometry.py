"""Geometry: how images of any size become the square inputs of a model. Keras is imported when a resize is built.

Resizing can happen in two places. The input pipeline resizes on the CPU, in float32. If all images have one size and grow, the
pipeline can leave them as uint8 and the device resizes them: 224 x 224 pixels in float32 are 200 times the bytes of CIFAR's
32 x 32 in uint8.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

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
        source_size: (height, width) of all source images; None if they differ or if the pipeline shall resize in any case.
    """

    image_size: int
    crop_fraction: float
    source_size: Size | None = None

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

        They crop the centre to a square, resize it bilinearly to `image_size / crop_fraction`, and crop the centre of that.
        Antialiasing does not change images that grow, but takes three times as long.
        """
        import keras

        return [
            keras.layers.Rescaling(1.0, dtype="float32"),  # Resizing would round its result for integer inputs.
            keras.layers.Resizing(self._side, self._side, crop_to_aspect_ratio=True, antialias=antialias, dtype="float32"),
            keras.layers.CenterCrop(self.image_size, self.image_size, dtype="float32"),
        ]

    def resize(self, images: "tf.Tensor") -> "tf.Tensor":
        """Resize images (b, h, w, 3), uint8 or float32, to float32 (b, image_size, image_size, 3)."""
        return _resize_fn(self.in_pipeline(), tuple(images.shape[1:3]))(images)

    def pipeline_resize(self, size: Size | None) -> ResizeFn | None:
        """Return what the pipeline does to images of `size` (None: of several sizes), or None if the device resizes."""
        return None if self.resizes_on_device else _resize_fn(self.in_pipeline(), size or (None, None))

    def device_resize(self) -> ResizeFn | None:
        """Return what the device does to images of `source_size`, or None if the pipeline resizes."""
        return _resize_fn(self.in_pipeline(), self.source_size) if self.source_size and self.resizes_on_device else None

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
