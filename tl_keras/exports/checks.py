"""The check of an export: its probabilities and its times in a fresh process, against the trained model."""

import json
import math
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from types import MappingProxyType
from typing import Any

import numpy as np

from tl_keras.errors import UserError
from tl_keras.exports import reload
from tl_keras.exports.formats import FLOAT16, NONE, Format

# Largest difference in probability from the trained model on the same inputs. None: int8 is judged by its accuracy.
TOLERANCES: Mapping[str, float] = MappingProxyType({NONE: 1e-4, FLOAT16: 0.05})
MAX_LOST_ACCURACY = 0.01


class ExportError(UserError):
    """The outputs of an exported model differ from those of the trained one."""


@dataclass(frozen=True, eq=False)
class Reloaded:
    """Outputs and times of an export in a fresh process.

    Attributes:
        probabilities: of the images, float32 (n, classes).
        input_probabilities: of the further inputs, float32 (m, classes); None without any.
        load_seconds: until the first prediction was done, the import of the runtime included.
        latency_seconds: batch size -> median seconds of a call.
    """

    probabilities: np.ndarray
    input_probabilities: np.ndarray | None
    load_seconds: float
    latency_seconds: dict[str, float]


def reload_export(
    format: Format, path: Path, image_size: int, images: Iterable[np.ndarray], inputs: Iterable[np.ndarray] | None = None
) -> Reloaded:
    """Load the export `path` in a fresh process that lacks the packages which it must not need.

    Args:
        images: uint8 (height, width, 3) of any sizes; they go through the `preprocess.py` beside the export, if there is one.
        inputs: further inputs, as the model takes them; None: none.

    Raises:
        ExportError: The export cannot be loaded or does not predict.
    """
    with tempfile.TemporaryDirectory() as temporary:
        job, output, times = (Path(temporary) / name for name in ("job.json", "output.npz", "times.json"))
        description: dict[str, Any] = {"format": format.name, "model": str(path.absolute()), "image_size": image_size}
        description |= {"blocked": list(format.without), "output": str(output), "times": str(times)}
        description["images"] = _write_images(Path(temporary) / "images.npz", images)
        description["inputs"] = None if inputs is None else _write_images(Path(temporary) / "inputs.npz", inputs)
        job.write_text(json.dumps(description))
        done = subprocess.run([sys.executable, "-I", "-B", reload.__file__, str(job)], capture_output=True, text=True)
        if done.returncode:
            raise ExportError(f"The exported {format.name} model cannot be used in a fresh process:\n{done.stderr.strip()[-2000:]}")
        with np.load(output) as outputs:
            arrays = {name: outputs[name] for name in outputs.files}
        return Reloaded(arrays["images"], arrays.get("inputs"), **json.loads(times.read_text()))


def _write_images(path: Path, images: Iterable[np.ndarray]) -> str:
    """Write images to an NPZ file one by one, so that a large data set need not fit into memory."""
    with zipfile.ZipFile(path, "w") as archive:
        for index, image in enumerate(images):
            with archive.open(f"{index:08d}.npy", "w") as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(image), allow_pickle=False)
    return str(path)


def compare_outputs(expected: np.ndarray, received: np.ndarray) -> dict[str, Any]:
    """Return the largest difference in probability, and on how many of the images the likeliest class differs."""
    changed = int((expected.argmax(axis=1) != received.argmax(axis=1)).sum())
    return {"num_images": len(expected), "max_difference": float(np.abs(received - expected).max()), "num_changed_labels": changed}


def compare_accuracy(labels: np.ndarray, trained: np.ndarray, exported: np.ndarray) -> dict[str, Any]:
    """Return the accuracies of the trained model in float32 and of an export on the same images, and their paired difference.

    Args:
        labels: int (n,).
        trained, exported: the predicted classes, int (n,).
    """
    gained = int(((exported == labels) & (trained != labels)).sum())
    lost = int(((exported != labels) & (trained == labels)).sum())
    return {
        "num_examples": len(labels),
        "trained": float((trained == labels).mean()),
        "exported": float((exported == labels).mean()),
        "difference": (gained - lost) / len(labels),
        "interval": list(paired_interval(gained, lost, len(labels))),
    }


def paired_interval(gained: int, lost: int, num_examples: int, confidence_level: float = 0.95) -> tuple[float, float]:
    """Return the interval of a difference of two accuracies on the same images (Bonett and Price 2012, adjusted Wald).

    Args:
        gained, lost: numbers of images that only the second, or only the first classifier predicts correctly.
    """
    total = num_examples + 2
    more, less = (gained + 1) / total, (lost + 1) / total
    half_width = NormalDist().inv_cdf((1 + confidence_level) / 2) * math.sqrt((more + less - (more - less) ** 2) / total)
    return max(-1.0, more - less - half_width), min(1.0, more - less + half_width)


def refusal(quantize: str, outputs: Mapping[str, Any], accuracy: Mapping[str, Any] | None) -> str:
    """Return why an export does not match the trained model, or an empty string.

    Args:
        outputs: that of `compare_outputs`.
        accuracy: that of `compare_accuracy`; None if it was not measured.
    """
    reasons = []
    if (tolerance := TOLERANCES.get(quantize)) is not None:
        if not outputs["max_difference"] <= tolerance:
            reasons.append(f"its probabilities differ by up to {outputs['max_difference']:.2g}; at most {tolerance:g} was expected")
        if outputs["num_changed_labels"]:
            reasons.append(f"its likeliest class differs on {outputs['num_changed_labels']} of {outputs['num_images']} test images")
    elif accuracy and accuracy["difference"] < -MAX_LOST_ACCURACY:
        low, high = (100 * bound for bound in accuracy["interval"])
        change = f"{100 * accuracy['difference']:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})"
        reasons.append(f"its accuracy on {accuracy['num_examples']} test images changes by {change}")
    return " and ".join(reasons)
