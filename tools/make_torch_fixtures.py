"""Make tests/fixtures/*.pth with torch, which is needed for this alone.

    python -m venv torch-venv && torch-venv/bin/pip install torch==2.13.0 numpy
    torch-venv/bin/python tools/make_torch_fixtures.py [--output=DIRECTORY]

Every tensor is an arithmetic sequence in its dtype, so that the tests know all values: see `sequence`. zip and stream files are
written by torch; the tar of torch 0.1, which torch only reads, is put together here and read back by torch.
"""

import argparse
import io
import pickle
import struct
import tarfile
from collections import OrderedDict
from pathlib import Path

import torch

OUTPUT = Path(__file__).parents[1] / "tests" / "fixtures"
DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64".split()


def sequence(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """0, 1, 2, ... in row-major order."""
    return torch.arange(torch.Size(shape).numel()).to(dtype).reshape(shape)


def state_dict() -> OrderedDict:
    """Each dtype, shape, stride and way of sharing that the reader must know."""
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
    """The state dict of two layers, with `_metadata` and `num_batches_tracked`."""
    model = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(2, 3, 3), bn=torch.nn.BatchNorm2d(3)))
    tensors = model.state_dict()
    for tensor in tensors.values():
        tensor.copy_(sequence(*tensor.shape, dtype=tensor.dtype))
    return tensors


class _Class:
    """A class of torch by its name alone, as pickled long ago."""

    def __init__(self, name: str) -> None:
        self.name = name


class _TarPickler(pickle._Pickler):
    """Protocol 2, with tensors as persistent ids and classes by name."""

    def persistent_id(self, value: object) -> object:
        return value.key if isinstance(value, _Key) else None

    def save(self, value: object, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Class):
            self.write(pickle.GLOBAL + f"torch\n{value.name}\n".encode())
        else:
            super().save(value, save_persistent_id)


class _Key:
    def __init__(self, key: int) -> None:
        self.key = key


def _pickled(*values: object) -> bytes:
    file = io.BytesIO()
    for value in values:
        _TarPickler(file, protocol=2).dump(value)
    return file.getvalue()


def write_tar(path: Path) -> None:
    """A tensor and its transpose over one storage, a view of the storage, an integer: with torch 0.1's addresses as keys."""
    storages = _pickled(2, (101, "cpu", _Class("FloatStorage"))) + struct.pack("<q6f", 6, *range(6))
    storages += _pickled((102, "cpu", _Class("LongStorage"))) + struct.pack("<q1q", 1, 7)
    storages += _pickled([(103, 101, 2, 4)])
    tensors = _pickled(4)
    for key, storage, kind, sizes, strides, offset in (
        (201, 101, "FloatTensor", (2, 3), (3, 1), 0),
        (202, 101, "FloatTensor", (3, 2), (1, 3), 0),
        (203, 103, "FloatTensor", (3,), (1,), 1),
        (204, 102, "LongTensor", (1,), (1,), 0),
    ):
        tensors += _pickled((key, storage, _Class(kind))) + struct.pack("<i", len(sizes)) + b"\xaa" * 4
        tensors += struct.pack(f"<{2 * len(sizes) + 1}q", *sizes, *strides, offset)
    names = {"weight": _Key(201), "transposed": _Key(202), "view": _Key(203), "integer": _Key(204)}
    members = {
        "sys_info": _pickled({"protocol_version": 1000, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}),
        "pickle": _pickled(OrderedDict(names)),
        "storages": storages,
        "tensors": tensors,
    }
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    read = torch.load(path, weights_only=False)
    if {name: tensor.tolist() for name, tensor in read.items()} != TAR_VALUES:
        raise SystemExit(f"torch reads {path} as {read}")


TAR_VALUES = {
    "weight": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
    "transposed": [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]],
    "view": [3.0, 4.0, 5.0],
    "integer": [7],
}


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
    write_tar(output / "tar.pth")
    for path in sorted(output.glob("*.pth")):
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
