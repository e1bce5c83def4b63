"""The weights files that can be had by name: one row a variant, the first of a backbone being its default. No Keras here.

Those of Keras Applications are the files that Keras itself requests with `include_top=False`, and for vgg16, whose fc1 and fc2
belong to the backbone, with `include_top=True`. Keras publishes no hashes for MobileNet and MobileNetV2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
EFFICIENTNET = "https://storage.googleapis.com/keras-applications/"

# Hex digits of a hash -> its algorithm.
ALGORITHMS = {0: "", 32: "md5", 64: "sha256"}


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights.

    Attributes:
        variant: what `--weights` calls it.
        name: its name in the weights directory; the Keras cache has it under the same.
        url: where it is fetched from; empty for the one that the package carries.
        hash: MD5 or SHA-256 in hex; empty where none is published.
        top: whether a classifier lies in the file beside the backbone.
        licence: SPDX identifier of the licence of the weights.
    """

    variant: str
    name: str
    url: str = ""
    hash: str = ""
    top: bool = False
    licence: str = "Apache-2.0"

    @property
    def embedded(self) -> bool:
        """Whether the package carries the file."""
        return not self.url

    @property
    def algorithm(self) -> str:
        """The algorithm of the hash, a name that hashlib knows."""
        return ALGORITHMS[len(self.hash)]

    @property
    def hash_text(self) -> str:
        """The hash for a message."""
        return f"{self.algorithm} {self.hash}" if self.hash else "no hash is published"


def _keras(path: str, hash: str = "", *, name: str = "", base: str = KERAS, top: bool = False) -> tuple[WeightsFile, ...]:
    return (WeightsFile("imagenet", name or path.rpartition("/")[2], base + path, hash, top),)


def _ordered(folder: str, name: str, hash: str) -> tuple[WeightsFile, ...]:
    return _keras(f"{folder}/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5", hash)


def _mobilenet(alpha: str) -> tuple[WeightsFile, ...]:
    return _keras(f"mobilenet/mobilenet_{alpha}_224_tf_no_top.h5")


def _mobilenet_v2(alpha: str) -> tuple[WeightsFile, ...]:
    return _keras(f"mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5")


def _mobilenet_v3(size: str, alpha: str, hash: str) -> tuple[WeightsFile, ...]:
    return _keras(f"mobilenet_v3/weights_mobilenet_v3_{size}_224_{alpha}_float_no_top_v2.h5", hash)


def _efficientnet(number: int, hash: str) -> tuple[WeightsFile, ...]:
    return _keras(f"efficientnetb{number}_notop.h5", hash, base=EFFICIENTNET)


def _efficientnet_v2(size: str, hash: str) -> tuple[WeightsFile, ...]:
    return _keras(f"efficientnet_v2/efficientnetv2-{size}_notop.h5", hash)


def _convnext(size: str, hash: str) -> tuple[WeightsFile, ...]:
    return _keras(f"convnext/convnext_{size}_notop.h5", hash)


