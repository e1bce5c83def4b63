"""The reader of torch files: every container, dtype and stride by value; hostile files, each refused without side effects."""

import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch_builder import (
    SIX_FLOATS,
    STORAGE_ENTRY,
    SYSTEM,
    Call,
    Name,
    Persistent,
    pickled,
    storage,
    stream_file,
    tensor,
    zip_file,
)

from tl_keras.errors import DamagedError, MissingError
from tl_keras.weights.torch_file import inspect_file, list_tensors, read_tensors

FIXTURES = Path(__file__).parent / "fixtures"
DTYPES = "float64 float32 float16 int64 int32 int16 int8 uint8 uint16 uint32 uint64".split()
BASE = np.arange(24, dtype=np.float32).reshape(4, 6)
MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)

FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "exec", "compile", "import", "pickle.find_class", "tempfile.")
events: list[str] = []
watching = False


def _watch(event: str, arguments: tuple) -> None:
    if watching and (event.startswith(FORBIDDEN) or event == "open" and arguments[1] not in ("r", "rb", None)):
        events.append(f"{event} {arguments}")


sys.addaudithook(_watch)


def read_bytes(tmp_path: Path, content: bytes) -> dict[str, np.ndarray]:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    return read_tensors(path)


def refusal(tmp_path: Path, content: bytes) -> str:
    """Return the message of the refusal. Nothing may be executed or written, and at most 8 MB allocated."""
    global watching
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    events.clear()
    tracemalloc.start()
    watching = True
    try:
        with pytest.raises(DamagedError) as caught:
            read_tensors(path)
    finally:
        watching = False
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert not events
    assert peak < 8 * 2**20
    assert os.listdir(tmp_path) == ["file.pth"] and path.read_bytes() == content
    assert str(path) in str(caught.value)
    return str(caught.value)


def expected() -> dict[str, np.ndarray]:
    tensors = {name: np.arange(6).astype(name).reshape(2, 3) for name in DTYPES}
    tensors["bfloat16"] = MATRIX
    tensors["bool"] = np.array([True, False, True])
    tensors["scalar"] = np.array(7)
    tensors["empty"] = np.empty((0, 3), np.float32)
    tensors |= {"base": BASE, "tied": BASE, "transposed": BASE.T, "slice": BASE[1:, ::2]}
    tensors["parameter"] = np.arange(5, dtype=np.float32)
    return tensors


@pytest.mark.parametrize("container", ["zip", "stream"])
def test_every_dtype_and_stride_is_read_by_value(container):
    tensors = read_tensors(FIXTURES / f"{container}.pth")
    assert set(tensors) == set(expected())
    for name, array in expected().items():
        assert tensors[name].dtype == array.dtype, name
        np.testing.assert_array_equal(tensors[name], array, err_msg=name)
    assert inspect_file(FIXTURES / f"{container}.pth").container == container


def test_a_state_dict_keeps_its_order_and_counters():
    tensors = read_tensors(FIXTURES / "layers.pth")
    assert list(tensors) == [
        "conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked",
    ]  # fmt: skip
    np.testing.assert_array_equal(tensors["conv.weight"], np.arange(54, dtype=np.float32).reshape(3, 2, 3, 3))
    assert tensors["bn.num_batches_tracked"].dtype == np.int64 and tensors["bn.num_batches_tracked"].shape == ()


def test_a_nested_state_dict_of_protocol_4_is_found_and_other_names_are_listed():
    file = inspect_file(FIXTURES / "nested.pth")
    assert [tensor.name for tensor in file.tensors] == list(read_tensors(FIXTURES / "layers.pth"))
    assert file.other_names == ("epoch", "note")


def test_listed_dtypes_are_those_of_the_file():
    listed = {tensor.name: (tensor.shape, tensor.dtype) for tensor in list_tensors(FIXTURES / "zip.pth")}
    assert listed["bfloat16"] == ((2, 3), "bfloat16") and listed["transposed"] == ((6, 4), "float32")
    assert listed["scalar"] == ((), "int64") and listed["bool"] == ((3,), "bool")


