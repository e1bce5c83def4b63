"""Layers with PyTorch's defaults: its initial weights, its padding, its bins of adaptive pooling.

From-scratch figures depend on the initial weights, and ported weights on everything else.
"""

import math
from typing import Any

import keras
from keras import layers

# kaiming_uniform(a=sqrt(5)), the weights of every new torch.nn.Conv2d and torch.nn.Linear: uniform in +-1/sqrt(fan_in).
TORCH_KERNEL: dict[str, Any] = {"class_name": "VarianceScaling", "config": {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"}}
# kaiming_normal(fan_out, relu), the convolutions of torchvision's ResNets.
HE_FAN_OUT = {"class_name": "VarianceScaling", "config": {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}}


def torch_bias(fan_in: int) -> keras.initializers.Initializer:
    """PyTorch's initial bias of a layer with `fan_in` inputs to each unit: uniform in +-1/sqrt(fan_in)."""
    limit = 1 / math.sqrt(fan_in)
    return keras.initializers.RandomUniform(-limit, limit)


def dense(x: Any, units: int, name: str, **options: Any) -> Any:
    """torch.nn.Linear on (b, features), with its initial weights."""
    layer = layers.Dense(units, kernel_initializer=TORCH_KERNEL, bias_initializer=torch_bias(x.shape[-1]), name=name, **options)
    return layer(x)


def pad(x: Any, padding: int, name: str) -> Any:
    """Zero padding on all four sides, as PyTorch pads; "same" of Keras pads one side more at stride 2."""
    return layers.ZeroPadding2D(padding, name=f"{name}_pad")(x) if padding else x


def adaptive_average_pool(x: Any, size: int, name: str) -> Any:
    """torch.nn.AdaptiveAvgPool2d(size) on square maps (b, side, side, c), side static: `x` itself where side is size."""
    side = x.shape[1]
    if side == size:
        return x
    if size % side == 0:  # every bin is one pixel, repeated; Keras's own layer fails on the TensorFlow backend there
        return layers.UpSampling2D(size // side, name=name)(x)
    return layers.AdaptiveAveragePooling2D((size, size), name=name)(x)
