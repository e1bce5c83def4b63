"""Classifiers on a backbone. Keras is imported inside the functions, so that names are listed without it."""

import importlib
import re
from typing import TYPE_CHECKING

from tl_keras.backbones.normalization import normalize, normalize_in_rows
from tl_keras.backbones.registry import INTERNAL, Backbone, get_backbone, resolve_image_size
from tl_keras.backbones.stages import HEAD, LOGITS
from tl_keras.errors import ConfigError

if TYPE_CHECKING:
    import keras

ONE_LOGIT = "one_logit"


def build_classifier(
    name: str,
    num_classes: int,
    *,
    image_size: int = 0,
    stem: str = "imagenet",
    normalization: str = "weights",
    head: str = "linear",
    head_dropout: float = 0.0,
) -> "keras.Model":
    """Build a flat functional model of stock Keras layers, with new weights.

    Args:
        name: name of a backbone, see `get_backbone`.
        num_classes: number of logits of the new head. Its Dense layer `logits` has PyTorch's initial weights.
        image_size: side of the input in pixels; 0 is the backbone's own.
        stem: `imagenet`, or `cifar` for the backbones whose `stems` include it.
        normalization: key of NORMALIZATIONS, or `weights` for the one that the backbone's weights were trained with.
        head: `linear`, or `one_logit` for two classes. `one_logit` computes one logit z and returns (0, z), so that their softmax
            is the sigmoid of z and softmax cross-entropy is binary cross-entropy.
        head_dropout: dropout rate before `logits`, besides any dropout of the backbone itself.

    Returns:
        A model from RGB 0..255, float32 (b, size, size, 3), to logits, float32 (b, num_classes). The layers between compute in
        the global dtype policy.

    Raises:
        ConfigError: an argument does not fit the backbone. Nothing has been built then.
    """
    backbone = get_backbone(name)
    size = resolve_image_size(backbone, image_size=image_size, stem=stem, normalization=normalization)
    if num_classes < 2:
        raise ConfigError(f"num_classes={num_classes}: a classifier needs at least 2 classes.")
    check_head(head, num_classes)
    import keras

    images, features = _features(backbone, size, stem, backbone.normalization if normalization == "weights" else normalization)
    model = keras.Model(images, _logits(features, num_classes, head, head_dropout), name=backbone.name)
    normalize_in_rows(model)
    return model


def check_head(head: str, num_classes: int) -> None:
    """Raise ConfigError if `head` cannot tell `num_classes` classes apart."""
    if head == ONE_LOGIT and num_classes != 2:
        raise ConfigError(
            f"one logit tells two classes apart, and there are {num_classes}. Use `head=linear`, or a `label` of two classes.",
            setting="head",
            value=head,
        )


def _features(backbone: Backbone, size: int, stem: str, normalization: str) -> "tuple[keras.KerasTensor, keras.KerasTensor]":
    """Return the input images and the features (b, channels) of `backbone`."""
    import keras

    module, _, function = backbone.builder.partition(":")
    build = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    images = keras.Input((size, size, 3), dtype="float32", name="image")
    normalized = images if normalization == INTERNAL else normalize(images, normalization)
    stem_option = {"stem": stem} if len(backbone.stems) > 1 else {}
    return images, build(normalized, **backbone.options, **stem_option)


def _logits(features: "keras.KerasTensor", num_classes: int, head: str, head_dropout: float) -> "keras.KerasTensor":
    """Return the logits (b, num_classes) of features (b, channels)."""
    import keras

    from tl_keras.backbones.layers import dense

    if head_dropout:
        features = keras.layers.Dropout(head_dropout, name="head_dropout")(features)
    logits = dense(features, 1 if head == ONE_LOGIT else num_classes, LOGITS, dtype="float32")
    return keras.ops.pad(logits, ((0, 0), (1, 0))) if head == ONE_LOGIT else logits


def feature_extractor(model: "keras.Model") -> "keras.Model":
    """Return `model` without its head: from images to the features (b, channels). Weights are shared."""
    import keras

    return keras.Model(model.input, model.get_layer(LOGITS).input)


def stage_layers(model: "keras.Model", name: str) -> dict[str, tuple["keras.layers.Layer", ...]]:
    """Return the layers of each stage of a model from `build_classifier(name, ...)`, in order.

    Every layer belongs to exactly one stage: the first whose last layer depends on it. The last key, `head`, has the rest.
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
    """Return the weights of `model` by `stable_path`."""
    return {stable_path(variable.path): variable for variable in model.weights}


def stable_path(path: str) -> str:
    """Return the path of a variable without the number of unnamed ones (ConvNeXt's LayerScale), which Keras counts across models."""
    return re.sub(r"/variable_\d+$", "/variable", path)
