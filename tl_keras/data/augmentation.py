"""Augmentation without state: what happens to an image depends on its own seed alone. The only module that uses KerasCV.

So a resumed run, a parallel map and another batch size see the very same pixels; but mixtures, which depend on the batch. All of it works
on uint8 images at their source resolution: resizing comes last, and is the dearest step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from tl_keras.data import augment_policies, image_ops, mixup
from tl_keras.data.augment_policies import Operation
from tl_keras.data.stateless_random import uniform
from tl_keras.errors import ConfigError, unknown

if TYPE_CHECKING:
    import tensorflow as tf

SEPARATOR = "+"
NONE = "none"
JITTER = 0.2
CUTOUT_SHARE, CUTOUT_GREY = 0.5, 128.0
RADIANS = 3.141592653589793 / 180

Step = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]
Mixer = Callable[["tf.Tensor", "tf.Tensor", "tf.Tensor"], mixup.Mixture]


@dataclass(frozen=True)
class Augmentation:
    """A row of `AUGMENTATIONS`, or several joined by +.

    Attributes:
        steps: done one after the other to each image: (images uint8 (b, h, w, 3), draws float32 (b, n)) -> images uint8.
        mixer: done last, to a batch; see `mixing`.
    """

    name: str
    description: str
    steps: tuple[Step, ...] = ()
    mixer: Mixer | None = None


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
    return rotate(images, _between(draws[:, 0], -degrees, degrees))


def random_jitter(images: "tf.Tensor", draws: "tf.Tensor") -> "tf.Tensor":
    """Brightness, contrast and saturation, in this order, each by a factor in [0.8, 1.2]: torchvision's ColorJitter(0.2, 0.2, 0.2)."""
    for number, operation in enumerate((image_ops.brightness, image_ops.contrast, saturate)):
        images = operation(images, _between(draws[:, number], 1 - JITTER, 1 + JITTER))
    return images


def random_cutout(images: "tf.Tensor", draws: "tf.Tensor") -> "tf.Tensor":
    """Grey out a square of half the shorter side, centred anywhere and so partly outside (DeVries and Taylor 2017: 16 of 32 pixels)."""
    import tensorflow as tf
    from keras_cv.layers import RandomCutout

    cutout = RandomCutout(CUTOUT_SHARE, CUTOUT_SHARE, fill_value=CUTOUT_GREY, dtype="float32")
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(images)[1:3]))
    sides = tf.fill([tf.shape(images)[0]], tf.round(CUTOUT_SHARE * tf.minimum(height, width)))
    rectangles = {
        "centers_x": tf.floor(draws[:, 0] * width),
        "centers_y": tf.floor(draws[:, 1] * height),
        "rectangles_width": sides,
        "rectangles_height": sides,
    }
    return image_ops.to_uint8(cutout.augment_images(tf.cast(images, tf.float32), rectangles))


def _between(draws: "tf.Tensor", low: float, high: float) -> "tf.Tensor":
    return low + (high - low) * draws


def rotate(images: "tf.Tensor", degrees: "tf.Tensor") -> "tf.Tensor":
    """Turn counter-clockwise around the centre, over black."""
    from keras_cv.layers import RandomRotation

    return _layer(images, RandomRotation(0.0, fill_mode="constant", dtype="float32"), {"angles": degrees * RADIANS})


def shear(images: "tf.Tensor", slopes: "tf.Tensor", axis: str) -> "tf.Tensor":
    """Shift each row (axis x) or column (y) by `slopes` times its number, over black."""
    from keras_cv.layers import RandomShear

    slanted = {"shear_x": None, "shear_y": None, f"shear_{axis}": slopes[:, None]}
    return _layer(images, RandomShear(0.0, 0.0, fill_mode="constant", dtype="float32"), slanted)


def translate(images: "tf.Tensor", shares: "tf.Tensor", axis: str) -> "tf.Tensor":
    """Shift by shares of the width (axis x) or the height (y), over black."""
    from keras_cv.layers import RandomTranslation

    still = shares[:, None] * 0
    x, y = (shares[:, None], still) if axis == "x" else (still, shares[:, None])
    shifted = {"width_translations": x, "height_translations": y}
    return _layer(images, RandomTranslation(0.0, 0.0, fill_mode="constant", dtype="float32"), shifted)


def autocontrast(images: "tf.Tensor", values: "tf.Tensor") -> "tf.Tensor":
    """Stretch each channel to 0..255; takes no value."""
    from keras_cv.layers import AutoContrast

    return _layer(images, AutoContrast((0, 255), dtype="float32"), None)


def solarize(images: "tf.Tensor", thresholds: "tf.Tensor") -> "tf.Tensor":
    """Invert what is not below the threshold."""
    from keras_cv.layers import Solarization

    limits = thresholds[:, None, None, None]
    return _layer(images, Solarization((0, 255), dtype="float32"), {"thresholds": limits, "additions": 0 * limits})


