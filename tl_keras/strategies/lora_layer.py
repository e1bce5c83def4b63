"""The layer of a low-rank adapter: a frozen layer beside its factors, in stock layers of Keras (Hu et al. 2021).

`enable_lora` of Keras is not used: on an EinsumDense it factorises each attention head by itself, it computes the gradient of
the whole kernel, and a model that is saved loses its factors.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from tl_keras.backbones.layers import TORCH_KERNEL

EMBEDDINGS = ("class_token", "pos_embedding")  # of ViT: kernels applied to a one, not projections


def remade(layer: layers.Layer, **changes: Any) -> layers.Layer:
    """A new layer with the configuration of `layer`, but for `changes`."""
    return type(layer).from_config({**layer.get_config(), **changes})


def _up(layer: layers.Layer, units: int) -> layers.Layer:
    return layers.Dense(units, use_bias=False, kernel_initializer="zeros", dtype=layer.dtype_policy, name="up")


def _dense(layer: layers.Dense, rank: int, initializer: Any) -> tuple[layers.Layer, layers.Layer]:
    down = layers.Dense(rank, use_bias=False, kernel_initializer=initializer, dtype=layer.dtype_policy, name="down")
    return down, _up(layer, layer.units)


def _conv(layer: layers.Conv2D, rank: int, initializer: Any) -> tuple[layers.Layer, layers.Layer]:
    down = remade(layer, filters=rank, use_bias=False, activation=None, kernel_initializer=initializer, name="down")
    return down, _up(layer, layer.filters)


def _einsum(layer: layers.EinsumDense, rank: int, initializer: Any) -> tuple[layers.Layer, layers.Layer]:
    inputs, contracted, kept, output = _letters(layer.equation)
    middle = "".join(letter for letter in inputs if letter not in contracted)
    r = next(letter for letter in "rqpzyx" if letter not in inputs + contracted + kept)
    settings = {"dtype": layer.dtype_policy}
    down = layers.EinsumDense(
        f"{inputs},{contracted}{r}->{middle}{r}",
        (None,) * (len(middle) - 1) + (rank,),
        kernel_initializer=initializer,
        name="down",
        **settings,
    )
    up = layers.EinsumDense(
        f"{middle}{r},{r}{kept}->{output}", layer.partial_output_shape, kernel_initializer="zeros", name="up", **settings
    )
    return down, up


def _letters(equation: str) -> tuple[str, str, str, str]:
    """Letters of the inputs, of the kernel's axes that are summed over, of those that are not, and of the output."""
    inputs, kernel, output = equation.replace("->", ",").split(",")
    kept = "".join(letter for letter in kernel if letter in output)
    return inputs, "".join(letter for letter in kernel if letter not in output), kept, output


# Type of layer -> what makes its factors A (`down`: the layer with `rank` outputs) and B (`up`: from `rank` to the layer's outputs).
FACTORS: Mapping[type, Callable[[Any, int, Any], tuple[layers.Layer, layers.Layer]]] = {
    layers.Dense: _dense,
    layers.EinsumDense: _einsum,
    layers.Conv2D: _conv,
}


def is_adaptable(layer: layers.Layer) -> bool:
    """Whether `layer` is one matrix from all its inputs to all its outputs: no depthwise or grouped convolution, no embedding."""
    if type(layer) not in FACTORS or layer.name in EMBEDDINGS:
        return False
    if isinstance(layer, layers.EinsumDense):
        inputs, contracted, kept, _ = _letters(layer.equation)
        return layer.equation.split("->")[0] == f"{inputs},{contracted}{kept}" and not set(kept) & set(inputs) and "." not in inputs
    return getattr(layer, "groups", 1) == 1


class LowRank(layers.Layer):
    """`layer` and a low-rank update of it: activation(base(x) + (alpha / rank) up(down(x))), where `base` is `layer` without activation.

    A (`down`) starts as a torch.nn.Linear does, from `seed`, and B (`up`) as zeros, so the output is at first that of `layer`.
    """

    def __init__(self, layer: layers.Layer, rank: int, alpha: float, seed: int):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.plain_config = layer.get_config()
        self.base = remade(layer, activation=None, name="base")
        self.activation = layer.activation
        self.rank, self.scale = rank, alpha / rank
        initializer = keras.initializers.VarianceScaling(**TORCH_KERNEL["config"], seed=seed)
        self.down, self.up = FACTORS[type(layer)](layer, rank, initializer)

    def build(self, input_shape: Any) -> None:
        self.base.build(input_shape)
        self.down.build(input_shape)
        self.up.build(self.down.compute_output_shape(input_shape))

    def call(self, inputs: Any) -> Any:
        return self.activation(self.base(inputs) + self.scale * self.up(self.down(inputs)))

    @property
    def factors(self) -> tuple[keras.Variable, keras.Variable]:
        """A (..., rank) and B (rank, ...), float32."""
        return self.down.kernel, self.up.kernel

    def merged_weights(self) -> list[np.ndarray]:
        """The weights of the plain layer, its kernel with the update added."""
        kernel, *bias = self.base.get_weights()
        a, b = (factor.numpy() for factor in self.factors)
        return [kernel + self.scale * np.tensordot(a, b, 1), *bias]
