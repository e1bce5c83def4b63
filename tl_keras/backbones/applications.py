"""Every other network of keras.applications, up to its global average pool."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers


def build(x: Any, *, constructor: str, normalized_scale: Sequence[float] = (), **options: Any) -> Any:
    """The features (b, channels) of `keras.applications.<constructor>(**options)` on images (b, h, w, 3).

    Args:
        normalized_scale: factors on the channels after the network's own Normalization. Keras puts them into the EfficientNets
            when it loads its weights and at no other time, and without them those weights see the wrong input.
    """
    make = getattr(keras.applications, constructor)
    model = make(include_top=False, weights=None, input_tensor=x, pooling="avg", **options)

    def call(layer: layers.Layer, *inputs: Any, **arguments: Any) -> Any:
        y = layer(*inputs, **arguments)
        scaled = normalized_scale and isinstance(layer, layers.Normalization)
        return layers.Rescaling(list(normalized_scale), name="normalized_scale")(y) if scaled else y

    return keras.models.clone_model(model, input_tensors=model.input, clone_function=_stable_names(), call_function=call).output


def _stable_names() -> Any:
    """A function that copies a layer; names that Keras numbered are numbered anew, from 1.

    Its counter runs on from one model to the next, and variable paths have to be the same in every build.
    """
    counts: Counter[str] = Counter()

    def copy(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        kind = re.sub(r"_\d+$", "", layer.name)
        if kind.replace("_", "") == type(layer).__name__.lower():
            counts[kind] += 1
            config["name"] = f"{kind}_{counts[kind]}"
        return type(layer).from_config(config)

    return copy
