"""`tl-keras weights`: the output, files and errors of each action."""

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from tl_keras.backbones import build_classifier, get_backbone, variables_by_path
from tl_keras.cli import verbs, weights
from tl_keras.errors import DamagedError
from tl_keras.weights import WEIGHTS, load_weights
from tl_keras.weights.formats import FORMATS, list_tensors
from tl_keras.weights.registry import normalization_of
from tl_keras.weights.weights_file import TensorInfo

ROOT = Path(__file__).parents[1]
ACTIONS = ["list", "download", "verify", "convert", "inspect"]


@pytest.fixture(autouse=True)
def caches(monkeypatch, tmp_path):
    """Use empty caches, hide installed packages with weights, and let no host answer."""
    for package in {entry.package for entries in WEIGHTS.values() for entry in entries if entry.package}:
        monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    for variable in ("KERAS_HOME", "TL_KERAS_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr("tl_keras.utils.connectivity.is_reachable", lambda url, timeout: False)
    return tmp_path


@pytest.fixture(scope="module")
def model():
    return build_classifier("alexnet_narrow", 7)


def run(*arguments):
    return verbs.main(["weights", *map(str, arguments)])


@pytest.mark.parametrize("arguments", [[], ["--help"], *([action, "--help"] for action in ACTIONS)], ids=" ".join)
def test_help(arguments, capsys):
    assert run(*arguments) == 0
    assert capsys.readouterr().out.startswith("tl-keras weights")


def test_help_needs_no_tensorflow():
    heavy = "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    code = f"import sys; from tl_keras.cli import main; main(['weights', 'list']); {heavy}"
    started = time.perf_counter()
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
    assert time.perf_counter() - started < 5  # an import of TensorFlow alone takes about as long


def test_list_names_every_file(capsys):
    assert run("list") == 0
    out = capsys.readouterr().out
    for backbone, entries in WEIGHTS.items():
        for entry in entries:
            (line,) = {line for line in out.splitlines() if f" {entry.name}" in line and line.startswith(f"  {entry.variant} ")}
            assert entry.licence in line and entry.hash in line and normalization_of(backbone, entry.variant) in line
            assert ("non-commercial" in line) == entry.non_commercial


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fetch"], 2, ["Unknown action of weights 'fetch'", "download"]),
        (["download"], 2, ["NAME is needed"]),
        (["download", "resnet81"], 2, ["resnet81", "resnet18"]),
        (["download", "resnet18:imagnet"], 2, ["Did you mean 'imagenet'"]),
        (["download", "resnet18"], 3, ["resnet18-f37072fd.pth", "https://download.pytorch.org/", "f37072fd47e8", "TL_KERAS_WEIGHTS"]),
        (["download", "resnet18", "other"], 2, ["Unexpected argument 'other'"]),
        (["verify", "resnet18"], 3, ["resnet18-f37072fd.pth", "TORCH_HOME"]),
        (["inspect"], 2, ["FILE is needed"]),
        (["inspect", "absent.pth"], 3, ["absent.pth"]),
        (["inspect", str(ROOT / "setup.cfg")], 2, [".safetensors"]),
        (["list", "--all"], 2, ["Unknown flag --all", "Known: none"]),
        (["convert", "absent.pth", "--backbone=resnet18", "--output=x.weights.h5"], 3, ["absent.pth"]),
        (["convert", __file__, "--backbone=resnet18", "--output=x.h5"], 2, ["--output=x.h5", ".weights.h5"]),
        (["convert", __file__, "--backbone=resnet81", "--output=x.weights.h5"], 2, ["resnet81"]),
        (["convert", __file__, "--output=x.weights.h5"], 2, ["Unknown backbone"]),
        (["convert", __file__, "--backbone=alexnet", "--image_size=32", "--output=x.weights.h5"], 2, ["at least 63"]),
    ],
)
def test_a_mistake_is_one_message(arguments, code, words, capsys):
    assert run(*arguments) == code
    message = capsys.readouterr().err
    assert message.startswith("error: ") and all(word in message for word in words), message


