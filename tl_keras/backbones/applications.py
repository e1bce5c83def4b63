"""Models of keras.applications up to the global average pool, except VGG16, which has its own module."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import KerasTensor, layers


def build(x: KerasTensor, *, constructor: str, normalized_scale: Sequence[float] = (), **options: Any) -> KerasTensor:
    """Return the features (b, channels) of `keras.applications.<constructor>(**options)` on images (b, h, w, 3).

    Args:
        normalized_scale: factors on the channels after the model's own Normalization layer. Keras adds them to the EfficientNets only
            when it loads its ImageNet weights, which need them.
    """
    make = getattr(keras.applications, constructor)
    model = make(include_top=False, weights=None, input_tensor=x, pooling="avg", **options)

    def call(layer: layers.Layer, *inputs: KerasTensor, **arguments: Any) -> KerasTensor:
        y = layer(*inputs, **arguments)
        scaled = normalized_scale and isinstance(layer, layers.Normalization)
        return layers.Rescaling(list(normalized_scale), name="normalized_scale")(y) if scaled else y

    return keras.models.clone_model(model, input_tensors=model.input, clone_function=_stable_names(), call_function=call).output


def _stable_names() -> Callable[[layers.Layer], layers.Layer]:
    """Return a function that copies a layer and numbers the names that Keras generates from 1.

    Keras counts across models, but variable paths have to be the same in every build.
    """
    counts: Counter[str] = Counter()

    def copy(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        base_name = re.sub(r"_\d+$", "", layer.name)
        if base_name.replace("_", "") == type(layer).__name__.lower():
            counts[base_name] += 1
            config["name"] = f"{base_name}_{counts[base_name]}"
        return type(layer).from_config(config)

    return copy
