"""VGG16 of Keras Applications with its fully connected layers (Simonyan and Zisserman 2014)."""

import keras
from keras import KerasTensor, layers

from tl_keras.backbones.layers import adaptive_average_pool


def build(x: KerasTensor) -> KerasTensor:
    """Return the features (b, 4096) after fc2 of normalised images (b, h, w, 3), h and w static and at least 32.

    As in torchvision, the map is pooled to 7 x 7, so that fc1 fits every image size, and dropout follows fc1 and fc2.
    """
    x = keras.applications.VGG16(include_top=False, weights=None, input_tensor=x).output
    x = layers.Flatten(name="flatten")(adaptive_average_pool(x, 7, "average_pool"))
    for name in ("fc1", "fc2"):
        x = layers.Dropout(0.5, name=f"{name}_dropout")(layers.Dense(4096, "relu", name=name)(x))
    return x
