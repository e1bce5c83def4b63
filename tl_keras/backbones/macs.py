"""Multiply-adds of a network by stage, from the shapes of its layers, and how many of them this machine does in a second."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tl_keras import backbones

MATRIX_SIZE, MEASURED_SECONDS = 2048, 0.5

Shape = tuple[int, ...]


@dataclass(frozen=True)
class StageCost:
    """What one image costs in a stage.

    Attributes:
        multiply_adds: of the forward pass.
        shape: of the tensor at the end of the stage.
        num_bytes: of that tensor, in the precision that the network computes in.
        uncounted: types of layers that have kernels but no formula; they count 0.
    """

    macs: int
    shape: Shape
    num_bytes: int
    uncounted_layers: tuple[str, ...]


def _dense_or_conv(layer: Any, inputs: Sequence[Shape], output: Shape) -> int:
    """Every kernel is applied once at every position of the output: (b, ..., channels)."""
    return math.prod(output[:-1]) * sum(_kernel_sizes(layer))


def _einsum(layer: Any, inputs: Sequence[Shape], output: Shape) -> int:
    """The elements of the output, times the sizes of the axes that are summed over."""
    _, kernel, letters = layer.equation.replace("->", ",").split(",")
    return math.prod(output) * math.prod(size for letter, size in zip(kernel, layer.kernel.shape, strict=True) if letter not in letters)


def _attention(operation: Any, inputs: Sequence[Shape], output: Shape) -> int:
    """Query times key and weights times value: (b, tokens, heads, channels) each."""
    return 2 * math.prod(inputs[0]) * inputs[1][1]


def _low_rank(layer: Any, inputs: Sequence[Shape], output: Shape) -> int:
    """The frozen layer, and its factors at the same positions."""
    base = FORMULAS[type(layer.base).__name__](layer.base, inputs, output)
    sizes = [math.prod(factor.shape) for factor in layer.factors]
    return base + base * sum(sizes) // math.prod(layer.base.kernel.shape)


# Type of layer, or of an operation of keras.ops -> (it, shapes of its inputs, shape of its output) -> multiply-adds.
FORMULAS: Mapping[str, Callable[[Any, Sequence[Shape], Shape], int]] = {
    "Dense": _dense_or_conv,
    "Conv2D": _dense_or_conv,
    "DepthwiseConv2D": _dense_or_conv,
    "SeparableConv2D": _dense_or_conv,
    "EinsumDense": _einsum,
    "DotProductAttention": _attention,
    "LoRALayer": _low_rank,
}


def _kernel_sizes(operation: Any) -> list[int]:
    weights = getattr(operation, "trainable_weights", [])
    return [math.prod(weight.shape) for weight in weights if len(weight.shape) > 1]


def count_macs(model: keras.Model, backbone: str) -> dict[str, StageCost]:
    """Stage, with the head as the last -> its cost; of a model that `build_classifier(backbone, ...)` made, with or without adapters.

    One black image goes through the network, as layers that leave the number of tokens open have no shape before.
    """
    ends = {stage: model.get_layer(end).output for stage, end in backbones.get_backbone(backbone).stages} | {backbones.HEAD: model.output}
    values = _values(model)
    costs, taken = {}, set()
    for stage, end in ends.items():
        operations = [operation for operation in keras.Model(model.input, end).operations if operation.name not in taken]
        taken |= {operation.name for operation in operations}
        uncounted = {type(operation).__name__ for operation in operations if _kernel_sizes(operation)} - set(FORMULAS)
        total = sum(_count(operation, values) for operation in operations)
        shape = tuple(values[id(end)].shape[1:])
        num_bytes = math.prod(shape) * (2 if "16" in keras.backend.standardize_dtype(end.dtype) else 4)
        costs[stage] = StageCost(total, shape, num_bytes, tuple(sorted(uncounted)))
    return costs


def _values(model: keras.Model) -> dict[int, Any]:
    """Identity of each symbolic tensor of `model` -> its value for one black image."""
    tensors = [tensor for operation in model.operations for tensor in keras.tree.flatten(operation.output)]
    outputs = keras.Model(model.input, tensors)(ops.zeros((1, *model.input.shape[1:])), training=False)
    return {id(tensor): value for tensor, value in zip(tensors, outputs, strict=True)}


def _count(operation: Any, values: Mapping[int, Any]) -> int:
    formula = FORMULAS.get(type(operation).__name__)
    if formula is None:
        return 0
    inputs = [tuple(values[id(tensor)].shape) for tensor in keras.tree.flatten(operation.input)]
    return formula(operation, inputs, tuple(values[id(operation.output)].shape))


def measure_matmul_throughput(dtype: str) -> float:
    """Multiply-adds a second of a matrix multiplication in `dtype` on the default device, measured for half a second."""
    matrix = ops.ones((MATRIX_SIZE, MATRIX_SIZE), dtype)

    def multiply() -> None:
        float(ops.matmul(matrix, matrix)[0, 0])  # waits for the device

    multiply()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < MEASURED_SECONDS:
        multiply()
        count += 1
    return count * MATRIX_SIZE**3 / (time.perf_counter() - started)
