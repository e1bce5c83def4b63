"""Files of torch: every container, dtype and stride by value; and hostile ones, each refused for its reason without doing anything."""

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
    tar_file,
    tensor,
    zip_file,
)

from tl_keras.errors import DamagedError, MissingError
from tl_keras.weights.torch_file import describe, inspect_file, read_tensors

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
    """The reason for which a file is refused, having seen that nothing was run or written, and no more than 8 MB allocated."""
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
def test_every_dtype_and_stride_has_its_values(container):
    tensors = read_tensors(FIXTURES / f"{container}.pth")
    assert set(tensors) == set(expected())
    for name, array in expected().items():
        assert tensors[name].dtype == array.dtype, name
        np.testing.assert_array_equal(tensors[name], array, err_msg=name)
    assert inspect_file(FIXTURES / f"{container}.pth").container == container


def test_tar_of_the_first_torch_has_its_values():
    tensors = read_tensors(FIXTURES / "tar.pth")
    expected = {"weight": MATRIX, "transposed": MATRIX.T, "view": np.array([3, 4, 5], np.float32), "integer": np.array([7])}
    assert inspect_file(FIXTURES / "tar.pth").container == "tar" and list(tensors) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(tensors[name], array, err_msg=name)


def test_state_dict_of_layers_keeps_its_order_and_counters():
    tensors = read_tensors(FIXTURES / "layers.pth")
    assert list(tensors) == [
        "conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked",
    ]  # fmt: skip
    np.testing.assert_array_equal(tensors["conv.weight"], np.arange(54, dtype=np.float32).reshape(3, 2, 3, 3))
    assert tensors["bn.num_batches_tracked"].dtype == np.int64 and tensors["bn.num_batches_tracked"].shape == ()


def test_nested_state_dict_of_protocol_4_is_found_and_the_rest_accounted_for():
    file = inspect_file(FIXTURES / "nested.pth")
    assert [tensor.name for tensor in file.tensors] == list(read_tensors(FIXTURES / "layers.pth"))
    assert file.left_out == ("epoch", "note")


def test_description_names_the_files_own_dtypes():
    described = {tensor.name: (tensor.shape, tensor.dtype) for tensor in describe(FIXTURES / "zip.pth")}
    assert described["bfloat16"] == ((2, 3), "bfloat16") and described["transposed"] == ((6, 4), "float32")
    assert described["scalar"] == ((), "int64") and described["bool"] == ((3,), "bool")


def test_tensors_share_memory_with_the_file_and_cannot_be_written():
    tensors = read_tensors(FIXTURES / "zip.pth")
    assert np.shares_memory(tensors["base"], tensors["transposed"])
    assert not any(array.flags.writeable for array in tensors.values())
    assert not tensors["base"].flags.owndata


@pytest.mark.parametrize("container", ["zip", "stream", "tar"])
def test_arrays_go_into_tensorflow_whatever_their_alignment(container):
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
    """A zip whose checksums are zero, as torch leaves them on request."""
    content = bytearray(content)
    for signature, offset in ((b"PK\3\4", 14), (b"PK\1\2", 16)):
        position = content.find(signature)
        while position >= 0:
            content[position + offset : position + offset + 4] = bytes(4)
            position = content.find(signature, position + 4)
    return bytes(content)


def test_zero_checksums_do_not_matter(tmp_path):
    np.testing.assert_array_equal(read_bytes(tmp_path, _without_checksums(zip_file({"w": tensor()})))["w"], MATRIX)


COMMAND = "touch ran"
EVIL = Call(Name("os", "system"), (COMMAND,))
MOVED = zip_file({"w": tensor()}, STORAGE_ENTRY, ("archive/data/1", SIX_FLOATS))
NESTED = b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."


def _pickle(opcodes: bytes) -> bytes:
    return zip_file(b"\x80\x02" + opcodes + b".")


def _layered_tuples(depth: int = 60) -> bytes:
    """A tuple of two of the one before: 2**60 leaves if it is walked or hashed."""
    return b")" + b"".join(b"q%ch%c\x86" % (index, index) for index in range(depth))


