"""Prints where the time of a full training step goes, by kind of operation.

    python -m benchmarks.step_profile --backbone=resnet18 --precision=mixed_bfloat16 --batch_size=32

The step is that of the trainer, on random images, random weights and one device. TensorFlow's profiler times every operation, which
`operation_kind` assigns to a kind. Operations may run beside each other, so their times can add up to more than the step.
"""

import argparse
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tl_keras.utils.tensorflow_import import quiet_tensorflow

quiet_tensorflow()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace  # noqa: E402

from benchmarks import arrays, ours  # noqa: E402
from benchmarks.registry import PRODUCTS  # noqa: E402
from benchmarks.work import timed  # noqa: E402
from tl_keras.config import RunConfig  # noqa: E402
from tl_keras.training.trainer import Trainer  # noqa: E402

CASTS, UPDATE, OTHER = "cast", "update", "other"
COMPILED = "compiled updates and activations"
XLA_EVENT = "CpuExecutable::ExecuteAsyncOnStream"  # of a function that XLA compiled, which TensorFlow does not name

# The first kind whose pattern matches the type of an operation is its kind, if any does.
KIND_OF_OPERATION: Mapping[str, str] = {
    PRODUCTS: r"Conv2D|Conv3D|DepthwiseConv|MatMul|Einsum",
    CASTS: r"^Cast$",
    "normalisation": r"BatchNorm",
    "pooling": r"MaxPool|AvgPool",
    "random numbers": r"Random",
    "activation": r"Relu|Softmax|Sigmoid|Elu|Tanh|Erf",
    UPDATE: r"^ResourceApply",
    "padding and transposition": r"^(Pad|Transpose|ConcatV2|Slice|StridedSlice|StridedSliceGrad|Reshape|Pack|Split|Tile)$",
}
# Otherwise the layer decides that it belongs to.
KIND_OF_LAYER: Mapping[type[keras.layers.Layer], str] = {
    keras.layers.BatchNormalization: "normalisation",
    keras.layers.LayerNormalization: "normalisation",
    keras.layers.Normalization: "input normalisation",
    keras.layers.Rescaling: "input normalisation",
    keras.layers.ReLU: "activation",
    keras.layers.Activation: "activation",
    keras.layers.Dropout: "dropout",
    keras.layers.MaxPooling2D: "pooling",
    keras.layers.GlobalAveragePooling2D: "pooling",
    keras.layers.Conv2D: "bias",
    keras.layers.Dense: "bias and its activation",
    keras.layers.EinsumDense: "bias and its activation",
    keras.layers.Add: "addition of branches",
}


def operation_kind(name: str, operation_type: str, layers: Mapping[str, keras.layers.Layer], optimizer: str) -> str:
    """Return the kind of an operation.

    Args:
        name: name in the graph, e.g. `gradient_tape/resnet18_1/bn1_1/mul`; Keras puts the name of the layer in it.
        operation_type: e.g. `Conv2DBackpropInput`.
        layers: name -> layer of the model.
        optimizer: name of the optimizer, which its operations begin with.
    """
    if operation_type == XLA_EVENT:
        return COMPILED
    scopes = name.partition(":")[0].split("/")
    if optimizer in scopes:
        return UPDATE
    if found := next((kind for kind, pattern in KIND_OF_OPERATION.items() if re.search(pattern, operation_type)), ""):
        return found
    owners = (layers[layer] for scope in scopes for layer in (scope, re.sub(r"_\d+$", "", scope)) if layer in layers)
    return next((KIND_OF_LAYER[type(owner)] for owner in owners if type(owner) in KIND_OF_LAYER), OTHER)


def operation_times(space: XSpace) -> Iterator[tuple[str, str, float]]:
    """Yield name, type and milliseconds of every operation that ran on a host; of a function that XLA compiled, both are `XLA_EVENT`."""
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            metadata = plane.event_metadata[event.metadata_id]
            if metadata.name.endswith(f":{metadata.display_name}") and metadata.display_name:
                yield metadata.name, metadata.display_name, event.duration_ps / 1e9
            elif metadata.name == XLA_EVENT:
                yield XLA_EVENT, XLA_EVENT, event.duration_ps / 1e9


def profile_operations(run: Callable[[], Any]) -> list[tuple[str, str, float]]:
    """Return name, type and milliseconds of every operation in a call of `run`."""
    with tempfile.TemporaryDirectory() as directory:
        with tf.profiler.experimental.Profile(directory):
            run()
        (path,) = Path(directory).rglob("*.xplane.pb")
        return list(operation_times(XSpace.FromString(path.read_bytes())))


@dataclass(frozen=True)
class StepProfile:
    """The times of a training step.

    Attributes:
        heading: what is trained on what.
        seconds: of a step, the median.
        milliseconds: kind of operation -> its sum in a step, the largest first.
        counts: kind of operation -> number in a step.
    """

    heading: str
    seconds: float
    milliseconds: Mapping[str, float]
    counts: Mapping[str, int]

    def shares(self) -> dict[str, float]:
        """Return kind of operation -> its fraction of the times of all operations, the largest first."""
        total = sum(self.milliseconds.values())
        return {kind: milliseconds / total for kind, milliseconds in self.milliseconds.items()}


def profile_step(config: RunConfig, steps: int) -> StepProfile:
    """Return the times of the step of `config`, over `steps` of them."""
    model, runtime = ours.build_model(config)
    trainer, layers = ours.build_trainer(config, model, runtime), {layer.name: layer for layer in model.layers}
    size = config.train.batch_size
    with ours.repeated_step(trainer, *ours.prepare_batch(arrays.random(size, 0), size, model.input_shape[1])) as take:
        take(1)  # It compiles.
        step = timed(lambda: take(1))
        seconds = median(step().seconds for _ in range(steps))
        times = profile_operations(lambda: [step() for _ in range(steps)])
    totals: dict[str, float] = defaultdict(float)
    counts = Counter[str]()
    for name, operation_type, milliseconds in times:
        kind = operation_kind(name, operation_type, layers, trainer.optimizer.name)
        totals[kind] += milliseconds / steps
        counts[kind] += 1
    largest_first = dict(sorted(totals.items(), key=lambda entry: -entry[1]))
    return StepProfile(_heading(config, trainer), seconds, largest_first, {kind: count // steps for kind, count in counts.items()})


def _heading(config: RunConfig, trainer: Trainer) -> str:
    size, batch_size = trainer.model.input_shape[1], config.train.batch_size
    return f"{config.model.backbone}, {size} px, batches of {batch_size}, {config.train.optimizer}, {trainer.runtime}"


def table(profile: StepProfile) -> str:
    """Return the profile as a table in Markdown."""
    lines = [
        f"{profile.heading}: {1000 * profile.seconds:.0f} ms a step",
        "",
        "| kind | ms | share (%) | operations |",
        "|---|---|---|---|",
    ]
    for kind, share in profile.shares().items():
        lines.append(f"| {kind} | {profile.milliseconds[kind]:.1f} | {100 * share:.1f} | {profile.counts[kind]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--image_size", type=int, default=0, help="default: that of the backbone")
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--strategy", default="full")
    parser.add_argument("--steps", type=int, default=3, help="steps to take the median of, and to profile")
    settings = vars(parser.parse_args())
    steps, image_size = settings.pop("steps"), settings.pop("image_size")
    size = {"image_size": image_size} if image_size else {}
    config = RunConfig().replace(weights="none", epochs=1, **size, **settings)
    print(table(profile_step(config, steps)))


if __name__ == "__main__":
    main()
