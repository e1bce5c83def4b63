"""AlexNet as in torchvision: "One weird trick for parallelizing convolutional neural networks" (Krizhevsky 2014).

It has no local response normalisation and no groups. Dropout comes before fc6 and before fc7. The smallest input is 63 pixels.
"""

from collections.abc import Sequence

from keras import KerasTensor, layers

from tl_keras.backbones.layers import TORCH_KERNEL, adaptive_average_pool, conv2d, dense, torch_bias

# kernel size, stride, padding, True if a 3x3 max-pool with stride 2 follows
CONVOLUTIONS = ((11, 4, 2, True), (5, 1, 2, True), (3, 1, 1, False), (3, 1, 1, False), (3, 1, 1, True))


def _convolution(x: KerasTensor, filters: int, kernel_size: int, stride: int, padding: int, name: str) -> KerasTensor:
    initializers = {"kernel_initializer": TORCH_KERNEL, "bias_initializer": torch_bias(kernel_size**2 * x.shape[-1])}
    return layers.ReLU(name=f"{name}_out")(conv2d(x, filters, kernel_size, stride, padding, name, **initializers))


def build(x: KerasTensor, *, filters: Sequence[int] = (64, 192, 384, 256, 256), units: int = 4096) -> KerasTensor:
    """Return the features (b, units) of normalised images (b, h, w, 3), h and w static and at least 63."""
    for number, (width, (kernel_size, stride, padding, pooled)) in enumerate(zip(filters, CONVOLUTIONS, strict=True), start=1):
        x = _convolution(x, width, kernel_size, stride, padding, f"conv{number}")
        if pooled:
            x = layers.MaxPooling2D(3, 2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(adaptive_average_pool(x, 6, "average_pool"))
    for name in ("fc6", "fc7"):
        x = layers.Dropout(0.5, name=f"{name}_dropout")(x)
        x = layers.ReLU(name=f"{name}_out")(dense(x, units, name))
    return x