HOSTILE = {
    "calls os.system in a zip": (zip_file(EVIL), "asks for os.system"),
    "calls os.system in a stream": (stream_file(EVIL), "asks for os.system"),
    "calls os.system as the magic number": (pickled(EVIL), "asks for os.system"),
    "calls os.system in a tar": (tar_file(EVIL, pickled(0, []), pickled(0)), "asks for os.system"),
    "calls os.system beside tensors": (zip_file({"w": tensor(), "x": EVIL}), "asks for os.system"),
    "calls posix.system by its protocol 4 name": (_pickle(b"\x8c\x05posix\x8c\x06system\x93"), "asks for posix.system"),
    "calls eval": (zip_file(Call(Name("builtins", "eval"), ("1",))), "asks for builtins.eval"),
    "asks for a global outside the list": (zip_file({"w": Name("numpy", "ndarray")}), "asks for numpy.ndarray"),
    "asks for an attribute of an allowed module": (zip_file({"w": Name("torch._utils", "os")}), "asks for torch._utils.os"),
    "instantiates by INST": (_pickle(b"(ios\nsystem\n"), "opcode INST"),
    "uses the extension registry": (_pickle(b"\x82\x01"), "opcode EXT1"),
    "calls a text": (_pickle(b"X\x01\0\0\0a)R"), "calls what is no function"),
    "calls a dtype": (zip_file({"w": Call(Name("torch", "float32"), ())}), "calls torch.float32"),
    "calls itself through a type": (
        zip_file({"w": Call(Name("torch._tensor", "_rebuild_from_type_v2"), (Name("torch._tensor", "_rebuild_from_type_v2"), 0, (), 0))}),
        "no tensor function",
    ),
    "gives too few arguments": (zip_file({"w": Call(Name("torch._utils", "_rebuild_tensor_v2"), ())}), "with 0 arguments"),
    "builds a state into a tensor": (zip_file(pickled(tensor())[:-1] + b"}b."), "gives a state"),
    "storage larger than its entry": (zip_file({"w": tensor(over=storage(7))}), "claims 28 bytes, and its entry has 24"),
    "storage smaller than its entry": (zip_file({"w": tensor((5,), (1,), over=storage(5))}), "claims 20 bytes, and its entry has 24"),
    "storage without an entry": (zip_file({"w": tensor(over=storage(key="9"))}), "entry is not there"),
    "storage of 100 GB in 1 kB": (zip_file({"w": tensor(over=storage(25 * 10**9))}), "claims 100,000,000,000 bytes"),
    "stream of 100 GB in 1 kB": (
        stream_file({"w": tensor(over=storage(25 * 10**9))}, storages=struct.pack("<q", 25 * 10**9) + SIX_FLOATS),
        "truncated, or claims too much",
    ),
    "storage of another size than said": (stream_file({"w": tensor()}, storages=struct.pack("<q", 5) + SIX_FLOATS), "6 elements and has 5"),
    "negative number of elements": (zip_file({"w": tensor(over=storage(-6))}), "size of a storage is negative"),
    "negative number in a stream": (stream_file({"w": tensor()}, storages=struct.pack("<q", -6) + SIX_FLOATS), "is negative"),
    "number of elements above 2**63": (zip_file({"w": tensor(over=storage(2**64 + 6))}), "above 2**63"),
    "number of elements that is a text": (zip_file({"w": tensor(over=storage("6"))}), "no integer"),
    "key that escapes": (zip_file({"w": tensor(over=storage(key="../data.pkl"))}), "key of a storage is no plain text"),
    "storage described twice": (zip_file({"w": tensor(), "x": tensor(over=storage(kind="Int"))}), "described in two ways"),
    "persistent id of something else": (zip_file({"w": Persistent(("module", "x"))}), "no storage"),
    "persistent id of an unknown tensor": (zip_file({"w": Persistent("7")}), "does not have"),
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
    "storage in the pickle of a tar": (tar_file({"w": tensor()}, pickled(0, []), pickled(0)), "storages among the tensors"),
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
    "nothing on the stack": (_pickle(b"R"), "takes what it has not put there"),
    "no mark": (_pickle(b"t"), "takes what it has not put there"),
    "memo that is not there": (_pickle(b"h\x05"), "recalls what it has not stored"),
    "end without an object": (_pickle(b""), "takes what it has not put there"),
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
    "big-endian stream": (stream_file({"w": tensor()}, system=SYSTEM | {"little_endian": False}), "little-endian machine"),
    "stream with a storage too many": (stream_file({"w": tensor()}, keys=("0", "1")), "list of storages"),
    "stream of another version": (stream_file({"w": tensor()}).replace(b"M\xe9\x03", b"M\xea\x03"), "version 1001"),
    "a pickled dict": (pickled({"w": 1}), "without torch's magic number"),
    "tar of a billion storages": (tar_file({}, pickled(10**9), pickled(0)), "truncated"),
    "tar of a negative number": (tar_file({}, pickled(-1), pickled(0)), "negative"),
    "tar of a billion dimensions": (
        tar_file({}, pickled(1, (1, "cpu", Name("torch", "FloatStorage"))) + struct.pack("<q6f", 6, *range(6)) + pickled([]),
                 pickled(1, (2, 1, Name("torch", "FloatTensor"))) + struct.pack("<ii", 2**30, 0)),
        "is the limit",
    ),
    "web page": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "looks like a web page"),
    "pointer of a large-file store": (b"version https://git-lfs.github.com/spec/v1\n", "it begins with b'version https://'"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(1000), "unlike the zip, stream and tar files of torch"),
    "nothing": (b"", "it is empty"),
    "no tensors": (zip_file({"a": 1}), "no dict of tensors"),
    "tensors without names": (zip_file({0: tensor()}), "no dict of tensors"),
    "a list": (zip_file([tensor()]), "no dict of tensors"),
}  # fmt: skip


