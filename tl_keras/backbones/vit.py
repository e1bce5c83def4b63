"""ViT-B/16 as in torchvision (Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words"): pre-norm, exact GELU, class token.

Class token and position embedding are kernels of stock layers that are applied to ones, so a saved model loads without this package.
"""

import math

import keras
from keras import KerasTensor, layers, ops
from keras.initializers import RandomNormal, RandomUniform

from tl_keras.backbones.layers import torch_bias

PATCH = 16


def _norm(x: KerasTensor, name: str) -> KerasTensor:
    return layers.LayerNormalization(epsilon=1e-6, name=name)(x)


def _embed(x: KerasTensor, dim: int) -> KerasTensor:
    """Return tokens (b, 1 + patches, dim): class token and patches in row-major order, plus the position embedding."""
    fan_in = PATCH**2 * 3
    # torchvision truncates at +-2. That is more than fifty standard deviations, so it has no effect.
    project = layers.Conv2D(
        dim, PATCH, PATCH, kernel_initializer=RandomNormal(stddev=1 / math.sqrt(fan_in)), bias_initializer="zeros", name="conv_proj"
    )
    x = project(x)
    patches = layers.Reshape((x.shape[1] * x.shape[2], dim), name="patches")(x)
    ones = ops.ones_like(patches[:, :1, :1])
    class_token = layers.Dense(dim, use_bias=False, kernel_initializer="zeros", name="class_token")(ones)
    tokens = layers.Concatenate(axis=1, name="tokens")([class_token, patches])
    embed = layers.EinsumDense(
        "bi,itd->btd", output_shape=tuple(tokens.shape[1:]), kernel_initializer=RandomNormal(stddev=0.02), name="pos_embedding"
    )
    return layers.Add(name="embed_out")([tokens, embed(ones[:, 0])])


def _attention(x: KerasTensor, num_heads: int, name: str) -> KerasTensor:
    """Apply torch.nn.MultiheadAttention as self-attention: (b, t, dim) to (b, t, dim)."""
    dim = x.shape[-1]
    head_dim = dim // num_heads
    limit = math.sqrt(6 / (dim + 3 * dim))  # Xavier over query, key and value in one kernel, as PyTorch stores them
    query, key, value = (
        layers.EinsumDense(
            "btd,dhk->bthk",
            output_shape=(None, num_heads, head_dim),
            bias_axes="hk",
            kernel_initializer=RandomUniform(-limit, limit),
            name=f"{name}_{part}",
        )(x)
        for part in ("query", "key", "value")
    )
    project = layers.EinsumDense(
        "bthk,hkd->btd", output_shape=(None, dim), bias_axes="d", kernel_initializer=torch_bias(dim), name=f"{name}_attention_out"
    )
    return project(ops.dot_product_attention(query, key, value))


def _block(x: KerasTensor, num_heads: int, mlp_dim: int, name: str) -> KerasTensor:
    dim = x.shape[-1]
    x = layers.Add(name=f"{name}_add")([x, _attention(_norm(x, f"{name}_ln1"), num_heads, name)])
    y = _norm(x, f"{name}_ln2")
    for units, activation, part in ((mlp_dim, keras.activations.gelu, "mlp1"), (dim, None, "mlp2")):
        y = layers.Dense(
            units, activation, kernel_initializer="glorot_uniform", bias_initializer=RandomNormal(stddev=1e-6), name=f"{name}_{part}"
        )(y)
    return layers.Add(name=f"{name}_out")([x, y])


def build(x: KerasTensor, *, num_blocks: int, num_heads: int, dim: int, mlp_dim: int) -> KerasTensor:
    """Return the features (b, dim), token 0 after the last norm, of normalised images (b, h, w, 3), h and w multiples of 16."""
    x = _embed(x, dim)
    for number in range(1, num_blocks + 1):
        x = _block(x, num_heads, mlp_dim, f"block{number}")
    return _norm(x, "norm")[:, 0]
