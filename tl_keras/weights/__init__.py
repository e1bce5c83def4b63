"""Where pre-trained weights lie, and how they get into a model.

    path = find_weights_file("resnet50", "imagenet")  # found, verified, or fetched; None for "none"
    account = load_weights(model, "resnet50", path)

Keras is imported inside the functions.
"""

from tl_keras.weights.load import load_weights
from tl_keras.weights.locate import find_weights_file
from tl_keras.weights.registry import WEIGHTS, get_weights, normalization_of
from tl_keras.weights.weights_file import WeightsFile

__all__ = ["WEIGHTS", "WeightsFile", "get_weights", "load_weights", "find_weights_file", "normalization_of"]
