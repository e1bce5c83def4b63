"""LoRA layer: a frozen layer with a trainable low-rank update (Hu et al. 2021), built from stock Keras layers.

`enable_lora` of Keras is not used, for three reasons. On an EinsumDense it factorises each attention head separately. It computes the
gradient of the whole kernel. And a saved model loses its factors.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from tl_keras.backbones.layers import TORCH_KERNEL

EMBEDDINGS = ("class_token", "pos_embedding")  # of ViT: kernels that are multiplied by one, not projections


def clone_layer(layer: layers.Layer, **changes: Any) -> layers.Layer:
    """Return a new layer with the configuration of `layer`, updated by `changes`."""
    return type(layer).from_config({**layer.get_config(), **changes})


def _up(layer: layers.Layer, units: int) -> layers.Layer:
    return layers.Dense(units, use_bias=False, kernel_initializer="zeros", dtype=layer.dtype_policy, name="up")


def _dense(layer: layers.Dense, rank: int, initializer: Any) -> tuple[layers.Layer, layers.Layer]:
    down = layers.Dense(rank, use_bias=False, kernel_initializer=initializer, dtype=layer.dtype_policy, name="down")
    return down, _up(layer, layer.units)


def _conv(layer: layers.Conv2D, rank: int, initializer: Any) -> tuple[layers.Layer, layers.Layer]:
    down = clone_layer(layer, filters=rank, use_bias=False, activation=None, kernel_initializer=initializer, name="down")
    return down, _up(layer, layer.filters)


def _einsum(layer: layers.EinsumDense, rank: int, initializer: Any) -> tuple[layers.Layer, layers.Layer]:
    inputs, contracted, kept, output = _parse_equation(layer.equation)
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


def _parse_equation(equation: str) -> tuple[str, str, str, str]:
    """Return the letters of the inputs, of the kernel's contracted axes, of its other axes, and of the output."""
    inputs, kernel, output = equation.replace("->", ",").split(",")
    kept = "".join(letter for letter in kernel if letter in output)
    return inputs, "".join(letter for letter in kernel if letter not in output), kept, output


# Type of layer -> function that builds its factors: A (`down`, the layer with `rank` outputs) and B (`up`, from `rank` to its outputs).
FACTOR_BUILDERS: Mapping[type, Callable[[Any, int, Any], tuple[layers.Layer, layers.Layer]]] = {
    layers.Dense: _dense,
    layers.EinsumDense: _einsum,
    layers.Conv2D: _conv,
}


def is_adaptable(layer: layers.Layer) -> bool:
    """Return True if `layer` multiplies by one matrix. Depthwise and grouped convolutions and embeddings do not."""
    if type(layer) not in FACTOR_BUILDERS or layer.name in EMBEDDINGS:
        return False
    if isinstance(layer, layers.EinsumDense):
        inputs, contracted, kept, _ = _parse_equation(layer.equation)
        return layer.equation.split("->")[0] == f"{inputs},{contracted}{kept}" and not set(kept) & set(inputs) and "." not in inputs
    return getattr(layer, "groups", 1) == 1


class LoRALayer(layers.Layer):
    """Layer with a low-rank update: activation(base(x) + (alpha / rank) * up(down(x))), `base` being `layer` without its activation.

    A (`down`) is initialised from `seed` as torch.nn.Linear is, and B (`up`) with zeros, so the first outputs are those of `layer`.
    """

    def __init__(self, layer: layers.Layer, rank: int, alpha: float, seed: int):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.base_config = layer.get_config()
        self.base = clone_layer(layer, activation=None, name="base")
        self.activation = layer.activation
        self.rank, self.scale = rank, alpha / rank
        initializer = keras.initializers.VarianceScaling(**TORCH_KERNEL["config"], seed=seed)
        self.down, self.up = FACTOR_BUILDERS[type(layer)](layer, rank, initializer)

    def build(self, input_shape: Any) -> None:
        self.base.build(input_shape)
        self.down.build(input_shape)
        self.up.build(self.down.compute_output_shape(input_shape))

    def call(self, inputs: Any) -> Any:
        return self.activation(self.base(inputs) + self.scale * self.up(self.down(inputs)))

    @property
    def factors(self) -> tuple[keras.Variable, keras.Variable]:
        """The trained factors: A (..., rank) and B (rank, ...), float32."""
        return self.down.kernel, self.up.kernel

    def merged_weights(self) -> list[np.ndarray]:
        """Return the weights of the plain layer, with the update added to its kernel."""
        kernel, *bias = self.base.get_weights()
        a, b = (factor.numpy() for factor in self.factors)
        return [kernel + self.scale * np.tensordot(a, b, 1), *bias]
