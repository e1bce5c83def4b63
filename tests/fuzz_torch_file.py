"""Random changes of torch files: each file is read or refused with a DamagedError, in bounded time.

make fuzz
"""

import contextlib
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_builder import pickled, stream_file, tensor, zip_file

from tl_keras.errors import DamagedError
from tl_keras.weights.torch_file import list_tensors, read_tensors
from tl_keras.weights.torch_file.unpickler import OPCODE_HANDLERS

pytestmark = pytest.mark.fuzz
FIXTURES = Path(__file__).parent / "fixtures"
FILES = {path.stem: path.read_bytes() for path in FIXTURES.glob("*.pth")}
FILES |= {"small_zip": zip_file({"w": tensor()}), "small_stream": stream_file({"w": tensor()})}
LONGEST_MILLISECONDS = 5000
EVERY = settings(
    max_examples=10_000,
    deadline=LONGEST_MILLISECONDS,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

# Numbers at which arithmetic may overflow, in the sizes of the formats.
EDGES = [value.to_bytes(8, "little", signed=True) for value in (-1, -(2**63), 2**63 - 1, 2**62, 2**31, 2**32, 0)]
BYTES = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(EDGES), st.sampled_from(EDGES).map(lambda edge: edge[:4]))
CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 4), BYTES), min_size=1, max_size=6)

# The opcodes that the reader handles, with small arguments and texts of valid files.
NAMES = ["collections OrderedDict", "torch FloatStorage", "torch float32", "torch.nn.parameter Parameter", "torch.storage UntypedStorage"]
NAMES += ["torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3", "torch._tensor _rebuild_from_type_v2", "torch Size"]
GLOBALS = [b"c" + name.replace(" ", "\n").encode() + b"\n" for name in NAMES]
TEXTS = [b"X" + len(text).to_bytes(4, "little") + text for text in (b"w", b"storage", b"0", b"cpu", b"state_dict")]
NUMBERS = [b"K\x00", b"K\x01", b"K\x06", b"J\xff\xff\xff\xff", b"\x8a\x08" + EDGES[2], b"G" + bytes(8), b"N", b"\x88", b"\x89"]
PLAIN = [b"(", b")", b"]", b"}", b"t", b"\x85", b"\x86", b"\x87", b"R", b"\x81", b"b", b"s", b"u", b"a", b"e", b"Q", b"\x93", b"\x94"]
MEMO = [b"%c%c" % (code, index) for code in b"qh" for index in range(4)]
WHOLE = [
    b"X\x01\0\0\0w" + pickled(tensor())[2:-1] + b"s",
    b"X\x01\0\0\0w(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ",
]
OPCODES = st.lists(st.sampled_from(GLOBALS + TEXTS + NUMBERS + PLAIN + MEMO + WHOLE), max_size=60)


def check(path: Path, content: bytes) -> None:
    """Read the whole file. Any error but DamagedError fails the test, as does any element outside its storage."""
    path.write_bytes(content)
    with contextlib.suppress(DamagedError):
        assert [tensor.name for tensor in list_tensors(path)] == list(read_tensors(path))
        for array in read_tensors(path).values():
            assert array.nbytes <= max(4 * len(content), 8 * 2**16) and np.array(array).shape == array.shape


def changed(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Write bytes at fractions of the content: inserted, or replacing one byte, as many, eight, or all to the end."""
    for fraction, mode, new in changes:
        start = int(fraction * len(content))
        length = (0, 1, len(new), 8, len(content))[mode]
        content = content[:start] + new + content[start + length :]
    return content


@EVERY
@given(name=st.sampled_from(sorted(FILES)), changes=CHANGES)
def test_a_file_with_changed_bytes_is_read_or_refused(tmp_path, name, changes):
    check(tmp_path / "file.pth", changed(FILES[name], changes))


@EVERY
@given(name=st.sampled_from(["zip", "layers", "nested", "small_zip"]), changes=CHANGES)
def test_a_zip_with_a_changed_pickle_is_read_or_refused(tmp_path, name, changes):
    with zipfile.ZipFile(BytesIO(FILES[name])) as archive:
        entries = {entry.split("/", 1)[1]: archive.read(entry) for entry in archive.namelist()}
    others = [(f"archive/{entry}", entries[entry]) for entry in entries if entry != "data.pkl"]
    check(tmp_path / "file.pth", zip_file(changed(entries["data.pkl"], changes), *others))


@EVERY
@given(opcodes=OPCODES, container=st.sampled_from([zip_file, stream_file]))
def test_random_opcodes_are_read_or_refused(tmp_path, opcodes, container):
    check(tmp_path / "file.pth", container(b"\x80\x02}" + b"".join(opcodes) + b"."))


@EVERY
@given(content=st.binary(max_size=2000), beginning=st.sampled_from([b"", b"PK\3\4", b"\x80\x02", b"\x80\x02\x8a\x0a"]))
def test_random_bytes_are_read_or_refused(tmp_path, content, beginning):
    check(tmp_path / "file.pth", beginning + content)


def test_pickletools_knows_every_handled_opcode():
    import pickletools

    assert {opcode.name for opcode in pickletools.opcodes} >= set(OPCODE_HANDLERS)