def test_tensors_share_memory_with_the_file_and_cannot_be_written():
    tensors = read_tensors(FIXTURES / "zip.pth")
    assert np.shares_memory(tensors["base"], tensors["transposed"])
    assert not any(array.flags.writeable for array in tensors.values())
    assert not tensors["base"].flags.owndata


@pytest.mark.parametrize("container", ["zip", "stream"])
def test_tensorflow_takes_arrays_of_any_alignment(container):
    tensorflow = pytest.importorskip("tensorflow")
    for name, array in read_tensors(FIXTURES / f"{container}.pth").items():
        np.testing.assert_array_equal(tensorflow.convert_to_tensor(array).numpy(), array, err_msg=name)


WRITTEN = {
    "zip without byteorder": zip_file({"w": tensor()}),
    "zip marked little": zip_file({"w": tensor()}, STORAGE_ENTRY, ("archive/byteorder", b"little")),
    "zip marked big": zip_file({"w": tensor()}, ("archive/data/0", struct.pack(">6f", *range(6))), ("archive/byteorder", b"big")),
    "addresses as keys": zip_file({"w": tensor(over=storage(key="94704"))}, ("archive/data/94704", SIX_FLOATS)),
    "old _rebuild_tensor": zip_file({"w": Call(Name("torch._utils", "_rebuild_tensor"), (storage(), 0, (2, 3), (3, 1)))}),
    "stored on a GPU": zip_file(
        {"w": tensor(over=Persistent(("storage", Name("torch.cuda", "FloatStorage"), "0", "cuda:0", 6)))},
    ),
    "OrderedDict of pairs": zip_file(Call(Name("collections", "OrderedDict"), ([["w", tensor()]],))),
    "Parameter called": zip_file({"w": Call(Name("torch.nn.parameter", "Parameter"), (tensor(),))}),
    "odd stride of a dimension of one": zip_file({"w": tensor((1, 2, 3), (2**62, 3, 1))}),
    "under model": zip_file({"model": {"w": tensor()}, "optimizer": {"state": {0: {"step": 1}}}}),
    "stream with no view": stream_file({"w": tensor(over=storage(part=(None,)))}),
    "stream with a view": stream_file(
        {"w": tensor(over=storage(8, part=(("v", 2, 6),)))}, storages=struct.pack("<q8f", 8, 9, 9, *range(6))
    ),
}


@pytest.mark.parametrize("content", WRITTEN.values(), ids=WRITTEN.keys())
def test_variants_of_the_format_are_read(tmp_path, content):
    (array,) = read_bytes(tmp_path, content).values()
    assert array.dtype == np.float32 and array.dtype.isnative
    np.testing.assert_array_equal(array.reshape(2, 3), MATRIX)


def _without_checksums(content: bytes) -> bytes:
    """Return the zip with checksums of zero, as torch writes them on request."""
    content = bytearray(content)
    for signature, offset in ((b"PK\3\4", 14), (b"PK\1\2", 16)):
        position = content.find(signature)
        while position >= 0:
            content[position + offset : position + offset + 4] = bytes(4)
            position = content.find(signature, position + 4)
    return bytes(content)


def test_zero_checksums_are_accepted(tmp_path):
    np.testing.assert_array_equal(read_bytes(tmp_path, _without_checksums(zip_file({"w": tensor()})))["w"], MATRIX)


COMMAND = "touch ran"
EVIL = Call(Name("os", "system"), (COMMAND,))
MOVED = zip_file({"w": tensor()}, STORAGE_ENTRY, ("archive/data/1", SIX_FLOATS))
NESTED = b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."


def _pickle(opcodes: bytes) -> bytes:
    return zip_file(b"\x80\x02" + opcodes + b".")


def _layered_tuples(depth: int = 60) -> bytes:
    """Return opcodes of nested pairs, each twice the previous one: 2**60 leaves if they are walked or hashed."""
    return b")" + b"".join(b"q%ch%c\x86" % (index, index) for index in range(depth))


