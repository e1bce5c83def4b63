"""Classifiers on a backbone. Keras is imported inside the functions, so that names are listed without it."""

import importlib
import re
from typing import TYPE_CHECKING

from tl_keras.backbones.normalization import normalize
from tl_keras.backbones.registry import INTERNAL, Backbone, get_backbone, resolve_image_size
from tl_keras.backbones.stages import HEAD, LOGITS
from tl_keras.errors import ConfigError

if TYPE_CHECKING:
    import keras


def build_classifier(
    name: str, num_classes: int, *, image_size: int = 0, stem: str = "imagenet", normalization: str = "weights"
) -> "keras.Model":
    """Build a flat functional model of stock Keras layers, with new weights.

    Args:
        name: name of a backbone, see `get_backbone`.
        num_classes: width of the new head `logits`, a Dense layer with PyTorch's initial weights.
        image_size: side of the input in pixels; 0 is the backbone's own.
        stem: `imagenet`, or `cifar` for the backbones whose `stems` include it.
        normalization: key of NORMALIZATIONS, or `weights` for the one that the backbone's weights were trained with.

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
    return _assemble(backbone, num_classes, size, stem, backbone.normalization if normalization == "weights" else normalization)


def _assemble(backbone: Backbone, num_classes: int, size: int, stem: str, normalization: str) -> "keras.Model":
    import keras

    from tl_keras.backbones.layers import dense

    module, _, function = backbone.builder.partition(":")
    build = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    images = keras.Input((size, size, 3), dtype="float32", name="image")
    normalized = images if normalization == INTERNAL else normalize(images, normalization)
    stem_option = {"stem": stem} if len(backbone.stems) > 1 else {}
    features = build(normalized, **backbone.options, **stem_option)
    return keras.Model(images, dense(features, num_classes, LOGITS, dtype="float32"), name=backbone.name)


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
    """Return the weights of `model` by a path that is the same in every build.

    It is `variable.path` without the number of unnamed variables (ConvNeXt's LayerScale), which Keras counts across models.
    """
    return {re.sub(r"/variable_\d+$", "/variable", variable.path): variable for variable in model.weights}
