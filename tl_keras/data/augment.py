"""Augmentation without state: what happens to an image depends on its own seed alone. The only module that uses KerasCV.

So a resumed run, a parallel map and another batch size see the very same pixels. All of it works on uint8 images at their
source resolution: resizing comes last, and is the dearest step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from tl_keras.errors import unknown

if TYPE_CHECKING:
    import tensorflow as tf

MAX_DRAWS = 4


@dataclass(frozen=True)
class Augmentation:
    """A row of `AUGMENTATIONS`: a name, what it does, and its steps, each (images, draws) -> images; see `augment`."""

    name: str
    description: str
    steps: tuple[Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"], ...]


def random_flip(images: "tf.Tensor", draws: "tf.Tensor") -> "tf.Tensor":
    """Mirror every other image, on average, left to right."""
    import tensorflow as tf

    return tf.where(draws[:, 0, None, None, None] < 0.5, images[:, :, ::-1], images)


def random_crop(images: "tf.Tensor", draws: "tf.Tensor", padding: int = 4) -> "tf.Tensor":
    """Shift by up to `padding` pixels each way, filling with black: torchvision's RandomCrop(size, padding)."""
    import tensorflow as tf

    shape = tf.shape(images)
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    offsets = tf.cast(draws[:, :2] * (2 * padding + 1), tf.int32)
    rows = offsets[:, 0, None] + tf.range(shape[1])
    columns = offsets[:, 1, None] + tf.range(shape[2])
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def random_rotation(images: "tf.Tensor", draws: "tf.Tensor", degrees: float = 10.0) -> "tf.Tensor":
    """Turn by up to `degrees` either way around the centre, bilinearly, filling with black."""
    import tensorflow as tf
    from keras_cv.layers import RandomRotation

    rotation = RandomRotation(factor=degrees / 360, fill_mode="constant", interpolation="bilinear", dtype="float32")
    angles = (2 * draws[:, 0] - 1) * (degrees * 3.141592653589793 / 180)
    turned = rotation.augment_images(images, transformations={"angles": angles})
    return tf.saturate_cast(tf.round(turned), tf.uint8)


_ROWS = (
    Augmentation("none", "the images as they are", ()),
    Augmentation("flip", "mirrored left to right at random", (random_flip,)),
    Augmentation("crop_flip", "shifted by up to 4 source pixels over black, and mirrored at random", (random_crop, random_flip)),
    Augmentation("rotate10_flip", "turned by up to 10 degrees over black, and mirrored at random", (random_rotation, random_flip)),
)
AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType({row.name: row for row in _ROWS})


def get_augmentation(name: str) -> Augmentation:
    """The row `name`; ConfigError with all names where there is none."""
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name]


def augment(name: str) -> Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]:
    """The function of an augmentation: (images uint8 (b, h, w, 3), seeds int64 (b, 2)) -> images uint8 (b, h, w, 3).

    An image with the same seed comes out the same in any batch, eagerly and in `Dataset.map`.
    """
    steps = get_augmentation(name).steps

    def apply(images: "tf.Tensor", seeds: "tf.Tensor") -> "tf.Tensor":
        for number, step in enumerate(steps):
            images = step(images, _uniform(seeds, number))
        return images

    return apply


def _uniform(seeds: "tf.Tensor", step: int) -> "tf.Tensor":
    """Draws in [0, 1), float32 (b, MAX_DRAWS): of each row, its own, from its seed and the number of the step (SplitMix64).

    TensorFlow's stateless generators take one seed a call: a call for each image costs more than the augmentation.
    """
    import tensorflow as tf

    words = tf.bitcast(tf.cast(seeds, tf.int64), tf.uint64)
    row = _mix(tf.bitwise.bitwise_xor(_mix(words[:, 0]), words[:, 1]))
    counters = tf.cast(tf.range(1, MAX_DRAWS + 1) + step * MAX_DRAWS, tf.uint64) * tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    bits = tf.bitwise.right_shift(_mix(row[:, None] + counters), tf.constant(40, tf.uint64))
    return tf.cast(bits, tf.float32) * 2.0**-24


def _mix(words: "tf.Tensor") -> "tf.Tensor":
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    import tensorflow as tf

    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        shifted = tf.bitwise.right_shift(words, tf.constant(shift, tf.uint64))
        words = tf.bitwise.bitwise_xor(words, shifted) * tf.constant(factor, tf.uint64)
    return words