HOSTILE = {
    "calls os.system in a zip": (zip_file(EVIL), "asks for os.system"),
    "calls os.system in a stream": (stream_file(EVIL), "asks for os.system"),
    "calls os.system as the magic number": (pickled(EVIL), "asks for os.system"),
    "calls os.system beside tensors": (zip_file({"w": tensor(), "x": EVIL}), "asks for os.system"),
    "calls posix.system by its protocol 4 name": (_pickle(b"\x8c\x05posix\x8c\x06system\x93"), "asks for posix.system"),
    "calls eval": (zip_file(Call(Name("builtins", "eval"), ("1",))), "asks for builtins.eval"),
    "calls what reaches attributes": (zip_file({"w": tensor(), "x": Call(Name("builtins", "getattr"), ("a", "b"))}), "builtins.getattr"),
    "asks for a module through another": (zip_file({"w": tensor(), "x": Name("numpy", "__loader__")}), "asks for numpy.__loader__"),
    "asks for a subprocess beside tensors": (zip_file({"w": tensor(), "x": Name("subprocess", "Popen")}), "asks for subprocess.Popen"),
    "imports by name": (zip_file({"w": tensor(), "x": Call(Name("importlib", "import_module"), ("os",))}), "importlib.import_module"),
    "holds nothing but a class": (zip_file({"w": Name("numpy", "ndarray")}), "no dict of tensors"),
    "asks for an attribute of an allowed module": (zip_file({"w": Name("torch._utils", "os")}), "asks for torch._utils.os"),
    "instantiates by INST": (_pickle(b"(ios\nsystem\n"), "opcode INST"),
    "uses the extension registry": (_pickle(b"\x82\x01"), "opcode EXT1"),
    "calls a text": (_pickle(b"X\x01\0\0\0a)R"), "calls something that is no function"),
    "calls a dtype": (zip_file({"w": Call(Name("torch", "float32"), ())}), "calls torch.float32"),
    "calls itself through a type": (
        zip_file({"w": Call(Name("torch._tensor", "_rebuild_from_type_v2"), (Name("torch._tensor", "_rebuild_from_type_v2"), 0, (), 0))}),
        "no tensor function",
    ),
    "gives too few arguments": (zip_file({"w": Call(Name("torch._utils", "_rebuild_tensor_v2"), ())}), "with 0 arguments"),
    "builds a state into a tensor": (zip_file(pickled(tensor())[:-1] + b"}b."), "gives a state"),
    "storage larger than its entry": (zip_file({"w": tensor(over=storage(7))}), "claims 28 bytes, and its entry has 24"),
    "storage smaller than its entry": (zip_file({"w": tensor((5,), (1,), over=storage(5))}), "claims 20 bytes, and its entry has 24"),
    "storage without an entry": (zip_file({"w": tensor(over=storage(key="9"))}), "entry is absent"),
    "storage of 100 GB in 1 kB": (zip_file({"w": tensor(over=storage(25 * 10**9))}), "claims 100,000,000,000 bytes"),
    "stream of 100 GB in 1 kB": (
        stream_file({"w": tensor(over=storage(25 * 10**9))}, storages=struct.pack("<q", 25 * 10**9) + SIX_FLOATS),
        "truncated, or claims too much",
    ),
    "storage of another size": (stream_file({"w": tensor()}, storages=struct.pack("<q", 5) + SIX_FLOATS), "6 elements and has 5"),
    "negative number of elements": (zip_file({"w": tensor(over=storage(-6))}), "size of a storage is negative"),
    "negative number in a stream": (stream_file({"w": tensor()}, storages=struct.pack("<q", -6) + SIX_FLOATS), "is negative"),
    "number of elements above 2**63": (zip_file({"w": tensor(over=storage(2**64 + 6))}), "above 2**63"),
    "number of elements that is a text": (zip_file({"w": tensor(over=storage("6"))}), "no integer"),
    "key that escapes": (zip_file({"w": tensor(over=storage(key="../data.pkl"))}), "key of a storage is not a plain text"),
    "storage described twice": (zip_file({"w": tensor(), "x": tensor(over=storage(prefix="Int"))}), "described in two ways"),
    "persistent id of something else": (zip_file({"w": Persistent(("module", "x"))}), "no storage"),
    "persistent id that is a text": (zip_file({"w": Persistent("7")}), "no storage"),
    "negative stride": (zip_file({"w": tensor(strides=(-3, 1))}), "stride of a tensor is negative"),
    "negative size": (zip_file({"w": tensor(shape=(-2, 3))}), "size of a tensor is negative"),
    "negative offset": (zip_file({"w": tensor(offset=-1)}), "offset of a tensor is negative"),
    "stride whose product overflows": (zip_file({"w": tensor((3, 3), (2**62, 1))}), "reaches element 9,223,372,036,854,775,810"),
    "sizes whose product overflows": (zip_file({"w": tensor((2**33, 2**33), (0, 0))}), "repeats the elements"),
    "stride of 2**64": (zip_file({"w": tensor(strides=(2**64, 1))}), "above 2**63"),
    "offset out of the storage": (zip_file({"w": tensor(offset=1)}), "reaches element 6 of a storage of 6"),
    "expanded a million times": (zip_file({"w": tensor((10**6, 6), (0, 1))}), "repeats the elements"),
    "empty and huge": (zip_file({"w": tensor((0, 2**62), (1, 1))}), "is empty and claims"),
    "a thousand dimensions": (zip_file({"w": tensor((1,) * 1000, (1,) * 1000)}), "tuples of one length"),
    "view out of the storage": (stream_file({"w": tensor(over=storage(part=(("v", 1, 6),)))}), "a view reaches element 7"),
    "name twice": (_pickle(b"}" + 2 * b"X\x01\0\0\0wNs"), "gives 'w' twice"),
    "dict that is its own key": (_pickle(b"}q\0h\0K\x01s"), "keys that are neither"),
    "key that takes for ever to hash": (_pickle(b"}" + _layered_tuples() + b"K\x01s"), "keys that are neither"),
    "keys that all hash alike": (
        _pickle(b"}" + b"".join(b"\x8a\x0a" + (key * (2**61 - 1)).to_bytes(10, "little") + b"Ns" for key in range(1, 99))),
        "keys that are neither",
    ),
    "layers of tuples": (_pickle(b"}X\x01\0\0\0w" + _layered_tuples() + b"s"), "no dict of tensors"),
    "brackets 100,000 deep": (zip_file(NESTED), "no dict of tensors"),
    "a long list given on and on": (
        _pickle(b"](" + b")" * 50_000 + b"eq\0ctorch\nSize\nq\1" + b"h\1h\0\x85R" * 25), "more than 1,000,000 steps"
    ),
    "many arguments given on and on": (
        _pickle(b"ctorch\nSize\nq\1(" + b")" * 50_000 + b"tq\0" + b"h\1h\0R" * 25), "more than 1,000,000 steps"
    ),
    "text of 4 GB": (_pickle(b"X\xff\xff\xff\xff"), "claims a text of 4,294,967,295 bytes"),
    "memo slot of 4 billion": (_pickle(b"Nr\xff\xff\xff\xff"), "no dict of tensors"),
    "nothing on the stack": (_pickle(b"R"), "pops from an empty stack"),
    "no mark": (_pickle(b"t"), "pops to a mark"),
    "memo that is not there": (_pickle(b"h\x05"), "recalls a memo that it has not stored"),
    "end without an object": (_pickle(b""), "pops from an empty stack"),
    "duplicate names": (None, "'archive/data/0' 2 times"),
    "escaping name": (zip_file({"w": tensor()}, STORAGE_ENTRY, ("archive/../../evil", b"x")), "would escape"),
    "absolute name": (zip_file({"w": tensor()}, STORAGE_ENTRY, ("/etc/evil", b"x")), "would escape"),
    "Windows name": (zip_file({"w": tensor()}, STORAGE_ENTRY, ("archive\\..\\evil", b"x")), "would escape"),
    "compressed": (zip_file({"w": tensor()}, compression=zipfile.ZIP_DEFLATED), "compressed"),
    "compressed bomb": (
        zip_file({"w": tensor()}, ("archive/data/0", bytes(2**24)), compression=zipfile.ZIP_DEFLATED), "entries claim more than"
    ),
    "two pickles": (zip_file({"w": tensor()}, STORAGE_ENTRY, ("other/data.pkl", b"x")), "2 entries named data.pkl"),
    "no pickle": (zip_file({"w": tensor()}).replace(b"data.pkl", b"data.txt"), "0 entries named data.pkl"),
    "unknown byte order": (zip_file({"w": tensor()}, STORAGE_ENTRY, ("archive/byteorder", b"middle")), "neither little nor big"),
    "local header of another name": (MOVED.replace(b"archive/data/0", b"archive/data/X", 1), "not where the list"),
    "big-endian stream": (stream_file({"w": tensor()}, system=SYSTEM | {"little_endian": False}), "little-endian system"),
    "stream with a storage too many": (stream_file({"w": tensor()}, keys=("0", "1")), "list of storages"),
    "stream of another version": (stream_file({"w": tensor()}).replace(b"M\xe9\x03", b"M\xea\x03"), "version 1001"),
    "a pickled dict": (pickled({"w": 1}), "without torch's magic number"),
    "tar of torch 0.1": (b"sys_info".ljust(257, b"\0") + b"ustar" + bytes(1000), "unlike the zip and stream files of torch"),
    "web page": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "looks like a web page"),
    "pointer of a large-file store": (b"version https://git-lfs.github.com/spec/v1\n", "it begins with b'version https://'"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(1000), "unlike the zip and stream files of torch"),
    "nothing": (b"", "it is empty"),
    "no tensors": (zip_file({"a": 1}), "no dict of tensors"),
    "tensors without names": (zip_file({0: tensor()}), "no dict of tensors"),
    "a list": (zip_file([tensor()]), "no dict of tensors"),
}  # fmt: skip


