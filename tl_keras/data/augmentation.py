"""Stateless augmentation: the transformation of an image depends only on its seed.

So resumed runs, parallel maps and other batch sizes see the same pixels. Mixup and cutmix also depend on the batch. Images are
uint8 at source resolution, and resizing, the most expensive step, comes last. If an augmentation has a step that resizes, such as
`random_resized_crop`, the steps after it run at the size of the model's input. Only this module uses KerasCV, and imports it only
when an augmentation needs it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from tl_keras.data import augment_policies, image_ops, mixup
from tl_keras.data.augment_policies import Operation
from tl_keras.data.augmentation_arguments import CROP, JITTER, RESIZED_CROP, ROTATE, Arguments
from tl_keras.data.geometry import Geometry
from tl_keras.data.random_crop import random_crop, random_resized_crop
from tl_keras.data.stateless_random import uniform
from tl_keras.errors import ConfigError, MissingError, unknown
from tl_keras.utils import arguments as parsers

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SEPARATOR = "+"
NONE = "none"
CUTOUT_FRACTION, CUTOUT_GREY = 0.5, 128.0
RADIANS = 3.141592653589793 / 180

AugmentFn = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]
Mixer = Callable[["tf.Tensor", "tf.Tensor", "tf.Tensor"], mixup.Mixture]


@dataclass(frozen=True)
class AugmentationSpec:
    """The text form of an augmentation: an entry of `AUGMENTATIONS`.

    Attributes:
        name: name in the setting `augmentation`.
        description: one line for lists of augmentations.
        apply: the step: (images uint8 (b, h, w, 3), draws float32 (b, n), one keyword for each argument) -> images uint8.
        arguments: name -> default and parser of what may follow the name, as in `rotate:degrees=20`.
        mixer: function applied last, to a batch; see `mixup`.
        preset: the text that the name replaces; it has no step of its own then.
        resizes: True if the step returns images of the size of the model's input. `apply` then has the keyword `geometry`.
        needs_keras_cv: True if the step applies a layer of KerasCV.
    """

    name: str
    description: str
    apply: Callable[..., "tf.Tensor"] | None = None
    arguments: Arguments = field(default_factory=lambda: MappingProxyType({}))
    mixer: Mixer | None = None
    preset: str = ""
    resizes: bool = False
    needs_keras_cv: bool = False

    @property
    def usage(self) -> str:
        """The name with its arguments and their defaults, e.g. `rotate:degrees=10,interpolation=nearest`."""
        pairs = ",".join(f"{name}={argument.default}" for name, argument in self.arguments.items())
        return f"{self.name}:{pairs}" if pairs else self.name

    def defaults(self) -> dict[str, Any]:
        """Return the default of every argument."""
        return {name: argument.parse(argument.default) for name, argument in self.arguments.items()}

    def parse(self, text: str) -> dict[str, Any]:
        """Return the value of every argument. Raise ValueError, with what was expected, for a text that is not possible."""
        return self.defaults() | parsers.options(**{name: argument.parse for name, argument in self.arguments.items()})(text)


@dataclass(frozen=True)
class Step:
    """A step of an augmentation: `apply`, `resizes` and `needs_keras_cv` of its entry, and the values of its arguments."""

    apply: Callable[..., "tf.Tensor"]
    values: Mapping[str, Any]
    resizes: bool
    needs_keras_cv: bool

    def bind(self, geometry: Geometry) -> AugmentFn:
        """Return the function (images, draws) -> images, which resizes to the model's input of `geometry` if it resizes."""
        return partial(self.apply, **self.values, **({"geometry": geometry} if self.resizes else {}))


@dataclass(frozen=True)
class Augmentation:
    """A value of the setting `augmentation`: steps in sequence, applied to each image, and a mixer, applied to each batch."""

    steps: tuple[Step, ...] = ()
    mixer: Mixer | None = None

    @property
    def resizes(self) -> bool:
        """True if a step resizes to the model's input. Nothing else may resize then."""
        return any(step.resizes for step in self.steps)

    @property
    def needs_keras_cv(self) -> bool:
        """True if a step applies a layer of KerasCV."""
        return any(step.needs_keras_cv for step in self.steps)


