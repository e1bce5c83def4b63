"""Stateless augmentation: the transformation of an image depends only on its seed.

So resumed runs, parallel maps and other batch sizes see the same pixels. Mixup and cutmix also depend on the batch. Images are
uint8 at source resolution; resizing is the most expensive step and comes last. Only this module uses KerasCV, and imports it only
when an augmentation needs it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

from tl_keras.data import augment_policies, image_ops, mixup
from tl_keras.data.augment_policies import Operation
from tl_keras.data.stateless_random import uniform
from tl_keras.errors import ConfigError, MissingError, unknown

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SEPARATOR = "+"
NONE = "none"
JITTER = 0.2
CUTOUT_FRACTION, CUTOUT_GREY = 0.5, 128.0
RADIANS = 3.141592653589793 / 180

Step = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]
Mixer = Callable[["tf.Tensor", "tf.Tensor", "tf.Tensor"], mixup.Mixture]


@dataclass(frozen=True)
class Augmentation:
    """An entry of `AUGMENTATIONS`, or several entries joined by +.

    Attributes:
        name: value of the setting `augmentation`.
        description: one line for lists of augmentations.
        steps: functions applied in sequence to each image: (images uint8 (b, h, w, 3), draws float32 (b, n)) -> images uint8.
        mixer: function applied last, to a batch; see `mixup`.
        needs_keras_cv: True if a step applies a layer of KerasCV.
    """

    name: str
    description: str
    steps: tuple[Step, ...] = ()
    mixer: Mixer | None = None
    needs_keras_cv: bool = False


def random_flip(images: "tf.Tensor", draws: "tf.Tensor") -> "tf.Tensor":
    """Mirror an image left to right with probability 0.5."""
    import tensorflow as tf

    return tf.where(draws[:, 0, None, None, None] < 0.5, images[:, :, ::-1], images)


def random_crop(images: "tf.Tensor", draws: "tf.Tensor", padding: int = 4) -> "tf.Tensor":
    """Shift by up to `padding` pixels in each direction and fill with black, as torchvision's RandomCrop(size, padding)."""
    import tensorflow as tf

    shape = tf.shape(images)
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    offsets = tf.cast(draws[:, :2] * (2 * padding + 1), tf.int32)
    rows = offsets[:, 0, None] + tf.range(shape[1])
    columns = offsets[:, 1, None] + tf.range(shape[2])
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def random_rotation(images: "tf.Tensor", draws: "tf.Tensor", degrees: float = 10.0) -> "tf.Tensor":
    """Rotate by up to `degrees` in either direction."""
    return rotate(images, _between(draws[:, 0], -degrees, degrees))


def random_jitter(images: "tf.Tensor", draws: "tf.Tensor") -> "tf.Tensor":
    """Scale brightness, contrast and saturation in this order, each by a factor in [0.8, 1.2].

    torchvision's ColorJitter(0.2, 0.2, 0.2) is the same in a random order.
    """
    for index, operation in enumerate((image_ops.brightness, image_ops.contrast, saturate)):
        images = operation(images, _between(draws[:, index], 1 - JITTER, 1 + JITTER))
    return images


def random_cutout(images: "tf.Tensor", draws: "tf.Tensor") -> "tf.Tensor":
    """Fill a square of half the shorter side with grey (DeVries and Taylor 2017: 16 of 32 pixels).

    Its centre is anywhere in the image, so part of it may be outside.
    """
    import tensorflow as tf

    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(images)[1:3]))
    sides = tf.fill([tf.shape(images)[0]], tf.round(CUTOUT_FRACTION * tf.minimum(height, width)))
    rectangles = {
        "centers_x": tf.floor(draws[:, 0] * width),
        "centers_y": tf.floor(draws[:, 1] * height),
        "rectangles_width": sides,
        "rectangles_height": sides,
    }
    cutout = _keras_cv_layers().RandomCutout(CUTOUT_FRACTION, CUTOUT_FRACTION, fill_value=CUTOUT_GREY, dtype="float32")
    return _apply_layer(cutout, images, rectangles)


def _between(draws: "tf.Tensor", low: float, high: float) -> "tf.Tensor":
    return low + (high - low) * draws


def rotate(images: "tf.Tensor", degrees: "tf.Tensor") -> "tf.Tensor":
    """Rotate counter-clockwise around the centre with bilinear interpolation, and fill with black."""
    rotation = _keras_cv_layers().RandomRotation(0.0, fill_mode="constant", dtype="float32")
    return _apply_layer(rotation, images, {"angles": degrees * RADIANS})


