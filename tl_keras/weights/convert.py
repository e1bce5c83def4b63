"""torchvision's tensors into our variables: which goes where, and how it is laid out there.

Layouts: a convolution is (out, in, h, w) there and (h, w, in, out) here; a linear layer (out, in) there and (in, out) here; the
first linear layer after a map counts its inputs by channel, row, column there and by row, column, channel here; attention
has query, key and value in one tensor there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.backbones import get_backbone
from tl_keras.errors import ConfigError, unknown
from tl_keras.weights.fill import fill

if TYPE_CHECKING:
    import keras

Layout = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Move:
    """One torch tensor, or a part of it, into one variable."""

    tensor: str
    variable: str
    layout: Layout = np.asarray


def _linear(weight: np.ndarray) -> np.ndarray:
    return weight.T


def _convolution(weight: np.ndarray) -> np.ndarray:
    return weight.transpose(2, 3, 1, 0)


def _flattened(size: int) -> Layout:
    """A linear layer after a map of size x size."""

    def layout(weight: np.ndarray) -> np.ndarray:
        units = weight.shape[0]
        return weight.reshape(units, -1, size, size).transpose(2, 3, 1, 0).reshape(-1, units)

    return layout


def _part(number: int, num_heads: int) -> Layout:
    """Query (0), key (1) or value (2) out of in_proj_weight (3 dim, dim) or in_proj_bias (3 dim,), by head."""

    def layout(weight: np.ndarray) -> np.ndarray:
        part = np.split(weight, 3)[number]
        return part.T.reshape(*part.shape[1:], num_heads, -1)

    return layout


def _layer(tensor: str, variable: str, layout: Layout = _convolution, *, bias: bool = True) -> Iterator[Move]:
    yield Move(f"{tensor}.weight", f"{variable}/kernel", layout)
    if bias:
        yield Move(f"{tensor}.bias", f"{variable}/bias")


def _norm(tensor: str, variable: str) -> Iterator[Move]:
    yield Move(f"{tensor}.weight", f"{variable}/gamma")
    yield Move(f"{tensor}.bias", f"{variable}/beta")


def _batch_norm(tensor: str, variable: str) -> Iterator[Move]:
    yield from _norm(tensor, variable)
    yield Move(f"{tensor}.running_mean", f"{variable}/moving_mean")
    yield Move(f"{tensor}.running_var", f"{variable}/moving_variance")


def _alexnet() -> Iterator[Move]:
    for number, tensor in enumerate((0, 3, 6, 8, 10), start=1):
        yield from _layer(f"features.{tensor}", f"conv{number}")
    yield from _layer("classifier.1", "fc6", _flattened(6))
    yield from _layer("classifier.4", "fc7", _linear)
    yield from _layer("classifier.6", "logits", _linear)


def _vgg16() -> Iterator[Move]:
    names = [f"block{block}_conv{number}" for block, count in enumerate((2, 2, 3, 3, 3), start=1) for number in range(1, count + 1)]
    for tensor, name in zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), names, strict=True):
        yield from _layer(f"features.{tensor}", name)
    yield from _layer("classifier.0", "fc1", _flattened(7))
    yield from _layer("classifier.3", "fc2", _linear)
    yield from _layer("classifier.6", "logits", _linear)


def _resnet(*, num_blocks: tuple[int, ...]) -> Iterator[Move]:
    yield from _layer("conv1", "conv1", bias=False)
    yield from _batch_norm("bn1", "bn1")
    for layer, count in enumerate(num_blocks, start=1):
        for block in range(count):
            tensor, name = f"layer{layer}.{block}", f"layer{layer}_{block}"
            for number in (1, 2):
                yield from _layer(f"{tensor}.conv{number}", f"{name}_conv{number}", bias=False)
                yield from _batch_norm(f"{tensor}.bn{number}", f"{name}_bn{number}")
            if layer > 1 and block == 0:
                yield from _layer(f"{tensor}.downsample.0", f"{name}_downsample_conv", bias=False)
                yield from _batch_norm(f"{tensor}.downsample.1", f"{name}_downsample_bn")
    yield from _layer("fc", "logits", _linear)


def _vit(*, num_blocks: int, num_heads: int, **_: int) -> Iterator[Move]:
    yield Move("class_token", "class_token/kernel", lambda token: token[0])
    yield Move("encoder.pos_embedding", "pos_embedding/kernel")
    yield from _layer("conv_proj", "conv_proj")
    for number in range(num_blocks):
        tensor, name = f"encoder.layers.encoder_layer_{number}", f"block{number + 1}"
        yield from _norm(f"{tensor}.ln_1", f"{name}_ln1")
        for index, part in enumerate(("query", "key", "value")):
            layout = _part(index, num_heads)
            yield Move(f"{tensor}.self_attention.in_proj_weight", f"{name}_{part}/kernel", layout)
            yield Move(f"{tensor}.self_attention.in_proj_bias", f"{name}_{part}/bias", layout)
        yield from _layer(f"{tensor}.self_attention.out_proj", f"{name}_attention_out", _heads_in(num_heads))
        yield from _norm(f"{tensor}.ln_2", f"{name}_ln2")
        yield from _layer(f"{tensor}.mlp.0", f"{name}_mlp1", _linear)
        yield from _layer(f"{tensor}.mlp.3", f"{name}_mlp2", _linear)
    yield from _norm("encoder.ln", "norm")
    yield from _layer("heads.head", "logits", _linear)


def _heads_in(num_heads: int) -> Layout:
    """The projection after attention: its inputs by head."""
    return lambda weight: weight.T.reshape(num_heads, -1, weight.shape[0])


MOVES: Mapping[str, Callable[..., Iterator[Move]]] = MappingProxyType(
    {"alexnet": _alexnet, "resnet18": _resnet, "resnet34": _resnet, "vgg16": _vgg16, "vit_b16": _vit}
)

# Files written before torchvision 0.13 have the older names.
RENAMED = (("mlp.linear_1.", "mlp.0."), ("mlp.linear_2.", "mlp.3."))


def _current_name(name: str) -> str:
    for old, new in RENAMED:
        name = name.replace(old, new)
    return name


def from_torch(model: "keras.Model", backbone_name: str, tensors: Mapping[str, np.ndarray], source: str = "torchvision") -> dict[str, Any]:
    """Fill `model`, which `build_classifier(backbone_name, ...)` made, with the tensors of torchvision's network of that name.

    Args:
        tensors: the state dict, name -> array. A head of another number of classes and conv1 of another stem are left out;
            `num_batches_tracked` has no place here, since momentum is constant.
        source: what the tensors come from, for messages and the account.

    Returns:
        The account of `fill`: `source`, `loaded`, `left_out`.

    Raises:
        ConfigError: the backbone has no counterpart in torchvision, or the tensors are not its; both sides are listed.
    """
    if backbone_name not in MOVES:
        raise unknown("backbone with torchvision's weights", backbone_name, MOVES)
    given = {_current_name(name): array for name, array in tensors.items() if not name.endswith("num_batches_tracked")}
    moves = list(MOVES[backbone_name](**get_backbone(backbone_name).options))
    surplus = set(given) - {move.tensor for move in moves}
    arrays = {name: given[name] for name in sorted(surplus)}
    for move in moves:
        if move.tensor in given:
            arrays[move.variable] = _laid_out(move, given[move.tensor])
    return fill(model, backbone_name, arrays, source)


def _laid_out(move: Move, array: np.ndarray) -> np.ndarray:
    try:
        return move.layout(array)
    except ValueError as error:
        raise ConfigError(f"{move.tensor} of shape {array.shape} cannot become {move.variable}: {error}.") from error
