"""Backbones by name, and the classifier built on one.

    model = build_classifier("resnet18", num_classes=10)
    model(images)  # RGB 0..255, (b, 224, 224, 3) -> float32 logits (b, 10)
    stage_layers(model, "resnet18")  # {"stem": (...), "layer1": (...), ..., "head": (...)}

Keras is imported inside the functions, so that `list backbones` and `--help` answer at once.
"""

import importlib
import re
from typing import TYPE_CHECKING

from tl_keras.backbones.normalization import NORMALIZATIONS, normalize
from tl_keras.backbones.registry import BACKBONES, INTERNAL, Backbone
from tl_keras.errors import ConfigError, unknown

if TYPE_CHECKING:
    import keras

__all__ = [
    "BACKBONES",
    "NORMALIZATIONS",
    "Backbone",
    "build_classifier",
    "check_image_size",
    "check_settings",
    "features_model",
    "get_backbone",
    "stage_layers",
]

HEAD = "head"
LOGITS = "logits"


def get_backbone(name: str) -> Backbone:
    """The row of BACKBONES; ConfigError with the nearest names where there is none."""
    if name not in BACKBONES:
        raise unknown("backbone", name, BACKBONES)
    return BACKBONES[name]


def check_image_size(backbone: Backbone, size: int) -> None:
    """ConfigError where `backbone` cannot take images of `size` x `size` pixels."""
    if size < backbone.min_size:
        raise ConfigError(
            f"{backbone.name} takes images of at least {backbone.min_size} pixels; "
            f"use `image_size={backbone.min_size}` or more, or 0 for its own {backbone.image_size}.",
            setting="image_size",
            value=size,
        )
    if size % backbone.size_multiple:
        multiple = backbone.size_multiple
        raise ConfigError(
            f"{backbone.name} takes images whose side is a multiple of {multiple}; "
            f"the nearest are {size // multiple * multiple} and {(size // multiple + 1) * multiple}.",
            setting="image_size",
            value=size,
        )


def check_settings(backbone: Backbone, *, image_size: int = 0, stem: str = "imagenet", normalization: str = "weights") -> int:
    """The side of the input in pixels (`image_size`, or the backbone's own for 0); ConfigError where a setting does not fit `backbone`."""
    size = image_size or backbone.image_size
    check_image_size(backbone, size)
    if stem not in backbone.stems:
        having = ", ".join(row.name for row in BACKBONES.values() if stem in row.stems)
        raise ConfigError(
            f"{backbone.name} has {', '.join(backbone.stems)}. Backbones with this stem: {having or 'none'}.",
            setting="stem",
            value=stem,
        )
    if normalization not in (*NORMALIZATIONS, "weights"):
        raise ConfigError(
            str(unknown("normalization", normalization, (*NORMALIZATIONS, "weights"))), setting="normalization", value=normalization
        )
    if normalization != "weights" and backbone.normalization == INTERNAL:
        raise ConfigError(
            f"{backbone.name} normalises inside the network; use `normalization=weights`.",
            setting="normalization",
            value=normalization,
        )
    return size


def build_classifier(
    name: str, num_classes: int, *, image_size: int = 0, stem: str = "imagenet", normalization: str = "weights"
) -> "keras.Model":
    """One flat functional model of stock Keras layers, with new weights.

    Args:
        name: a key of BACKBONES.
        num_classes: width of the new head, `logits`, a Dense layer with PyTorch's initial weights.
        image_size: side of the input in pixels; 0 is the backbone's own.
        stem: `imagenet`, or `cifar` for the rows whose `stems` have it.
        normalization: a key of NORMALIZATIONS, or `weights` for what the backbone's weights were trained with.

    Returns:
        A model from RGB 0..255, float32 (b, size, size, 3), to float32 logits (b, num_classes). The layers between compute in
        the global dtype policy.

    Raises:
        ConfigError: before anything is built, where the arguments do not fit the backbone.
    """
    backbone = get_backbone(name)
    size = check_settings(backbone, image_size=image_size, stem=stem, normalization=normalization)
    if num_classes < 2:
        raise ConfigError(f"num_classes={num_classes}: a classifier needs at least 2 classes.")
    return _assemble(backbone, num_classes, size, stem, backbone.normalization if normalization == "weights" else normalization)


def _assemble(backbone: Backbone, num_classes: int, size: int, stem: str, normalization: str) -> "keras.Model":
    import keras

    from tl_keras.backbones.layers import dense

    module, _, function = backbone.builder.partition(":")
    build = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    images = keras.Input((size, size, 3), dtype="float32", name="image")
    normalized = images if normalization == INTERNAL else normalize(images, normalization)
    stem_option = {"stem": stem} if len(backbone.stems) > 1 else {}
    features = build(normalized, **backbone.options, **stem_option)
    return keras.Model(images, dense(features, num_classes, LOGITS, dtype="float32"), name=backbone.name)


def features_model(model: "keras.Model") -> "keras.Model":
    """`model` without its head: from images to the features (b, channels) that the logits are made of. Weights are shared."""
    import keras

    return keras.Model(model.input, model.get_layer(LOGITS).input)


def stage_layers(model: "keras.Model", name: str) -> dict[str, tuple["keras.layers.Layer", ...]]:
    """The layers of each stage of a model that `build_classifier(name, ...)` made, in order; the rest is the `head`, the last key.

    A stage holds what its last layer is computed from and no earlier stage holds, so every layer lies in exactly one.
    """
    import keras

    stages: dict[str, tuple[keras.layers.Layer, ...]] = {}
    taken: set[str] = set()
    ends = {stage: keras.Model(model.input, model.get_layer(end).output) for stage, end in get_backbone(name).stages}
    for stage, part in (ends | {HEAD: model}).items():
        stages[stage] = tuple(layer for layer in part.layers if layer.name not in taken)
        taken.update(layer.name for layer in stages[stage])
    return stages


def variables_by_path(model: "keras.Model") -> dict[str, "keras.Variable"]:
    """The weights of `model` by a path that is the same in every build.

    It is `variable.path`, but where a layer of Keras (ConvNeXt's LayerScale) gives its variable no name: Keras numbers those on
    from one model to the next, and the number is left out here.
    """
    return {re.sub(r"/variable_\d+$", "/variable", variable.path): variable for variable in model.weights}
