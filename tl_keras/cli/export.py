"""The verb `export`: the model of a run, for use without tl_keras."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tl_keras
from tl_keras.cli.flags import CommandFlags
from tl_keras.cli.given_data import DATA_FLAGS, given_data
from tl_keras.errors import ConfigError


def export(arguments: Sequence[str]) -> None:
    """Export the model of a finished run: uint8 RGB images in, probabilities out, checked in a fresh process."""
    command = CommandFlags(
        f"tl-keras export --run_dir=DIR --format=keras --output=DIR\n\n{export.__doc__}\n"
        "It is compared on test images that the run has kept. With flags of data, on those images instead; int8 needs the data of the run.",
        settings=DATA_FLAGS,
        defaults=dict.fromkeys(DATA_FLAGS),
        examples=(
            "tl-keras export --run_dir=runs/photos --output=photos-model",
            "tl-keras export --run_dir=runs/photos --format=litert --quantize=int8 --output=photos-phone",
        ),
        extra={
            "run_dir": ("", "directory of the finished run"),
            "format": (
                "keras",
                "<keras|saved_model|onnx|litert|openvino|all>: format; the first two take images of any size, the others those of the "
                "model's own size, which preprocess.py beside them makes; all: a directory for each",
            ),
            "output": ("", "directory to create"),
            "quantize": ("none", "<none|float16|int8>: smaller numbers, for onnx, litert and openvino"),
            "calibrated": (True, "divide logits by the temperature that was fitted on validation, if there is one; no label changes"),
            "force": (False, "write a quantized model even if it loses more than one point of accuracy"),
        },
    )
    given = command.parse(arguments)
    if given is None:
        return
    if missing := [name for name in ("run_dir", "output") if not command.value(name)]:
        raise ConfigError(f"`{missing[0]}` is required. See --help.")
    run, output = tl_keras.load_run(command.value("run_dir")), Path(command.value("output"))
    options = {name: command.value(name) for name in ("format", "quantize", "calibrated", "force")}
    run.export(output, **options, data=given_data(run, given))
    for path in sorted(output.glob("labels.json")) or sorted(output.glob("*/labels.json")):
        print(_describe(json.loads(path.read_text(encoding="utf-8")), path.parent))


def _describe(record: Mapping[str, Any], directory: Path) -> str:
    """Return what was measured of an export, in a line or two."""
    latency = ", ".join(f"{1000 * seconds:.1f} ms for {size}" for size, seconds in record["latency_seconds"].items())
    lines = [
        f"{directory / record['model']}: {record['bytes'] / 1e6:.2f} MB, reloaded in a fresh process and compared on "
        f"{record['num_images']} test images: largest difference in probability {record['max_difference']:.2g}; {latency}"
    ]
    if accuracy := record["accuracy"]:
        low, high = (100 * bound for bound in accuracy["interval"])
        lines.append(
            f"  test accuracy {100 * accuracy['exported']:.2f} %, {100 * accuracy['difference']:+.2f} points from float32 "
            f"(95 % interval {low:+.2f} to {high:+.2f}, n = {accuracy['num_examples']})"
        )
    return "\n".join(lines)
