"""ResNet18 and ResNet34 as torchvision has them (He et al. 2015, "Deep Residual Learning for Image Recognition")."""

from collections.abc import Sequence
from typing import Any

from keras import layers

from tl_keras.backbones.layers import HE_FAN_OUT, pad

# stem -> kernel size, stride and padding of conv1, whether the max-pool follows
STEMS = {"imagenet": (7, 2, 3, True), "cifar": (3, 1, 1, False)}


def _convolution(x: Any, filters: int, kernel_size: int, stride: int, name: str) -> Any:
    layer = layers.Conv2D(filters, kernel_size, stride, use_bias=False, kernel_initializer=HE_FAN_OUT, name=name)
    return layer(pad(x, kernel_size // 2, name))


def _batch_norm(x: Any, name: str) -> Any:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _block(x: Any, filters: int, stride: int, name: str) -> Any:
    """torchvision's BasicBlock: two 3x3 convolutions, and a 1x1 on the shortcut where the shape changes."""
    shortcut = x
    x = layers.ReLU(name=f"{name}_relu")(_batch_norm(_convolution(x, filters, 3, stride, f"{name}_conv1"), f"{name}_bn1"))
    x = _batch_norm(_convolution(x, filters, 3, 1, f"{name}_conv2"), f"{name}_bn2")
    if stride > 1 or shortcut.shape[-1] != filters:
        shortcut = _batch_norm(_convolution(shortcut, filters, 1, stride, f"{name}_downsample_conv"), f"{name}_downsample_bn")
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, shortcut]))


def _stem(x: Any, stem: str) -> Any:
    """conv1 and bn1. The last layer is `stem_out` with either stem, so the stage ends at one name."""
    kernel_size, stride, padding, pooled = STEMS[stem]
    x = layers.Conv2D(64, kernel_size, stride, use_bias=False, kernel_initializer=HE_FAN_OUT, name="conv1")(pad(x, padding, "conv1"))
    x = layers.ReLU(name="stem_relu" if pooled else "stem_out")(_batch_norm(x, "bn1"))
    # Zeros may pad the max-pool only because they follow a ReLU; PyTorch pads with minus infinity.
    return layers.MaxPooling2D(3, 2, name="stem_out")(pad(x, 1, "pool")) if pooled else x


def build(x: Any, *, num_blocks: Sequence[int], stem: str) -> Any:
    """The features (b, 512) of normalised images (b, h, w, 3), with `num_blocks` basic blocks in each of the four layers."""
    x = _stem(x, stem)
    for layer, count in enumerate(num_blocks, start=1):
        for block in range(count):
            stride = 2 if layer > 1 and block == 0 else 1
            x = _block(x, 32 * 2**layer, stride, f"layer{layer}_{block}")
    return layers.GlobalAveragePooling2D(name="average_pool")(x)