def _duplicated() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return zip_file({"w": tensor()}, STORAGE_ENTRY, STORAGE_ENTRY)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_for_their_reason_and_do_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, reason = HOSTILE[name]
    assert reason in refusal(tmp_path, _duplicated() if content is None else content)


@pytest.mark.parametrize("opcodes", [b")" * 1000, b"X\0\xff\0\0" + b"x" * 0xFF00], ids=["many", "long texts"])
def test_pickles_may_take_so_many_steps_and_no_more(opcodes, tmp_path, monkeypatch):
    monkeypatch.setattr("tl_keras.weights.torch_file.pickle_machine.MAX_STEPS", 1000)
    assert "more than 1,000 steps" in refusal(tmp_path, _pickle(opcodes))


@pytest.mark.parametrize(("name", "reason"), [("whole_model", "torch.nn.modules.linear.Linear"), ("torchscript", "TorchScript program")])
def test_what_torch_saves_that_is_no_state_dict_is_refused(name, reason):
    with pytest.raises(DamagedError, match=reason):
        read_tensors(FIXTURES / f"{name}.pth")


def test_missing_file_is_missing(tmp_path):
    with pytest.raises(MissingError, match="There is no weights file"):
        describe(tmp_path / "none.pth")


@pytest.mark.parametrize("container", ["zip", "stream", "tar"])
def test_truncated_at_every_seventh_byte_and_every_kilobyte(container, tmp_path):
    whole = (FIXTURES / f"{container}.pth").read_bytes()
    tensors, path = read_tensors(FIXTURES / f"{container}.pth"), tmp_path / "file.pth"
    end = len(whole.rstrip(b"\0")) if container == "tar" else len(whole)
    for length in sorted({*range(0, len(whole), 7), *range(0, len(whole), 1024), *range(len(whole) - 30, len(whole))}):
        path.write_bytes(whole[:length])
        try:
            read = read_tensors(path)
        except DamagedError:
            continue
        # Only the filling at the end of a tar may be missing.
        assert container == "tar" and length > end
        assert all(np.array_equal(read[name], tensors[name]) for name in tensors)


MEASURE = """
import resource, sys, time
from pathlib import Path
from tl_keras.weights.torch_file import describe, read_tensors
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
tensors = read_tensors(Path(sys.argv[1]))
seconds = time.perf_counter() - start
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_reading_maps_a_large_file_and_does_not_copy_it(tmp_path):
    path = tmp_path / "large.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled({"w": tensor((2**24,), (1,), over=storage(2**24))}))
        archive.writestr("archive/data/0", bytes(2**26))
    output = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True).stdout
    seconds, num_bytes = map(float, output.split())
    assert seconds < 1 and num_bytes < 2**23