WEIGHTS: Mapping[str, tuple[WeightsFile, ...]] = MappingProxyType(
    {
        "alexnet_narrow": (WeightsFile("glyphs", "alexnet_narrow_glyphs.npz", top=True),),
        "vgg16": _keras("vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5", "64373286793e3c8b2b4e3219cbf3544b", top=True),
        "vgg19": _ordered("vgg19", "vgg19", "253f8cb515780f3b799900260a226db6"),
        "resnet50": _ordered("resnet", "resnet50", "4d473c1dd8becc155b73f8504c6f6626"),
        "resnet101": _ordered("resnet", "resnet101", "88cf7a10940856eca736dc7b7e228a21"),
        "resnet152": _ordered("resnet", "resnet152", "ee4c566cf9a93f14d82f913c2dc6dd0c"),
        "resnet50_v2": _ordered("resnet", "resnet50v2", "fac2f116257151a9d068a22e544a4917"),
        "resnet101_v2": _ordered("resnet", "resnet101v2", "c0ed64b8031c3730f411d2eb4eea35b5"),
        "resnet152_v2": _ordered("resnet", "resnet152v2", "ed17cf2e0169df9d443503ef94b23b33"),
        "densenet121": _ordered("densenet", "densenet121", "30ee3e1110167f948a6b9946edeeb738"),
        "densenet169": _ordered("densenet", "densenet169", "b8c4d4c20dd625c148057b9ff1c1176b"),
        "densenet201": _ordered("densenet", "densenet201", "c13680b51ded0fb44dff2d8f86ac8bb1"),
        "inception_v3": _ordered("inception_v3", "inception_v3", "bcbd6486424b2319ff4ef7d526e38f63"),
        "inception_resnet_v2": _ordered("inception_resnet_v2", "inception_resnet_v2", "d19885ff4a710c122648d3b5c3b684e4"),
        "xception": _ordered("xception", "xception", "b0042744bf5b25fce3cb969f33bebb97"),
        "nasnet_mobile": _keras("nasnet/NASNet-mobile-no-top.h5", "1ed92395b5b598bdda52abe5c0dbfd63", name="nasnet_mobile_no_top.h5"),
        "nasnet_large": _keras("nasnet/NASNet-large-no-top.h5", "d81d89dc07e6e56530c4e77faddd61b5", name="nasnet_large_no_top.h5"),
        "mobilenet": _mobilenet("1_0"),
        "mobilenet_0.25": _mobilenet("2_5"),
        "mobilenet_0.5": _mobilenet("5_0"),
        "mobilenet_0.75": _mobilenet("7_5"),
        "mobilenet_1.0": _mobilenet("1_0"),
        "mobilenet_v2": _mobilenet_v2("1.0"),
        **{f"mobilenet_v2_{alpha}": _mobilenet_v2(alpha) for alpha in ("0.35", "0.5", "0.75", "1.0", "1.3", "1.4")},
        "mobilenet_v3_small": _mobilenet_v3("small", "1.0", "d3e8ec802a04aa4fc771ee12a9a9b836"),
        "mobilenet_v3_small_0.75": _mobilenet_v3("small", "0.75", "ebdb5cc8e0b497cd13a7c275d475c819"),
        "mobilenet_v3_small_1.0": _mobilenet_v3("small", "1.0", "d3e8ec802a04aa4fc771ee12a9a9b836"),
        "mobilenet_v3_large": _mobilenet_v3("large", "1.0", "07fb09a5933dd0c8eaafa16978110389"),
        "mobilenet_v3_large_0.75": _mobilenet_v3("large", "0.75", "40af19a13ebea4e2ee0c676887f69a2e"),
        "mobilenet_v3_large_1.0": _mobilenet_v3("large", "1.0", "07fb09a5933dd0c8eaafa16978110389"),
        "efficientnet_b0": _efficientnet(0, "50bc09e76180e00e4465e1a485ddc09d"),
        "efficientnet_b1": _efficientnet(1, "74c4e6b3e1f6a1eea24c589628592432"),
        "efficientnet_b2": _efficientnet(2, "111f8e2ac8aa800a7a99e3239f7bfb39"),
        "efficientnet_b3": _efficientnet(3, "af6d107764bb5b1abb91932881670226"),
        "efficientnet_b4": _efficientnet(4, "ebc24e6d6c33eaebbd558eafbeedf1ba"),
        "efficientnet_b5": _efficientnet(5, "38879255a25d3c92d5e44e04ae6cec6f"),
        "efficientnet_b6": _efficientnet(6, "9ecce42647a20130c1f39a5d4cb75743"),
        "efficientnet_b7": _efficientnet(7, "cbcfe4450ddf6f3ad90b1b398090fe4a"),
        "efficientnet_v2_b0": _efficientnet_v2("b0", "893217f2bb855e2983157299931e43ff"),
        "efficientnet_v2_b1": _efficientnet_v2("b1", "0e80663031ca32d657f9caa404b6ec37"),
        "efficientnet_v2_b2": _efficientnet_v2("b2", "1dfe2e7a5d45b6632553a8961ea609eb"),
        "efficientnet_v2_b3": _efficientnet_v2("b3", "f6abf7b5849ac99a89b50dd3fd532856"),
        "efficientnet_v2_s": _efficientnet_v2("s", "af0682fb74e8c54910f2d4393339c070"),
        "efficientnet_v2_m": _efficientnet_v2("m", "1b8dc055df72dde80d614482840fe342"),
        "efficientnet_v2_l": _efficientnet_v2("l", "b0b66b5c863aef5b46e8608fe1711615"),
        "convnext_tiny": _convnext("tiny", "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
        "convnext_small": _convnext("small", "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
        "convnext_base": _convnext("base", "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
        "convnext_large": _convnext("large", "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
        "convnext_xlarge": _convnext("xlarge", "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
    }
)
