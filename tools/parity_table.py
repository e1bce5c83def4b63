"""How far the logits of each port are from torchvision's, with weights that came through a .pth file written by torch itself.

    python -m tools.parity_table --torch-python=PYTHON      # an interpreter that has torch; this one needs none

The cases, the weights and the reference logits are those of tests/torch_reference.py. `--stream` has torch write its older container.
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
    """Write the tensors of `shapes` to `path` as torch saves a state dict."""
    given = path.with_suffix(".npz")
    np.savez(given, **make_tensors(shapes))
    subprocess.run([torch_python, "-c", WRITE, str(given), str(path), container], check=True)
    given.unlink()


def row(case: str, path: Path) -> str:
    """The line of the table for `case`, its weights read from `path`."""
    backbone, stem, size, _ = CASES[case]
    model = build_classifier(backbone, 1000, image_size=size, stem=stem, normalization="none")
    account = load_weights(model, backbone, path)
    difference = float(np.abs(np.asarray(model(make_images(size))) - torchvision_logits()[case]).max())
    deviation = float(torchvision_logits()[case].std())
    return f"| {case} | {account['loaded']} | {difference:.2e} | {deviation:.3f} | {difference / deviation:.1e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", required=True)
    parser.add_argument("--stream", action="store_const", const="stream", default="zip")
    arguments = parser.parse_args()
    print("| case | variables | max difference | deviation of the logits | ratio |\n|---|---|---|---|---|")
    for case, (*_, shapes) in CASES.items():
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / f"{case}.pth"
            write_with_torch(arguments.torch_python, shapes, path, arguments.stream)
            print(row(case, path), flush=True)


if __name__ == "__main__":
    main()
