"""Pre-trained weights: finds, verifies and downloads files, and loads them into a model.

    path = find_weights_file("resnet50", "imagenet")  # a verified file, downloaded if necessary; None for "none"
    info = load_weights(model, "resnet50", path)  # LoadingInfo: variables loaded, missing, unexpected, resized

Keras is imported inside the functions.
"""

from tl_keras.weights.assign import LoadingInfo
from tl_keras.weights.load import load_weights
from tl_keras.weights.locate import find_weights_file
from tl_keras.weights.registry import WEIGHTS, get_weights, normalization_of, preprocessing_of
from tl_keras.weights.weights_file import WeightsFile

__all__ = [
    "WEIGHTS",
    "LoadingInfo",
    "WeightsFile",
    "find_weights_file",
    "get_weights",
    "load_weights",
    "normalization_of",
    "preprocessing_of",
]