def shear(images: "tf.Tensor", slopes: "tf.Tensor", axis: str) -> "tf.Tensor":
    """Shift each row (axis x) or column (axis y) by its index times the slope, and fill with black."""
    layer = _keras_cv_layers().RandomShear(0.0, 0.0, fill_mode="constant", dtype="float32")
    return _apply_layer(layer, images, {"shear_x": None, "shear_y": None, f"shear_{axis}": slopes[:, None]})


def translate(images: "tf.Tensor", fractions: "tf.Tensor", axis: str) -> "tf.Tensor":
    """Shift by fractions of the width (axis x) or the height (axis y), and fill with black."""
    zeros = fractions[:, None] * 0
    x, y = (fractions[:, None], zeros) if axis == "x" else (zeros, fractions[:, None])
    layer = _keras_cv_layers().RandomTranslation(0.0, 0.0, fill_mode="constant", dtype="float32")
    return _apply_layer(layer, images, {"width_translations": x, "height_translations": y})


def autocontrast(images: "tf.Tensor", values: "tf.Tensor") -> "tf.Tensor":
    """Stretch each channel to 0..255. `values` are unused."""
    return _apply_layer(_keras_cv_layers().AutoContrast((0, 255), dtype="float32"), images, None)


def solarize(images: "tf.Tensor", thresholds: "tf.Tensor") -> "tf.Tensor":
    """Invert pixels that are not below the threshold."""
    limits = thresholds[:, None, None, None]
    layer = _keras_cv_layers().Solarization((0, 255), dtype="float32")
    return _apply_layer(layer, images, {"thresholds": limits, "additions": 0 * limits})


def saturate(images: "tf.Tensor", factors: "tf.Tensor") -> "tf.Tensor":
    """Scale the difference from greyscale: 0 gives greyscale, 1 the image."""
    layer = _keras_cv_layers().RandomColorDegeneration(0.0, dtype="float32")
    return _apply_layer(layer, images, 1 - factors[:, None, None, None])


def _apply_layer(layer: "keras.layers.Layer", images: "tf.Tensor", transformations: object) -> "tf.Tensor":
    """Apply a KerasCV layer with given transformations instead of those that it would draw from its own generator."""
    import tensorflow as tf

    return image_ops.to_uint8(layer.augment_images(tf.cast(images, tf.float32), transformations=transformations))


def _keras_cv_layers() -> ModuleType:
    """Return `keras_cv.layers`.

    Raises:
        MissingError: KerasCV is not installed, or does not work with the installed Keras.
    """
    try:
        from keras_cv import layers
    except (ImportError, AttributeError) as error:
        *others, last = [entry.name for entry in AUGMENTATIONS.values() if not entry.needs_keras_cv]
        raise MissingError(
            f"This augmentation needs KerasCV, which cannot be imported ({error}). Install it with "
            "`pip install 'keras-cv>=0.9,<0.10'`, or choose an `augmentation` that does not need it: "
            f"{', '.join(others)} or {last}."
        ) from error
    return layers


# Ranges of AutoAugment (Cubuk et al. 2019): `span` is the change at level 1.
_GEOMETRY = (
    Operation(rotate, span=30.0, signed=True),
    Operation(partial(shear, axis="x"), span=0.3, signed=True),
    Operation(partial(shear, axis="y"), span=0.3, signed=True),
    Operation(partial(translate, axis="x"), span=150 / 331, signed=True),
    Operation(partial(translate, axis="y"), span=150 / 331, signed=True),
)
_TONES = (
    Operation(autocontrast),
    Operation(image_ops.equalize),
    Operation(image_ops.posterize, neutral=8.0, span=-4.0),
    Operation(solarize, neutral=255.0, span=-255.0),
)
_COLOURS = tuple(
    Operation(factor, neutral=1.0, span=0.9, signed=True)
    for factor in (image_ops.brightness, image_ops.contrast, saturate, image_ops.sharpness)
)
RAND_AUGMENT_OPERATIONS = (Operation(image_ops.identity), *_GEOMETRY, *_TONES, *_COLOURS)
AUGMIX_OPERATIONS = (*_GEOMETRY, *_TONES)

