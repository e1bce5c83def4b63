"""Input normalization, a part of every model. It belongs to the weights, so an exported model takes plain RGB pixels.

Keras is imported inside the functions, since listing the names does not need it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

LAYER = "normalization"  # its name in every model


@dataclass(frozen=True)
class Normalization:
    """`(pixel - mean) / std` per channel of RGB 0..255. With `bgr` the channels are reversed first, and mean and std are in BGR order."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False


def _from_unit_range(mean: tuple[float, float, float], std: tuple[float, float, float]) -> Normalization:
    """Return the normalization with mean and std for pixels in 0..1, as torchvision states them."""
    return Normalization(tuple(255 * value for value in mean), tuple(255 * value for value in std))


IMAGENET_STD = (0.229, 0.224, 0.225)

NORMALIZATIONS: Mapping[str, Normalization] = MappingProxyType(
    {
        "imagenet": _from_unit_range((0.485, 0.456, 0.406), IMAGENET_STD),  # torchvision and DenseNet
        "caffe": Normalization((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), bgr=True),  # ResNet and VGG of Keras Applications
        "half": Normalization((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),  # to -1..1; MobileNet, Inception
        "efficientnet_lite": Normalization((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
        # The standard deviations that most CIFAR-10 recipes use. Those of the pixels are 0.2470, 0.2435, 0.2616.
        "cifar10": _from_unit_range((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        "none": Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    }
)


def normalize(images: Any, name: str) -> Any:
    """Apply `NORMALIZATIONS[name]` to a float32 RGB tensor (b, h, w, 3) in 0..255 with stock layers.

    The arithmetic is float32 under every dtype policy: the eight bits of bfloat16 are too few for a difference of pixels.
    """
    import keras

    entry = NORMALIZATIONS[name]
    if entry.bgr:
        images = keras.ops.flip(images, axis=-1)
    scale = [1 / std for std in entry.std]
    offset = [-mean / std for mean, std in zip(entry.mean, entry.std, strict=True)]
    return keras.layers.Rescaling(scale, offset, dtype="float32", name=LAYER)(images)


def normalize_in_rows(model: "keras.Model") -> None:
    """Let the layer of `normalize` compute in a faster way, equal to the last bit. A saved or cloned model has the stock layer.

    TensorFlow is slow at broadcasting three values along the last axis. Along rows of 3 w values it takes a third of the time on two
    cores: 5 % of a training step of AlexNet in bfloat16, and 10 % of its prediction.
    """
    from keras.layers import Rescaling

    for layer in model.layers:
        if layer.name == LAYER and isinstance(layer, Rescaling):
            layer.call = partial(_rescale_rows, layer)


def _rescale_rows(layer: Any, images: Any) -> Any:
    """Return what the stock `call` of the layer `Rescaling` returns for images (b, h, w, 3)."""
    from keras import ops

    height, width, channels = images.shape[1:]
    if None in (height, width):
        return type(layer).call(layer, images)
    scale, offset = (ops.tile(ops.convert_to_tensor(values, "float32"), width) for values in (layer.scale, layer.offset))
    rows = ops.reshape(images, (-1, height, width * channels))
    return ops.reshape(rows * scale + offset, (-1, height, width, channels))
