"""Prints how far the logits of each port are from torchvision's, with weights from a .pth file written by torch itself.

    python -m tools.parity_table --torch-python=PYTHON      # an interpreter with torch; this one needs none

The cases, the weights and the reference logits are those of tests/torch_reference.py. `--stream` makes torch write its older container.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from tests.torch_reference import CASES, make_images, make_tensors, torchvision_logits
from tl_keras.backbones import build_classifier
from tl_keras.weights import load_weights

WRITE = """
import sys, collections, numpy, torch
tensors = numpy.load(sys.argv[1])
state = collections.OrderedDict((name, torch.from_numpy(tensors[name])) for name in tensors.files)
torch.save(state, sys.argv[2], _use_new_zipfile_serialization=sys.argv[3] != "stream")
"""


def write_with_torch(torch_python: str, shapes: dict[str, tuple[int, ...]], path: Path, container: str) -> None:
    """Write tensors of `shapes` to `path` as a state dict saved by torch."""
    given = path.with_suffix(".npz")
    np.savez(given, **make_tensors(shapes))
    subprocess.run([torch_python, "-c", WRITE, str(given), str(path), container], check=True)
    given.unlink()


def row(case: str, path: Path) -> str:
    """Return the line of the table for `case`, with weights from `path`."""
    backbone, stem, size, _ = CASES[case]
    model = build_classifier(backbone, 1000, image_size=size, stem=stem, normalization="none")
    info = load_weights(model, backbone, path)
    difference = float(np.abs(np.asarray(model(make_images(size))) - torchvision_logits()[case]).max())
    std = float(torchvision_logits()[case].std())
    return f"| {case} | {info.loaded} | {difference:.2e} | {std:.3f} | {difference / std:.1e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", required=True)
    parser.add_argument("--stream", action="store_const", const="stream", default="zip")
    arguments = parser.parse_args()
    print("| case | variables | max difference | standard deviation of the logits | ratio |\n|---|---|---|---|---|")
    for case, (*_, shapes) in CASES.items():
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / f"{case}.pth"
            write_with_torch(arguments.torch_python, shapes, path, arguments.stream)
            print(row(case, path), flush=True)


if __name__ == "__main__":
    main()
