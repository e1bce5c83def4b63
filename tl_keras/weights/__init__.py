"""Pre-trained weights: finds, verifies and downloads files, and loads them into a model.

    path = find_weights_file("resnet50", "imagenet")  # a verified file, downloaded if necessary; None for "none"
    info = load_weights(model, "resnet50", path)  # LoadingInfo: variables loaded, missing, unexpected, resized

    apply_delta(run_dir / "delta.npz", model)  # what a run has trained, on the weights that it began with

Keras is imported inside the functions.
"""

from tl_keras.weights.assign import LoadingInfo
from tl_keras.weights.delta import apply_delta, restore_model, save_delta
from tl_keras.weights.load import load_weights
from tl_keras.weights.locate import find_weights_file, hash_of_weights
from tl_keras.weights.registry import WEIGHTS, get_weights, normalization_of, preprocessing_of
from tl_keras.weights.trained_model import TrainedModel, find_trained_model
from tl_keras.weights.weights_file import WeightsFile

__all__ = [
    "WEIGHTS",
    "LoadingInfo",
    "TrainedModel",
    "WeightsFile",
    "apply_delta",
    "find_trained_model",
    "find_weights_file",
    "get_weights",
    "hash_of_weights",
    "load_weights",
    "normalization_of",
    "preprocessing_of",
    "restore_model",
    "save_delta",
]
