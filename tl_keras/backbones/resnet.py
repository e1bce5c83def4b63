"""ResNet18, ResNet34 and ResNet50 as in torchvision (He et al. 2015, "Deep Residual Learning for Image Recognition")."""

from collections.abc import Sequence

from keras import KerasTensor, layers

from tl_keras.backbones.layers import HE_FAN_OUT, conv2d, pad

# stem -> kernel size, stride and padding of conv1, True if the max-pool follows
STEMS = {"imagenet": (7, 2, 3, True), "cifar": (3, 1, 1, False)}
EXPANSION = 4  # factor on the channels in the last convolution of a bottleneck


def _convolution(x: KerasTensor, filters: int, kernel_size: int, stride: int, name: str) -> KerasTensor:
    return conv2d(x, filters, kernel_size, stride, kernel_size // 2, name, use_bias=False, kernel_initializer=HE_FAN_OUT)


def _batch_norm(x: KerasTensor, name: str) -> KerasTensor:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _basic(x: KerasTensor, filters: int, stride: int, name: str) -> KerasTensor:
    """Apply two 3x3 convolutions."""
    x = layers.ReLU(name=f"{name}_relu")(_batch_norm(_convolution(x, filters, 3, stride, f"{name}_conv1"), f"{name}_bn1"))
    return _batch_norm(_convolution(x, filters, 3, 1, f"{name}_conv2"), f"{name}_bn2")


def _bottleneck(x: KerasTensor, filters: int, stride: int, name: str) -> KerasTensor:
    """Apply 1x1, 3x3 and 1x1 convolutions. The stride is in the 3x3 one ("v1.5"); in the paper and in Keras it is in the first 1x1."""
    for number, (kernel_size, step) in enumerate(((1, 1), (3, stride)), start=1):
        x = _batch_norm(_convolution(x, filters, kernel_size, step, f"{name}_conv{number}"), f"{name}_bn{number}")
        x = layers.ReLU(name=f"{name}_relu{number}")(x)
    return _batch_norm(_convolution(x, EXPANSION * filters, 1, 1, f"{name}_conv3"), f"{name}_bn3")


BLOCKS = {"basic": _basic, "bottleneck": _bottleneck}


def _residual(x: KerasTensor, filters: int, stride: int, block: str, name: str) -> KerasTensor:
    """Apply a block and its shortcut, which is a 1x1 convolution if the shape changes."""
    y, shortcut = BLOCKS[block](x, filters, stride, name), x
    if y.shape != x.shape:
        shortcut = _batch_norm(_convolution(x, y.shape[-1], 1, stride, f"{name}_downsample_conv"), f"{name}_downsample_bn")
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([y, shortcut]))


def _stem(x: KerasTensor, stem: str) -> KerasTensor:
    """Apply conv1, bn1 and the max-pool. The last layer is `stem_out` with either stem, so the stage always ends at one name."""
    kernel_size, stride, padding, pooled = STEMS[stem]
    x = conv2d(x, 64, kernel_size, stride, padding, "conv1", use_bias=False, kernel_initializer=HE_FAN_OUT)
    x = layers.ReLU(name="stem_relu" if pooled else "stem_out")(_batch_norm(x, "bn1"))
    # PyTorch pads the max-pool with minus infinity. Zeros are equivalent after a ReLU.
    return layers.MaxPooling2D(3, 2, name="stem_out")(pad(x, 1, "pool")) if pooled else x


def build(x: KerasTensor, *, num_blocks: Sequence[int], block: str, stem: str) -> KerasTensor:
    """Return the features (b, 512), or (b, 2048) with bottlenecks, of normalised images (b, h, w, 3).

    Args:
        num_blocks: number of residual blocks in each of the four layers.
        block: key of BLOCKS.
        stem: key of STEMS.
    """
    x = _stem(x, stem)
    for layer, count in enumerate(num_blocks, start=1):
        for index in range(count):
            stride = 2 if layer > 1 and index == 0 else 1
            x = _residual(x, 32 * 2**layer, stride, block, f"layer{layer}_{index}")
    return layers.GlobalAveragePooling2D(name="average_pool")(x)
