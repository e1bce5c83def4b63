"""Splits a model into prefix and suffix, compiles the prefix for inference, and hashes what it computes."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_keras.backbones import LOGITS, get_backbone
from tl_keras.data.geometry import ResizeFn, with_resize
from tl_keras.feature_cache.split_point import FEATURES
from tl_keras.strategies.freezing import numpy_view
from tl_keras.training.runtime import Runtime
from tl_keras.training.tracing import AnyBatchSize

FOLDED_TYPES = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
CAST_TYPES = (*FOLDED_TYPES, keras.layers.Dense)


@dataclass(frozen=True)
class SplitModel:
    """The two halves of a model: `suffix(prefix(images))` equals `model(images)`. Both share the weights of the model."""

    prefix: keras.Model
    suffix: keras.Model


def split_tensor(model: keras.Model, backbone: str, name: str) -> keras.KerasTensor:
    """Return the output of stage `name` of `model`, or for `features` the input of the logits."""
    if name == FEATURES:
        return model.get_layer(LOGITS).input
    return model.get_layer(dict(get_backbone(backbone).stages)[name]).output


def split_model(model: keras.Model, backbone: str, name: str) -> SplitModel:
    """Split `model`, a classifier on `backbone`, after the stage `name`, or for `features` before the logits."""
    tensor = split_tensor(model, backbone, name)
    return SplitModel(keras.Model(model.input, tensor), keras.Model(tensor, model.output))


def content_hash(model: keras.Model) -> str:
    """Return the SHA-256 of what `model` computes in inference mode: layers, connections, dtypes and weights.

    Rebuilding the model gives the same hash, whatever names Keras gives its layers. Call outside `freezing.apply_phase`.
    """
    config = model.get_config()
    names = {layer["config"]["name"]: f"#{number}" for number, layer in enumerate(config["layers"])}
    digest = hashlib.sha256(json.dumps(_renamed(config["layers"], names), sort_keys=True, default=str).encode())
    for weight in model.weights:
        value = numpy_view(weight)
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(value)
    return digest.hexdigest()


def _renamed(config: Any, names: Mapping[str, str]) -> Any:
    if isinstance(config, Mapping):
        return {key: _renamed(value, names) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [_renamed(value, names) for value in config]
    return names.get(config, config) if isinstance(config, str) else config


def compile_prefix(prefix: keras.Model, runtime: Runtime, resize: ResizeFn | None = None) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a compiled function that runs `prefix` in inference mode on images (b, h, w, 3), after `resize` if it is given.

    BatchNorm is folded into convolutions where that is faster: in 16-bit precision, and in models with depthwise convolutions.
    On two CPU cores ResNet18 is then 1.3 times as fast in bfloat16; MobileNet is 2.8 times as fast, and 1.3 times in float32.

    Features differ from those of `prefix` by at most 2e-5 of the largest in float32. In bfloat16 the error against float32 is
    11 % (RMS, MobileNet 0.75, ImageNet weights), against 9 % without folding. In float32 without depthwise convolutions nothing
    is folded, and features are bit-identical. Turning weights into constants gave no further speed-up.
    """
    depthwise = any(isinstance(layer, keras.layers.DepthwiseConv2D) for layer in prefix.layers)
    model = fold_batch_norm(prefix) if depthwise or "16" in runtime.precision else prefix
    call = partial(with_resize(resize, model), training=False)
    return AnyBatchSize(tf.function(call, jit_compile=runtime.xla or None, reduce_retracing=True, autograph=False))


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Return a copy of `model` for inference with BatchNorm folded into the convolution before it.

    Kernels are stored in the compute dtype, which saves a cast in every batch. Other layers are shared with `model`.
    """
    norms = _foldable(model)
    folded_norms = {norm.name for norm in norms.values()}
    copied = {*norms, *(layer.name for layer in model.layers if _casts_its_kernel(layer))}

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name not in copied:
            return layer
        settings = layer.get_config() | {"dtype": layer.compute_dtype}
        settings |= {name: "zeros" for name in settings if name.endswith("_initializer")}  # random numbers would take longer than the copy
        return type(layer).from_config(settings | {"use_bias": True} if layer.name in norms else settings)

    def call(layer: keras.layers.Layer, *inputs: Any, **arguments: Any) -> Any:
        return inputs[0] if layer.name in folded_norms else layer(*inputs, **arguments)

    folded = keras.models.clone_model(model, clone_function=copy, call_function=call)
    for name in copied:
        layer = model.get_layer(name)
        values = _folded_weights(layer, norms[name]) if name in norms else layer.weights
        for weight, value in zip(folded.get_layer(name).weights, values, strict=True):
            weight.assign(value)
    return folded


def _casts_its_kernel(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, CAST_TYPES) and layer.compute_dtype != layer.variable_dtype


def _foldable(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """Return convolution name -> the BatchNorm on its channels, for convolutions that nothing else reads."""
    readers: dict[str, list[Any]] = {}
    for operation in model.operations:
        for tensor in keras.tree.flatten(operation.input):
            readers.setdefault(tensor._keras_history.operation.name, []).append(operation)
    outputs = {tensor._keras_history.operation.name for tensor in model.outputs}
    return {
        layer.name: readers[layer.name][0]
        for layer in model.layers
        if isinstance(layer, FOLDED_TYPES)
        and layer.activation is keras.activations.linear
        and layer.name not in outputs
        and [_normalizes_channels(reader) for reader in readers[layer.name]] == [True]
    }


def _normalizes_channels(operation: Any) -> bool:
    return isinstance(operation, keras.layers.BatchNormalization) and operation.axis in (-1, 3)


def _folded_weights(convolution: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Return kernel and bias of `norm(convolution(x))`, computed in float64."""
    variance, mean = (value.numpy().astype(np.float64) for value in (norm.moving_variance, norm.moving_mean))
    scale = (norm.gamma.numpy() if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    bias = convolution.bias.numpy() if convolution.use_bias else 0.0
    shift = (bias - mean) * scale + (norm.beta.numpy() if norm.center else 0.0)
    kernel = convolution.kernel.numpy()
    depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)  # (h, w, channels, multiplier); else the last axis is the output
    scaled = kernel * (scale.reshape(kernel.shape[2:]) if depthwise else scale)
    return [scaled.astype(np.float32), shift.astype(np.float32)]
