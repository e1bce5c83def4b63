"""The backbones by name, with their builders, stages and settings. It needs no Keras."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from tl_keras.backbones import stages
from tl_keras.backbones.normalization import IMAGENET_STD, NORMALIZATIONS
from tl_keras.backbones.stages import Stages
from tl_keras.errors import ConfigError, unknown

INTERNAL = "internal"

# Weight groups: BatchNormalization layers; biases, with the beta of every norm; query and value projections of attention.
BATCH_NORM, BIAS, ATTENTION = "batchnorm", "bias", "attention"
BIAS_ONLY = frozenset({BIAS})


@dataclass(frozen=True)
class Backbone:
    """A backbone: a model without its classifier.

    Attributes:
        name: value of the setting `backbone`.
        builder: `module:function` in this package, from normalised images (b, h, w, 3) to features (b, channels).
        stages: (stage, name of its last layer) in order. The graph is a single tensor after each, so a model can be split there.
        image_size: side of the input, in pixels, that its ImageNet weights were trained with.
        min_size: smallest side.
        size_multiple: sides are multiples of this.
        normalization: key of NORMALIZATIONS that its weights expect, or `internal` if the backbone itself normalises.
        stems: available stems.
        depthwise: True if it has depthwise convolutions, which CPUs train no faster in bfloat16.
        unbiased_variance: True if BatchNorm keeps its running variance as PyTorch does, see `training.batch_norm`.
        weight_groups: weight groups that it has and that a strategy can train alone: `batchnorm`, `bias`, `attention`.
        options: keyword arguments of the builder.
    """

    name: str
    builder: str
    stages: Stages
    image_size: int = 224
    min_size: int = 32
    size_multiple: int = 1
    normalization: str = "imagenet"
    stems: tuple[str, ...] = ("imagenet",)
    depthwise: bool = False
    unbiased_variance: bool = False
    weight_groups: frozenset[str] = frozenset({BATCH_NORM, BIAS})
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def _resnet(name: str, num_blocks: tuple[int, ...], block: str = "basic") -> Backbone:
    options = MappingProxyType({"num_blocks": num_blocks, "block": block})
    return Backbone(
        name,
        "resnet:build",
        stages.torch_resnet(num_blocks),
        stems=("imagenet", "cifar"),
        unbiased_variance=True,
        options=options,
    )


def _application(name: str, constructor: str, ends: Stages, options: Mapping[str, Any] = MappingProxyType({}), **settings: Any) -> Backbone:
    return Backbone(name, "applications:build", ends, options=MappingProxyType({"constructor": constructor, **options}), **settings)


def _width_variants(name: str, constructor: str, alphas: tuple[float, ...], ends: Stages, **settings: Any) -> tuple[Backbone, ...]:
    """Return one entry for each width with ImageNet weights. The name without a number is the full width."""
    full = _application(name, constructor, ends, **settings, depthwise=True)
    return (full, *(replace(full, name=f"{name}_{a}", options=MappingProxyType({**full.options, "alpha": a})) for a in alphas))


def _efficientnet(number: int, image_size: int, depth: float) -> Backbone:
    return _application(
        f"efficientnet_b{number}",
        f"EfficientNetB{number}",
        stages.efficientnet((1, 2, 2, 3, 3, 4, 1), depth, single="project_bn"),
        {"normalized_scale": tuple(1 / math.sqrt(std) for std in IMAGENET_STD)},
        image_size=image_size,
        normalization=INTERNAL,
        depthwise=True,
    )


def _efficientnet_v2(size: str, image_size: int, repeats: tuple[int, ...], depth: float = 1.0) -> Backbone:
    return _application(
        f"efficientnet_v2_{size.lower()}",
        f"EfficientNetV2{size}",
        stages.efficientnet(repeats, depth, single="project_activation"),
        image_size=image_size,
        normalization=INTERNAL,
        depthwise=True,
    )


def _efficientnet_lite(number: int, image_size: int, num_blocks: tuple[int, ...], filters: tuple[int, ...], dropout: float) -> Backbone:
    return Backbone(
        f"efficientnet_lite{number}",
        "efficientnet_lite:build",
        stages.efficientnet_lite(num_blocks),
        image_size=image_size,
        normalization="efficientnet_lite",
        depthwise=True,
        unbiased_variance=True,
        options=MappingProxyType({"num_blocks": num_blocks, "filters": filters, "dropout": dropout}),
    )


def _convnext(size: str) -> Backbone:
    name = f"convnext_{size.lower()}"
    return _application(name, f"ConvNeXt{size}", stages.convnext(name), normalization=INTERNAL, depthwise=True, weight_groups=BIAS_ONLY)


EFFICIENTNET_V2_B = (1, 2, 2, 3, 5, 8)

_ENTRIES = (
    Backbone("alexnet", "alexnet:build", stages.ALEXNET, min_size=63, weight_groups=BIAS_ONLY),
    Backbone(
        "alexnet_narrow",
        "alexnet:build",
        stages.ALEXNET,
        image_size=64,
        min_size=63,
        weight_groups=BIAS_ONLY,
        options=MappingProxyType({"filters": (16, 48, 96, 64, 64), "units": 384}),
    ),
    _resnet("resnet18", (2, 2, 2, 2)),
    _resnet("resnet34", (3, 4, 6, 3)),
    _resnet("resnet50_torch", (3, 4, 6, 3), "bottleneck"),
    Backbone("vgg16", "vgg:build", stages.VGG16, normalization="caffe", weight_groups=BIAS_ONLY),
    Backbone(
        "vit_b16",
        "vit:build",
        stages.VIT,
        min_size=16,
        size_multiple=16,
        weight_groups=frozenset({BIAS, ATTENTION}),
        options=MappingProxyType({"num_blocks": 12, "num_heads": 12, "dim": 768, "mlp_dim": 3072}),
    ),
    _application("resnet50", "ResNet50", stages.resnet((3, 4, 6, 3)), normalization="caffe"),
    _application("resnet101", "ResNet101", stages.resnet((3, 4, 23, 3)), normalization="caffe"),
    _application("resnet152", "ResNet152", stages.resnet((3, 8, 36, 3)), normalization="caffe"),
    _application("resnet50_v2", "ResNet50V2", stages.resnet((3, 4, 6, 3), last="post_relu"), normalization="half"),
    _application("resnet101_v2", "ResNet101V2", stages.resnet((3, 4, 23, 3), last="post_relu"), normalization="half"),
    _application("resnet152_v2", "ResNet152V2", stages.resnet((3, 8, 36, 3), last="post_relu"), normalization="half"),
    _application("vgg19", "VGG19", stages.VGG19, normalization="caffe", weight_groups=BIAS_ONLY),
    *(_application(f"densenet{depth}", f"DenseNet{depth}", stages.DENSENET) for depth in (121, 169, 201)),
    _application("inception_v3", "InceptionV3", stages.INCEPTION_V3, image_size=299, min_size=75, normalization="half"),
    _application("inception_resnet_v2", "InceptionResNetV2", stages.INCEPTION_RESNET_V2, image_size=299, min_size=75, normalization="half"),
    _application("xception", "Xception", stages.XCEPTION, image_size=299, min_size=71, normalization="half", depthwise=True),
    _application("nasnet_mobile", "NASNetMobile", stages.nasnet(12), normalization="half", depthwise=True),
    _application("nasnet_large", "NASNetLarge", stages.nasnet(18), image_size=331, normalization="half", depthwise=True),
    *_width_variants("mobilenet", "MobileNet", (0.25, 0.5, 0.75, 1.0), stages.MOBILENET, normalization="half"),
    *_width_variants("mobilenet_v2", "MobileNetV2", (0.35, 0.5, 0.75, 1.0, 1.3, 1.4), stages.MOBILENET_V2, normalization="half"),
    *_width_variants("mobilenet_v3_small", "MobileNetV3Small", (0.75, 1.0), stages.MOBILENET_V3_SMALL, normalization=INTERNAL),
    *_width_variants("mobilenet_v3_large", "MobileNetV3Large", (0.75, 1.0), stages.MOBILENET_V3_LARGE, normalization=INTERNAL),
    _efficientnet(0, 224, 1.0),
    _efficientnet(1, 240, 1.1),
    _efficientnet(2, 260, 1.2),
    _efficientnet(3, 300, 1.4),
    _efficientnet(4, 380, 1.8),
    _efficientnet(5, 456, 2.2),
    _efficientnet(6, 528, 2.6),
    _efficientnet(7, 600, 3.1),
    _efficientnet_v2("B0", 224, EFFICIENTNET_V2_B),
    _efficientnet_v2("B1", 240, EFFICIENTNET_V2_B, 1.1),
    _efficientnet_v2("B2", 260, EFFICIENTNET_V2_B, 1.2),
    _efficientnet_v2("B3", 300, EFFICIENTNET_V2_B, 1.4),
    _efficientnet_v2("S", 384, (2, 4, 4, 6, 9, 15)),
    _efficientnet_v2("M", 480, (3, 5, 5, 7, 14, 18, 5)),
    _efficientnet_v2("L", 480, (4, 7, 7, 10, 19, 25, 7)),
    _efficientnet_lite(0, 224, (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320), 0.2),
    _efficientnet_lite(1, 240, (1, 3, 3, 4, 4, 5, 1), (16, 24, 40, 80, 112, 192, 320), 0.2),
    _efficientnet_lite(2, 260, (1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352), 0.3),
    *(_convnext(size) for size in ("Tiny", "Small", "Base", "Large", "XLarge")),
)

BACKBONES: Mapping[str, Backbone] = MappingProxyType({entry.name: entry for entry in _ENTRIES})

# For tests: found by `get_backbone`, but missing from every list and message.
_HIDDEN: Mapping[str, Backbone] = MappingProxyType({"tiny": Backbone("tiny", "tiny:build", stages.TINY, image_size=16, min_size=4)})


def get_backbone(name: str) -> Backbone:
    """Return the backbone called `name`. Raise ConfigError with the nearest names if there is none."""
    if name in _HIDDEN:
        return _HIDDEN[name]
    if name not in BACKBONES:
        raise unknown("backbone", name, BACKBONES)
    return BACKBONES[name]


def check_image_size(backbone: Backbone, size: int) -> None:
    """Raise ConfigError if `backbone` cannot take images of `size` x `size` pixels."""
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


def resolve_image_size(backbone: Backbone, *, image_size: int = 0, stem: str = "imagenet", normalization: str = "weights") -> int:
    """Return the side of the input in pixels: `image_size`, or the backbone's own for 0.

    Raises:
        ConfigError: `backbone` has no such image size, stem or normalization.
    """
    size = image_size or backbone.image_size
    check_image_size(backbone, size)
    if stem not in backbone.stems:
        suitable = ", ".join(entry.name for entry in BACKBONES.values() if stem in entry.stems)
        raise ConfigError(
            f"{backbone.name} has {', '.join(backbone.stems)}. Backbones with this stem: {suitable or 'none'}.",
            setting="stem",
            value=stem,
        )
    if normalization not in (known := (*NORMALIZATIONS, "weights")):
        raise unknown("normalization", normalization, known, setting="normalization", value=normalization)
    if normalization != "weights" and backbone.normalization == INTERNAL:
        raise ConfigError(
            f"{backbone.name} normalises inside the model; use `normalization=weights`.",
            setting="normalization",
            value=normalization,
        )
    return size


def resnet_equivalent_stages(backbone: Backbone, *names: str) -> tuple[str, ...]:
    """Return the stages of `backbone` that correspond to the stages `names` (stem, layer1, ..., layer4) of a ResNet.

    The last four stages correspond to layer1 to layer4, and all before them to the stem. A ResNet's stages are returned unchanged,
    so an experiment that is written for ResNets also runs on a fallback backbone.
    """
    stage_names = [stage for stage, _ in backbone.stages]
    layers = {f"layer{number}": stage_names[number - 5 : number - 4 or None] for number in (1, 2, 3, 4)}
    equivalents = {"stem": stage_names[:-4], **layers}
    return tuple(stage for name in names for stage in equivalents[name])