def random_flip(images: "tf.Tensor", draws: "tf.Tensor") -> "tf.Tensor":
    """Mirror an image left to right with probability 0.5."""
    import tensorflow as tf

    return tf.where(draws[:, 0, None, None, None] < 0.5, images[:, :, ::-1], images)


def resize(images: "tf.Tensor", draws: "tf.Tensor", geometry: Geometry) -> "tf.Tensor":
    """Resize to the input of the model as test images are, and round. `draws` are unused."""
    return image_ops.to_uint8(geometry.resize(images))


def random_rotation(images: "tf.Tensor", draws: "tf.Tensor", degrees: float, interpolation: str) -> "tf.Tensor":
    """Rotate by up to `degrees` in either direction, and fill with black."""
    return rotate(images, _between(draws[:, 0], -degrees, degrees), interpolation)


def random_jitter(images: "tf.Tensor", draws: "tf.Tensor", brightness: float, contrast: float, saturation: float) -> "tf.Tensor":
    """Scale brightness, contrast and saturation in this order, each by a factor within its strength of 1.

    torchvision's ColorJitter is the same in a random order.
    """
    operations = ((image_ops.brightness, brightness), (image_ops.contrast, contrast), (saturate, saturation))
    for index, (operation, strength) in enumerate(operations):
        if strength:
            images = operation(images, _between(draws[:, index], 1 - strength, 1 + strength))
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


def rotate(images: "tf.Tensor", degrees: "tf.Tensor", interpolation: str = "bilinear") -> "tf.Tensor":
    """Rotate counter-clockwise around the centre, and fill with black. `interpolation` is `bilinear` or `nearest`."""
    rotation = _keras_cv_layers().RandomRotation(0.0, fill_mode="constant", interpolation=interpolation, dtype="float32")
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
        *others, last = [name for name in AUGMENTATIONS if not get_augmentation(name).needs_keras_cv]
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
    AugmentationSpec(NONE, "unchanged images"),
    AugmentationSpec("flip", "mirrored left to right at random", random_flip),
    AugmentationSpec("crop", "shifted by up to this many pixels over black", random_crop, CROP),
    AugmentationSpec(
        "random_resized_crop",
        "a random part by area and aspect ratio, resized to the model's input, where later steps run (Szegedy et al. 2015)",
        random_resized_crop,
        RESIZED_CROP,
        resizes=True,
    ),
    AugmentationSpec("resize", "resized as test images are; later steps run at the size of the model's input", resize, resizes=True),
    AugmentationSpec(
        "rotate",
        "rotated by up to this many degrees over black; interpolation nearest or bilinear",
        random_rotation,
        ROTATE,
        needs_keras_cv=True,
    ),
    AugmentationSpec(
        "jitter",
        "brightness, contrast and saturation scaled in this order, by up to these fractions",
        random_jitter,
        JITTER,
        needs_keras_cv=True,
    ),
    AugmentationSpec(
        "randaugment",
        "two of 14 operations at level 9 of 30 (Cubuk et al. 2020)",
        partial(augment_policies.rand_augment, operations=RAND_AUGMENT_OPERATIONS),
        needs_keras_cv=True,
    ),
    AugmentationSpec(
        "augmix",
        "three chains of one to three of 9 operations, mixed with the image (Hendrycks et al. 2020)",
        partial(augment_policies.augmix, operations=AUGMIX_OPERATIONS),
        needs_keras_cv=True,
    ),
    AugmentationSpec("cutout", "a grey square of half the shorter side (DeVries and Taylor 2017)", random_cutout, needs_keras_cv=True),
    AugmentationSpec("mixup", "weighted means of two images and of their labels (Zhang et al. 2018, alpha 1)", mixer=mixup.mixup),
    AugmentationSpec("cutmix", "a rectangle of another image, labels by area (Yun et al. 2019, alpha 1)", mixer=mixup.cutmix),
    AugmentationSpec("crop_flip", "at source resolution", preset="crop+flip"),
    AugmentationSpec("rotate10_flip", "at source resolution", preset="rotate:degrees=10,interpolation=bilinear+flip"),
    AugmentationSpec("flip_rotate20_jitter", "at source resolution", preset="flip+rotate:degrees=20,interpolation=bilinear+jitter"),
    AugmentationSpec(
        "resized_crop_flip_rotate20_jitter",
        "at the size of the model's input, as source report D was run",
        preset="random_resized_crop+flip+rotate:degrees=20+jitter",
    ),
)
AUGMENTATIONS: Mapping[str, AugmentationSpec] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def get_augmentation(text: str) -> Augmentation:
    """Return the augmentation that `text` describes: one or several entries joined by +, e.g. `crop:padding=2+flip+mixup`.

    Raises:
        ConfigError: A name or an argument is unknown or impossible, a name occurs twice, `none` is combined with others, two steps
            resize, or a mixer is not last.
    """
    names = [part.partition(":")[0] for part in text.split(SEPARATOR)]
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS, setting="augmentation", value=text)
    entries = [entry for part in text.split(SEPARATOR) for entry in _parse_entry(part, text)]
    if error := _find_error(names, [spec for spec, _ in entries]):
        raise ConfigError(f"{error}.", setting="augmentation", value=text)
    steps = [Step(spec.apply, values, spec.resizes, spec.needs_keras_cv) for spec, values in entries if spec.apply]
    return Augmentation(tuple(steps), entries[-1][0].mixer)