def test_embedded_weights_need_no_network(capsys):
    assert run("download", "alexnet_narrow") == 0
    assert capsys.readouterr().out.strip().endswith("alexnet_narrow_glyphs.npz")


# verify


def test_verify_without_files_finds_the_embedded_file(capsys):
    assert run("verify") == 0
    assert capsys.readouterr().out.count("\nok ") + 1 == 1


@pytest.mark.parametrize(
    ("content", "reason"), [(b"short", "5 bytes, expected 46,830,571"), (b"<html>not found</html>", "web page"), (b"", "0 bytes")]
)
def test_verify_names_damaged_files(content, reason, caches, capsys):
    for directory in (caches / "TL_KERAS_WEIGHTS", caches / "TORCH_HOME" / "hub" / "checkpoints", caches / "mine"):
        directory.mkdir(parents=True)
        (directory / "resnet18-f37072fd.pth").write_bytes(content)
    assert run("verify", "resnet18", f"--weights_dir={caches / 'mine'}") == 4
    printed = capsys.readouterr()
    assert printed.out.count("DAMAGED") == 3 and reason in printed.out and "3 of 3 files" in printed.err


def test_verify_reads_files_without_a_hash(caches, capsys):
    path = caches / "KERAS_HOME" / "models" / "mobilenet_2_5_224_tf_no_top.h5"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert run("verify", "mobilenet_0.25") == 4
    assert "cannot be read" in capsys.readouterr().out
    with h5py.File(path, "w") as file:
        file["conv1/kernel"] = np.zeros(3)
    assert run("verify", "mobilenet_0.25") == 0
    assert "1 tensors" in capsys.readouterr().out


def test_verify_accepts_real_files(shared, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(shared / "weights" / "keras"))
    assert run("verify") == 0
    out = capsys.readouterr().out
    assert "mobilenet_7_5_224_tf_no_top.h5" in out and "135 tensors" in out


# inspect


ARRAYS = {"a/kernel": np.zeros((2, 3), "float32"), "b": np.zeros((), "int64"), "c": np.zeros((0, 4), "float16")}


def save_npz(path):
    np.savez(path, **ARRAYS)


def save_hdf5(path):
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file[name] = array