def _duplicated() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return zip_file({"w": tensor()}, STORAGE_ENTRY, STORAGE_ENTRY)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_for_their_reason_without_side_effects(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, reason = HOSTILE[name]
    assert reason in refusal(tmp_path, _duplicated() if content is None else content)


@pytest.mark.parametrize("opcodes", [b")" * 1000, b"X\0\xff\0\0" + b"x" * 0xFF00], ids=["many", "long texts"])
def test_the_number_of_steps_is_bounded(opcodes, tmp_path, monkeypatch):
    monkeypatch.setattr("tl_keras.weights.torch_file.unpickler.MAX_STEPS", 1000)
    assert "more than 1,000 steps" in refusal(tmp_path, _pickle(opcodes))


@pytest.mark.parametrize(("name", "reason"), [("whole_model", "torch.nn.modules.linear.Linear"), ("torchscript", "TorchScript program")])
def test_whole_models_and_torchscript_are_refused(name, reason):
    with pytest.raises(DamagedError, match=reason):
        read_tensors(FIXTURES / f"{name}.pth")


def test_a_missing_file_is_a_missing_error(tmp_path):
    with pytest.raises(MissingError, match="There is no weights file"):
        list_tensors(tmp_path / "none.pth")


@pytest.mark.parametrize("container", ["zip", "stream"])
def test_a_file_truncated_anywhere_is_damaged(container, tmp_path):
    whole, path = (FIXTURES / f"{container}.pth").read_bytes(), tmp_path / "file.pth"
    for length in sorted({*range(0, len(whole), 7), *range(0, len(whole), 1024), *range(len(whole) - 30, len(whole))}):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            read_tensors(path)


MEASURE = """
import resource, sys, time
from pathlib import Path
from tl_keras.weights.torch_file import list_tensors, read_tensors
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
tensors = read_tensors(Path(sys.argv[1]))
seconds = time.perf_counter() - start
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_a_large_file_is_mapped_and_not_copied(tmp_path):
    path = tmp_path / "large.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled({"w": tensor((2**24,), (1,), over=storage(2**24))}))
        archive.writestr("archive/data/0", bytes(2**26))
    output = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True).stdout
    seconds, num_bytes = map(float, output.split())
    assert seconds < 1 and num_bytes < 2**23