def saturate(images: "tf.Tensor", factors: "tf.Tensor") -> "tf.Tensor":
    """Multiply what differs from grey: 0 is greyscale, 1 the image."""
    from keras_cv.layers import RandomColorDegeneration

    return _layer(images, RandomColorDegeneration(0.0, dtype="float32"), 1 - factors[:, None, None, None])


def _layer(images: "tf.Tensor", layer: object, transformations: object) -> "tf.Tensor":
    """What a KerasCV layer does to images once its parameters are drawn."""
    import tensorflow as tf

    return image_ops.to_uint8(layer.augment_images(tf.cast(images, tf.float32), transformations=transformations))


# The ranges of AutoAugment (Cubuk et al. 2019), at level 1.
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

_ROWS = (
    Augmentation(NONE, "the images as they are"),
    Augmentation("flip", "mirrored left to right at random", (random_flip,)),
    Augmentation("crop_flip", "shifted by up to 4 source pixels over black, and mirrored at random", (random_crop, random_flip)),
    Augmentation("rotate10_flip", "turned by up to 10 degrees over black, and mirrored at random", (random_rotation, random_flip)),
    Augmentation(
        "flip_rotate20_jitter",
        "mirrored, turned by up to 20 degrees over black, brightness, contrast and saturation by up to 20 %",
        (random_flip, partial(random_rotation, degrees=20.0), random_jitter),
    ),
    Augmentation(
        "randaugment",
        "two of 14 operations at level 9 of 30 (Cubuk et al. 2020)",
        (partial(augment_policies.rand_augment, operations=RAND_AUGMENT_OPERATIONS),),
    ),
    Augmentation(
        "augmix",
        "three chains of one to three of 9 operations, mixed with the image (Hendrycks et al. 2020)",
        (partial(augment_policies.augmix, operations=AUGMIX_OPERATIONS),),
    ),
    Augmentation("cutout", "a grey square of half the shorter side (DeVries and Taylor 2017)", (random_cutout,)),
    Augmentation("mixup", "weighted means of two images and of their labels (Zhang et al. 2018, alpha 1)", mixer=mixup.mixup),
    Augmentation("cutmix", "a rectangle of another image, labels by area (Yun et al. 2019, alpha 1)", mixer=mixup.cutmix),
)
AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType({row.name: row for row in _ROWS})


def get_augmentation(name: str) -> Augmentation:
    """The row `name`, or those joined by + in one, e.g. `crop_flip+mixup`; what mixes the images of a batch comes last.

    Raises:
        ConfigError: an unknown name, one that is there twice, `none` with others, or a mixer that is not the last.
    """
    parts = name.split(SEPARATOR)
    for part in parts:
        if part not in AUGMENTATIONS:
            raise unknown("augmentation", part, AUGMENTATIONS)
    rows = [AUGMENTATIONS[part] for part in parts]
    if fault := _fault(parts, rows):
        raise ConfigError(f"{fault}.", setting="augmentation", value=name)
    if len(rows) == 1:
        return rows[0]
    description = "; then ".join(row.description for row in rows)
    return Augmentation(name, description, tuple(step for row in rows for step in row.steps), rows[-1].mixer)


def _fault(parts: list[str], rows: list[Augmentation]) -> str:
    """What is wrong with a combination, or nothing."""
    if twice := [part for part in AUGMENTATIONS if parts.count(part) > 1]:
        return f"{twice[0]} is there twice. Name each once"
    if NONE in parts and len(parts) > 1:
        return f"{NONE} leaves the images as they are. Leave it out"
    mixers = [row.name for row in rows if row.mixer]
    if len(mixers) > 1:
        return f"{' and '.join(mixers)} both mix the images of a batch. Choose one"
    if mixers and not rows[-1].mixer:
        return f"{mixers[0]} mixes finished images. Put it last"
    return ""


def augment(name: str) -> Step:
    """What an augmentation does to each image: (images uint8 (b, h, w, 3), seeds int64 (b, 2)) -> images uint8 (b, h, w, 3).

    An image with the same seed comes out the same in any batch, eagerly and in `Dataset.map`.
    """
    steps = get_augmentation(name).steps

    def apply(images: "tf.Tensor", seeds: "tf.Tensor") -> "tf.Tensor":
        for number, step in enumerate(steps):
            images = step(images, uniform(seeds, number))
        return images

    return apply


def mix(name: str) -> Mixer | None:
    """What an augmentation does to a batch, if anything: (images (b, h, w, 3), targets float32 (b, classes), seeds int64 (b, 2)) ->
    (images float32, targets float32), the same for the same batch.
    """
    augmentation = get_augmentation(name)
    if augmentation.mixer is None:
        return None

    def apply(images: "tf.Tensor", targets: "tf.Tensor", seeds: "tf.Tensor") -> mixup.Mixture:
        return augmentation.mixer(images, targets, uniform(seeds, len(augmentation.steps)))

    return apply
