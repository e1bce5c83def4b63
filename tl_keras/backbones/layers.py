"""Layers with PyTorch's defaults: initial weights, padding and bins of adaptive pooling.

Results from scratch depend on the initial weights. Ported weights depend on the rest.
"""

import math
from typing import Any

import keras
from keras import KerasTensor, layers

# kaiming_uniform(a=sqrt(5)), the weights of every new torch.nn.Conv2d and torch.nn.Linear: uniform in +-1/sqrt(fan_in).
TORCH_KERNEL: dict[str, Any] = {"class_name": "VarianceScaling", "config": {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"}}
# kaiming_normal(fan_out, relu), the convolutions of torchvision's ResNets.
HE_FAN_OUT = {"class_name": "VarianceScaling", "config": {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}}


def torch_bias(fan_in: int) -> keras.initializers.Initializer:
    """Return PyTorch's initial bias of a layer with `fan_in` inputs to each unit: uniform in +-1/sqrt(fan_in)."""
    limit = 1 / math.sqrt(fan_in)
    return keras.initializers.RandomUniform(-limit, limit)


def dense(x: KerasTensor, units: int, name: str, **options: Any) -> KerasTensor:
    """Apply torch.nn.Linear, with its initial weights, to (b, features)."""
    layer = layers.Dense(units, kernel_initializer=TORCH_KERNEL, bias_initializer=torch_bias(x.shape[-1]), name=name, **options)
    return layer(x)


def pad(x: KerasTensor, padding: int, name: str) -> KerasTensor:
    """Pad all four sides with zeros, as PyTorch does. Keras's "same" pads one side more than the other at stride 2."""
    return layers.ZeroPadding2D(padding, name=f"{name}_pad")(x) if padding else x


def conv2d(x: KerasTensor, filters: int, kernel_size: int, stride: int, padding: int, name: str, **options: Any) -> KerasTensor:
    """Apply torch.nn.Conv2d with `padding` zeros on all four sides.

    A convolution that keeps the size pads itself, which saves a copy of the activation and one of its gradient.
    """
    keeps_size = stride == 1 and 2 * padding == kernel_size - 1
    layer = layers.Conv2D(filters, kernel_size, stride, padding="same" if keeps_size else "valid", name=name, **options)
    return layer(x if keeps_size else pad(x, padding, name))


def adaptive_average_pool(x: KerasTensor, size: int, name: str) -> KerasTensor:
    """Apply torch.nn.AdaptiveAvgPool2d(size) to square maps (b, side, side, c). Return `x` itself if side equals size."""
    side = x.shape[1]
    if side == size:
        return x
    if size % side == 0:  # every bin is one pixel; Keras's own layer fails here on the TensorFlow backend
        return layers.UpSampling2D(size // side, name=name)(x)
    return layers.AdaptiveAveragePooling2D((size, size), name=name)(x)
