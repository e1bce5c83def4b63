"""Multiply-accumulate operations (MACs) of a model by stage, and the speed of the device in MACs per second."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
from keras import Operation, ops

from tl_keras.backbones import HEAD, get_backbone

MATRIX_SIZE, MEASURED_SECONDS = 2048, 0.5

Shape = tuple[int, ...]


@dataclass(frozen=True)
class StageCost:
    """Cost of a stage for one image.

    Attributes:
        macs: MACs of the forward pass.
        shape: shape of the tensor at the end of the stage, without the batch axis.
        num_bytes: size of that tensor in the compute dtype.
        uncounted_layers: types of layers with kernels but without a formula. They count 0.
    """

    macs: int
    shape: Shape
    num_bytes: int
    uncounted_layers: tuple[str, ...]


def _dense_or_conv(layer: Operation, inputs: Sequence[Shape], output: Shape) -> int:
    """Return the size of the kernels times the number of positions in the output (b, ..., channels)."""
    return math.prod(output[:-1]) * sum(_kernel_sizes(layer))


def _einsum(layer: Operation, inputs: Sequence[Shape], output: Shape) -> int:
    """Return the size of the output times the sizes of the contracted axes."""
    _, kernel, letters = layer.equation.replace("->", ",").split(",")
    return math.prod(output) * math.prod(size for letter, size in zip(kernel, layer.kernel.shape, strict=True) if letter not in letters)


def _attention(operation: Operation, inputs: Sequence[Shape], output: Shape) -> int:
    """Return the MACs of query times key and of weights times value, each (b, tokens, heads, channels)."""
    return 2 * math.prod(inputs[0]) * inputs[1][1]


def _lora(layer: Operation, inputs: Sequence[Shape], output: Shape) -> int:
    """Return the MACs of the frozen layer and of its factors, which are applied at the same positions."""
    base = FORMULAS[type(layer.base).__name__](layer.base, inputs, output)
    sizes = [math.prod(factor.shape) for factor in layer.factors]
    return base + base * sum(sizes) // math.prod(layer.base.kernel.shape)


# Type of a layer or of an operation of keras.ops -> (operation, shapes of its inputs, shape of its output) -> MACs.
FORMULAS: Mapping[str, Callable[[Operation, Sequence[Shape], Shape], int]] = {
    "Dense": _dense_or_conv,
    "Conv2D": _dense_or_conv,
    "DepthwiseConv2D": _dense_or_conv,
    "SeparableConv2D": _dense_or_conv,
    "EinsumDense": _einsum,
    "DotProductAttention": _attention,
    "LoRALayer": _lora,
}


def _kernel_sizes(operation: Operation) -> list[int]:
    weights = getattr(operation, "trainable_weights", [])
    return [math.prod(weight.shape) for weight in weights if len(weight.shape) > 1]


def count_macs(model: keras.Model, backbone: str) -> dict[str, StageCost]:
    """Return stage -> cost, with the head as the last stage.

    Args:
        model: model from `build_classifier(backbone, ...)`, with or without adapters. It is applied to one black image, because layers
            with a variable number of tokens have no static shape.
        backbone: name of the backbone.
    """
    ends = {stage: model.get_layer(end).output for stage, end in get_backbone(backbone).stages} | {HEAD: model.output}
    values = _output_values(model)
    costs: dict[str, StageCost] = {}
    taken: set[str] = set()
    for stage, end in ends.items():
        operations = [operation for operation in keras.Model(model.input, end).operations if operation.name not in taken]
        taken |= {operation.name for operation in operations}
        uncounted = {type(operation).__name__ for operation in operations if _kernel_sizes(operation)} - set(FORMULAS)
        shape = tuple(values[id(end)].shape[1:])
        num_bytes = math.prod(shape) * (2 if "16" in keras.backend.standardize_dtype(end.dtype) else 4)
        costs[stage] = StageCost(sum(_count(operation, values) for operation in operations), shape, num_bytes, tuple(sorted(uncounted)))
    return costs


def _output_values(model: keras.Model) -> dict[int, keras.KerasTensor]:
    """Return the id of each symbolic tensor of `model` -> its value for one black image."""
    tensors = [tensor for operation in model.operations for tensor in keras.tree.flatten(operation.output)]
    outputs = keras.Model(model.input, tensors)(ops.zeros((1, *model.input.shape[1:])), training=False)
    return {id(tensor): value for tensor, value in zip(tensors, outputs, strict=True)}


def _count(operation: Operation, values: Mapping[int, keras.KerasTensor]) -> int:
    formula = FORMULAS.get(type(operation).__name__)
    if formula is None:
        return 0
    inputs = [tuple(values[id(tensor)].shape) for tensor in keras.tree.flatten(operation.input)]
    return formula(operation, inputs, tuple(values[id(operation.output)].shape))


def measure_matmul_throughput(dtype: str) -> float:
    """Return the MACs per second of a matrix multiplication in `dtype` on the default device, measured for half a second."""
    matrix = ops.ones((MATRIX_SIZE, MATRIX_SIZE), dtype)

    def multiply() -> None:
        float(ops.matmul(matrix, matrix)[0, 0])  # waits for the device

    multiply()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < MEASURED_SECONDS:
        multiply()
        count += 1
    return count * MATRIX_SIZE**3 / (time.perf_counter() - started)
