"""Backbones by name, their stages, and the classifier built on one.

    model = build_classifier("resnet18", num_classes=10)
    model(images)  # RGB 0..255, float32 (b, 224, 224, 3) -> logits, float32 (b, 10)
    stage_layers(model, "resnet18")  # {"stem": (...), "layer1": (...), ..., "head": (...)}

Importing this package does not import Keras, so that `list backbones` and `--help` answer at once.
"""

from tl_keras.backbones.classifier import build_classifier, check_head, feature_extractor, stable_path, stage_layers, variables_by_path
from tl_keras.backbones.normalization import NORMALIZATIONS
from tl_keras.backbones.registry import (
    BACKBONES,
    INTERNAL,
    Backbone,
    check_image_size,
    get_backbone,
    resnet_equivalent_stages,
    resolve_image_size,
)
from tl_keras.backbones.stages import HEAD, LOGITS

__all__ = [
    "BACKBONES",
    "HEAD",
    "INTERNAL",
    "LOGITS",
    "NORMALIZATIONS",
    "Backbone",
    "build_classifier",
    "check_head",
    "check_image_size",
    "feature_extractor",
    "get_backbone",
    "resnet_equivalent_stages",
    "resolve_image_size",
    "stable_path",
    "stage_layers",
    "variables_by_path",
]
