"""EfficientNet-Lite0 to Lite2 of the TPU repository (2020): EfficientNet (Tan and Le 2019) with ReLU6 and without squeeze-and-excite.

Stem and top are not scaled with the width, and the first and the last group of blocks not with the depth. Layers are named as in Keras's
EfficientNets.
"""

from collections.abc import Sequence
from string import ascii_lowercase

from keras import KerasTensor, layers

from tl_keras.backbones.layers import HE_FAN_OUT

# Group of blocks -> kernel size, stride of the first block, factor on the channels inside a block.
GROUPS = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))
STEM_FILTERS, TOP_FILTERS = 32, 1280
STOCHASTIC_DEPTH = 0.2  # the rate grows linearly from 0 at the first block to nearly this at the last


def _batch_norm(x: KerasTensor, name: str) -> KerasTensor:
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_bn")(x)


def _relu6(x: KerasTensor, name: str) -> KerasTensor:
    return layers.ReLU(6, name=f"{name}_activation")(x)


def _convolution(x: KerasTensor, filters: int, kernel_size: int, stride: int, name: str) -> KerasTensor:
    """Apply a convolution and BatchNorm. The weights were trained with TensorFlow's padding, which is Keras's "same"."""
    layer = layers.Conv2D(filters, kernel_size, stride, padding="same", use_bias=False, kernel_initializer=HE_FAN_OUT, name=f"{name}_conv")
    return _batch_norm(layer(x), name)


def _depthwise(x: KerasTensor, kernel_size: int, stride: int, name: str) -> KerasTensor:
    layer = layers.DepthwiseConv2D(
        kernel_size, stride, padding="same", use_bias=False, depthwise_initializer=HE_FAN_OUT, name=f"{name}_conv"
    )
    return _relu6(_batch_norm(layer(x), name), name)


def _block(x: KerasTensor, filters: int, kernel_size: int, stride: int, expansion: int, drop_rate: float, name: str) -> KerasTensor:
    """Apply an inverted bottleneck. Its output has no activation. The input is added if the shape stays the same."""
    y = x
    if expansion > 1:
        y = _relu6(_convolution(y, expansion * x.shape[-1], 1, 1, f"{name}_expand"), f"{name}_expand")
    y = _depthwise(y, kernel_size, stride, f"{name}_depthwise")
    y = _convolution(y, filters, 1, 1, f"{name}_project")
    if y.shape != x.shape:
        return y
    y = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(y)
    return layers.Add(name=f"{name}_add")([x, y])


def build(x: KerasTensor, *, num_blocks: Sequence[int], filters: Sequence[int], dropout: float) -> KerasTensor:
    """Return the features (b, 1280) of normalised images (b, h, w, 3).

    Args:
        num_blocks: number of blocks in each of the seven groups.
        filters: channels after each group.
        dropout: dropout rate of the features.
    """
    x = _relu6(_convolution(x, STEM_FILTERS, 3, 2, "stem"), "stem")
    done, total = 0, sum(num_blocks)
    for number, (count, width, (kernel_size, stride, expansion)) in enumerate(zip(num_blocks, filters, GROUPS, strict=True), start=1):
        for letter in ascii_lowercase[:count]:
            step = stride if letter == "a" else 1
            x = _block(x, width, kernel_size, step, expansion, STOCHASTIC_DEPTH * done / total, f"block{number}{letter}")
            done += 1
    x = _relu6(_convolution(x, TOP_FILTERS, 1, 1, "top"), "top")
    return layers.Dropout(dropout, name="top_dropout")(layers.GlobalAveragePooling2D(name="average_pool")(x))
