"""Small commands of the scripts in tools/case_table.py: `python tools/case_commands.py decode FILE | apart RUN PATTERN | result RUN KEY`.

They import the project that is first on the path, of today or of an earlier commit, so they know both names of what they call.
"""

import collections
import importlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {"red": (200, 20, 20), "blue": (20, 20, 200)}


def decode(file: str) -> None:
    """Print the size of a decoded image, the colours at its four edges, and the note on it, if any."""
    try:
        pixels, note = importlib.import_module("tl_keras.data.decode").decode_with_note(Path(file))
    except ModuleNotFoundError:
        pixels, note = importlib.import_module("tl_keras.data.images").decode_image(Path(file)), ""
    height, width, _ = pixels.shape
    middle = {"top": (0, width // 3), "bottom": (-1, width // 3), "left": (height // 2, 0), "right": (height // 2, -1)}
    print(f"{height} x {width}:", ", ".join(f"{side} {_colour(pixels[where])}" for side, where in middle.items()), note)


def _colour(pixel: np.ndarray) -> str:
    distances = {name: np.abs(pixel.astype(int) - colour).max() for name, colour in COLOURS.items()}
    nearest = min(distances, key=distances.__getitem__)
    return nearest if distances[nearest] < 30 else str(tuple(pixel.tolist()))


def apart(run: str, pattern: str) -> None:
    """Print the number of groups of a run, and of those with images in more than one split. The pattern's first group names them."""
    with np.load(Path(run) / "split.npz") as record:
        paths, splits = record["paths"].tolist(), record["splits"].tolist()
    found = collections.defaultdict(set)
    for path, split in zip(paths, splits, strict=True):
        match = re.search(pattern, path)
        found[match[1] if match else path].add(split)
    print(f"{len(found)} groups, {sum(len(group) > 1 for group in found.values())} in several splits")


def result(run: str, key: str) -> None:
    """Print a value of `result.json`, e.g. that of `metrics.test.recall`."""
    value: Any = json.loads((Path(run) / "result.json").read_text(encoding="utf-8"))
    for part in key.split("."):
        value = value[part]
    print(f"{key} = {value}")


COMMANDS: Mapping[str, Callable[..., None]] = {"decode": decode, "apart": apart, "result": result}


def main(arguments: list[str]) -> int:
    """Run one of the commands. Errors of the project end it with their message, as on its command line."""
    name, *rest = arguments
    try:
        COMMANDS[name](*rest)
    except importlib.import_module("tl_keras.errors").UserError as error:
        print(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