def save_keras(path):
    save_hdf5(path.with_suffix(".inner"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_suffix(".inner"), "model.weights.h5")


SAVE = {
    ".npz": (save_npz, ("float32", "int64", "float16")),
    ".h5": (save_hdf5, ("float32", "int64", "float16")),
    ".weights.h5": (save_hdf5, ("float32", "int64", "float16")),
    ".keras": (save_keras, ("float32", "int64", "float16")),
    ".safetensors": (lambda path: save_file(ARRAYS, path), ("F32", "I64", "F16")),
}


def test_every_format_is_inspected():
    """The formats of torch are tested in test_torch_file.py."""
    assert set(SAVE) | {".pth", ".pt"} == set(FORMATS)


def test_inspect_reads_a_stream_by_torch(capsys):
    """The file has the older container, a stream of pickles, as torchvision's VGG16 does."""
    assert run("inspect", ROOT / "tests" / "fixtures" / "stream.pth") == 0
    out = capsys.readouterr().out
    assert "float32" in out and out.endswith("tensors\n")


@pytest.mark.parametrize("suffix", SAVE)
def test_inspect_lists_names_shapes_and_dtypes(suffix, tmp_path, capsys):
    path, (save, dtypes) = tmp_path / f"file{suffix}", SAVE[suffix]
    save(path)
    expected = {TensorInfo(name, array.shape, dtype) for (name, array), dtype in zip(ARRAYS.items(), dtypes, strict=True)}
    assert set(list_tensors(path)) == expected
    assert run("inspect", path) == 0
    out = capsys.readouterr().out
    assert "a/kernel" in out and "(2, 3)" in out and out.endswith("3 tensors\n")


def test_tensors_of_keras_files_are_named_by_layer(model, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    entries = {entry.name: entry.shape for entry in list_tensors(tmp_path / "model.weights.h5")}
    assert entries["conv1/0"] == model.get_layer("conv1").kernel.shape and entries["logits/1"] == (7,)
    assert len(entries) == len(model.weights)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html></html>", b"PK\x03\x04" + bytes(50), b"\x89HDF\r\n\x1a\n" + bytes(50)])
def test_a_file_of_another_kind_is_damaged(suffix, content, tmp_path):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="file"):
        list_tensors(path)


@pytest.mark.parametrize("suffix", SAVE)
def test_a_truncated_file_is_damaged(suffix, tmp_path):
    path = tmp_path / f"file{suffix}"
    SAVE[suffix][0](path)
    whole = path.read_bytes()
    for size in range(0, len(whole) - 64, max(1, len(whole) // 40)):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedError):
            list_tensors(path)


@pytest.mark.parametrize("header", ["(((", "{'descr': 'O', 'fortran_order': False, 'shape': (2**99,)}", "os.system('true')", "[" * 9000])
def test_hostile_headers_of_arrays_are_damaged(header, tmp_path):
    text = header.encode()
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(DamagedError):
        list_tensors(tmp_path / "file.npz")


def test_control_characters_are_not_printed(tmp_path, capsys):
    np.savez(tmp_path / "file.npz", **{"a\x1b[2Jb": np.zeros(1)})
    assert run("inspect", tmp_path / "file.npz") == 0
    assert "\x1b" not in capsys.readouterr().out


def test_too_many_tensors_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tl_keras.weights.formats.MAX_TENSORS", 2)
    save_npz(tmp_path / "file.npz")
    with pytest.raises(DamagedError, match="more than 2 tensors"):
        list_tensors(tmp_path / "file.npz")


# convert


@pytest.mark.parametrize("num_classes", [7, 3])
def test_convert_keeps_the_head_of_the_file(num_classes, tmp_path, capsys):
    model = build_classifier("alexnet_narrow", num_classes)
    np.savez(tmp_path / "file.npz", **{name: np.asarray(variable) for name, variable in variables_by_path(model).items()})
    output = tmp_path / "made" / "file.weights.h5"
    assert run("convert", tmp_path / "file.npz", "--backbone=alexnet_narrow", f"--output={output}") == 0
    assert f"16 of 16 variables from file.npz; {num_classes} classes" in capsys.readouterr().out
    again = build_classifier("alexnet_narrow", num_classes)
    load_weights(again, "alexnet_narrow", output)
    for name, variable in variables_by_path(model).items():
        np.testing.assert_array_equal(np.asarray(variables_by_path(again)[name]), np.asarray(variable))


def test_convert_lists_missing_variables(model, tmp_path, capsys):
    kept = {name: np.asarray(variable) for name, variable in variables_by_path(model).items() if not name.startswith("logits")}
    np.savez(tmp_path / "file.npz", **kept)
    assert run("convert", tmp_path / "file.npz", "--backbone=alexnet_narrow", f"--output={tmp_path / 'file.weights.h5'}") == 0
    out = capsys.readouterr().out
    assert "14 of 16 variables" in out and "1000 classes" in out and "missing: logits/kernel" in out


@pytest.mark.parametrize(("hidden", "num_classes"), [([], 21843), ([TensorInfo("pre_logits/bias", (768,), "float32")], 1000)])
def test_the_number_of_classes_is_that_of_the_head(hidden, num_classes):
    tensors = [TensorInfo("head/bias", (21843,), "float32"), TensorInfo("embedding/bias", (768,), "float32"), *hidden]
    assert weights._num_classes(get_backbone("vit_b16"), tensors) == num_classes


def test_convert_of_another_model_writes_nothing(model, tmp_path, capsys):
    save_npz(tmp_path / "file.npz")
    assert run("convert", tmp_path / "file.npz", "--backbone=alexnet_narrow", f"--output={tmp_path / 'file.weights.h5'}") == 2
    assert "only in the file" in capsys.readouterr().err and not list(tmp_path.glob("*.weights.h5"))
