"""Makes tests/fixtures/*.pth with torch. Nothing else needs torch.

    python -m venv torch-venv && torch-venv/bin/pip install torch==2.13.0 numpy
    torch-venv/bin/python tools/make_torch_fixtures.py [--output=DIRECTORY]

Every tensor is an arithmetic sequence in its dtype, see `sequence`, so that the tests know all values.
"""

import argparse
from collections import OrderedDict
from pathlib import Path

import torch

OUTPUT = Path(__file__).parents[1] / "tests" / "fixtures"
DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64".split()


def sequence(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return 0, 1, 2, ... in row-major order."""
    return torch.arange(torch.Size(shape).numel()).to(dtype).reshape(shape)


def state_dict() -> OrderedDict:
    """Return tensors of every dtype, shape, stride and way of sharing storage that the reader supports."""
    base = sequence(4, 6)
    tensors = OrderedDict({name: sequence(2, 3, dtype=getattr(torch, name)) for name in DTYPES})
    tensors["bool"] = torch.tensor([True, False, True])
    tensors["scalar"] = torch.tensor(7)
    tensors["empty"] = torch.empty(0, 3)
    tensors["base"], tensors["tied"] = base, base
    tensors["transposed"] = base.t()
    tensors["slice"] = base[1:, ::2]
    tensors["parameter"] = torch.nn.Parameter(sequence(5))
    return tensors


def layers() -> OrderedDict:
    """Return the state dict of two layers, with `_metadata` and `num_batches_tracked`."""
    model = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(2, 3, 3), bn=torch.nn.BatchNorm2d(3)))
    tensors = model.state_dict()
    for tensor in tensors.values():
        tensor.copy_(sequence(*tensor.shape, dtype=tensor.dtype))
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    torch.save(state_dict(), output / "zip.pth")
    torch.save(state_dict(), output / "stream.pth", _use_new_zipfile_serialization=False)
    torch.save(layers(), output / "layers.pth")
    torch.save({"epoch": 3, "state_dict": layers(), "note": "text"}, output / "nested.pth", pickle_protocol=4)
    torch.save(torch.nn.Linear(2, 3), output / "whole_model.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), output / "torchscript.pth")
    for path in sorted(output.glob("*.pth")):
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