def _parse_entry(part: str, text: str) -> list[tuple[AugmentationSpec, dict[str, Any]]]:
    """Return an entry with the values of its arguments, or those that a preset replaces. `text` is the whole setting."""
    name, colon, argument = part.partition(":")
    spec = AUGMENTATIONS[name]
    if spec.preset and not colon:
        return [entry for part in spec.preset.split(SEPARATOR) for entry in _parse_entry(part, text)]
    if colon and not spec.arguments:
        hint = f" It stands for {spec.preset}." if spec.preset else ""
        raise ConfigError(f"{name} has no arguments.{hint}", setting="augmentation", value=text)
    try:
        return [(spec, spec.parse(argument) if colon else spec.defaults())]
    except ValueError as error:
        raise ConfigError(f"{name}: expected {error}.", setting="augmentation", value=text) from None


def _find_error(names: list[str], specs: list[AugmentationSpec]) -> str:
    """Return the error in a combination, or an empty string. `specs` are the entries after presets are replaced."""
    if twice := [name for name in AUGMENTATIONS if names.count(name) > 1]:
        return f"{twice[0]} occurs twice. Name each once"
    if NONE in names and len(names) > 1:
        return f"{NONE} leaves images unchanged. Leave it out"
    mixers, resizing = [spec.name for spec in specs if spec.mixer], [spec.name for spec in specs if spec.resizes]
    if len(mixers) > 1:
        return f"{' and '.join(mixers)} both mix the images of a batch. Choose one"
    if mixers and not specs[-1].mixer:
        return f"{mixers[0]} mixes finished images. Put it last"
    if len(resizing) > 1:
        return f"{' and '.join(resizing)} both resize to the model's input. Choose one"
    return ""


def augment_fn(text: str, geometry: Geometry) -> AugmentFn:
    """Return the per-image function of an augmentation: (images uint8 (b, h, w, 3), seeds int64 (b, 2)) -> images uint8.

    An image with the same seed gives the same result in any batch, eagerly and in `Dataset.map`. Images keep their size, unless a
    step resizes them to the model's input of `geometry`. The function raises MissingError if it needs KerasCV and that cannot be
    imported.
    """
    steps = [step.bind(geometry) for step in get_augmentation(text).steps]

    def apply(images: "tf.Tensor", seeds: "tf.Tensor") -> "tf.Tensor":
        for index, step in enumerate(steps):
            images = step(images, uniform(seeds, index))
        return images

    return apply


def mix_fn(text: str) -> Mixer | None:
    """Return the batch function of an augmentation, or None if it mixes nothing.

    The function maps (images (b, h, w, 3), targets float32 (b, classes), seeds int64 (b, 2)) to (images float32, targets float32).
    It gives the same result for the same batch.
    """
    augmentation = get_augmentation(text)
    mixer = augmentation.mixer
    if mixer is None:
        return None

    def apply(images: "tf.Tensor", targets: "tf.Tensor", seeds: "tf.Tensor") -> mixup.Mixture:
        return mixer(images, targets, uniform(seeds, len(augmentation.steps)))

    return apply
