"""A backbone for tests: about 1,500 parameters, with convolutions, BatchNorm, ReLU and dropout in both stages."""

from keras import KerasTensor, layers


def build(x: KerasTensor) -> KerasTensor:
    """Return the features (b, 16) of normalised images (b, h, w, 3), h and w at least 4."""
    for name, filters in (("stem", 8), ("body", 16)):
        x = layers.Conv2D(filters, 3, 2, padding="same", name=f"{name}_conv")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
        x = layers.Dropout(0.1, name=f"{name}_out")(x)
    return layers.GlobalAveragePooling2D(name="average_pool")(x)