_ENTRIES = (
    Augmentation(NONE, "unchanged images"),
    Augmentation("flip", "mirrored left to right at random", (random_flip,)),
    Augmentation("crop_flip", "shifted by up to 4 source pixels over black, and mirrored at random", (random_crop, random_flip)),
    Augmentation(
        "rotate10_flip",
        "rotated by up to 10 degrees over black, and mirrored at random",
        (random_rotation, random_flip),
        needs_keras_cv=True,
    ),
    Augmentation(
        "flip_rotate20_jitter",
        "mirrored, rotated by up to 20 degrees over black; brightness, contrast and saturation changed by up to 20 %",
        (random_flip, partial(random_rotation, degrees=20.0), random_jitter),
        needs_keras_cv=True,
    ),
    Augmentation(
        "randaugment",
        "two of 14 operations at level 9 of 30 (Cubuk et al. 2020)",
        (partial(augment_policies.rand_augment, operations=RAND_AUGMENT_OPERATIONS),),
        needs_keras_cv=True,
    ),
    Augmentation(
        "augmix",
        "three chains of one to three of 9 operations, mixed with the image (Hendrycks et al. 2020)",
        (partial(augment_policies.augmix, operations=AUGMIX_OPERATIONS),),
        needs_keras_cv=True,
    ),
    Augmentation("cutout", "a grey square of half the shorter side (DeVries and Taylor 2017)", (random_cutout,), needs_keras_cv=True),
    Augmentation("mixup", "weighted means of two images and of their labels (Zhang et al. 2018, alpha 1)", mixer=mixup.mixup),
    Augmentation("cutmix", "a rectangle of another image, labels by area (Yun et al. 2019, alpha 1)", mixer=mixup.cutmix),
)
AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def get_augmentation(name: str) -> Augmentation:
    """Return the entry `name`, or several joined by +, e.g. `crop_flip+mixup`. A mixer must be last.

    Raises:
        ConfigError: A name is unknown or occurs twice, `none` is combined with others, or a mixer is not last.
    """
    parts = name.split(SEPARATOR)
    for part in parts:
        if part not in AUGMENTATIONS:
            raise unknown("augmentation", part, AUGMENTATIONS)
    entries = [AUGMENTATIONS[part] for part in parts]
    if error := _find_error(parts, entries):
        raise ConfigError(f"{error}.", setting="augmentation", value=name)
    if len(entries) == 1:
        return entries[0]
    description = "; then ".join(entry.description for entry in entries)
    steps = tuple(step for entry in entries for step in entry.steps)
    return Augmentation(name, description, steps, entries[-1].mixer, any(entry.needs_keras_cv for entry in entries))


def _find_error(parts: list[str], entries: list[Augmentation]) -> str:
    """Return the error in a combination, or an empty string."""
    if twice := [part for part in AUGMENTATIONS if parts.count(part) > 1]:
        return f"{twice[0]} occurs twice. Name each once"
    if NONE in parts and len(parts) > 1:
        return f"{NONE} leaves images unchanged. Leave it out"
    mixers = [entry.name for entry in entries if entry.mixer]
    if len(mixers) > 1:
        return f"{' and '.join(mixers)} both mix the images of a batch. Choose one"
    if mixers and not entries[-1].mixer:
        return f"{mixers[0]} mixes finished images. Put it last"
    return ""


def augment_fn(name: str) -> Step:
    """Return the per-image function of an augmentation: (images uint8 (b, h, w, 3), seeds int64 (b, 2)) -> images uint8.

    An image with the same seed gives the same result in any batch, eagerly and in `Dataset.map`. The function raises MissingError
    if it needs KerasCV and that cannot be imported.
    """
    steps = get_augmentation(name).steps

    def apply(images: "tf.Tensor", seeds: "tf.Tensor") -> "tf.Tensor":
        for index, step in enumerate(steps):
            images = step(images, uniform(seeds, index))
        return images

    return apply


def mix_fn(name: str) -> Mixer | None:
    """Return the batch function of an augmentation, or None if it mixes nothing.

    The function maps (images (b, h, w, 3), targets float32 (b, classes), seeds int64 (b, 2)) to (images float32, targets float32).
    It gives the same result for the same batch.
    """
    augmentation = get_augmentation(name)
    mixer = augmentation.mixer
    if mixer is None:
        return None

    def apply(images: "tf.Tensor", targets: "tf.Tensor", seeds: "tf.Tensor") -> mixup.Mixture:
        return mixer(images, targets, uniform(seeds, len(augmentation.steps)))

    return apply
