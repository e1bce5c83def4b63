"""Every verb under conditions of the machine that a user can mend: one message without a traceback, and the cause in it."""

import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tl_keras.cli import verbs

FAST = "--dataset=digits --limit_train=60 --limit_test=30 --backbone=tiny --weights=none --strategy=head --epochs=1 --batch_size=8".split()


def commands(run_dir, path):
    """Return verb -> a command of it that writes to `path`."""
    return {
        "train": ["train", *FAST, f"--run_dir={path}"],
        "train to a cache": ["train", *FAST, f"--run_dir={path.parent / 'run'}", "--cache=disk", f"--cache_dir={path}"],
        "export": ["export", f"--run_dir={run_dir}", f"--output={path}"],
        "sheet": ["sheet", "--dataset=digits", "--augmentation=flip", "--backbone=tiny", f"--output={path}"],
        "lr_find": ["lr_find", *FAST, f"--output={path}"],
        "weights convert": ["weights", "convert", str(run_dir / "model.keras"), "--backbone=tiny", f"--output={path}.weights.h5"],
    }


def run_verb(arguments, capsys):
    """Return the exit code of a command, its output and its message."""
    code = verbs.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


VERBS = list(commands(Path("run"), Path("x")))


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_where_a_directory_is_needed(verb, finished_run, tmp_path, capsys):
    (tmp_path / "file").write_text("a file")
    code, _, message = run_verb(commands(finished_run.directory, tmp_path / "file" / "x")[verb], capsys)
    assert code == 1 and message.startswith("error: ") and str(tmp_path / "file") in message and "Traceback" not in message


@pytest.mark.parametrize("verb", VERBS)
def test_a_directory_that_takes_no_files(verb, finished_run, tmp_path, capsys):
    code, _, message = run_verb(commands(finished_run.directory, Path("/proc/none/x"))[verb], capsys)
    assert code == 1 and message.startswith("error: ") and "/proc" in message and "Traceback" not in message


READERS = (["evaluate", "--run_dir={}"], ["export", "--run_dir={}", "--output=out"], ["report", "--runs_dir={}"],
           ["weights", "inspect", "{}"],
           ["weights", "convert", "{}", "--backbone=tiny", "--output=a.weights.h5"], ["sheet", "--dataset=folder:{}", "--output=a.png"],
           ["train", "--dataset=folder:{}", "--backbone=tiny", "--weights=none"], ["train", *FAST, "--weights={}"])  # fmt: skip
PLACES = {
    "nothing": "nothing",
    "a file": "file",
    "an empty directory": "empty",
    "a link to itself": "loop",
    "a file without rights": "secret",
}


@pytest.mark.parametrize("verb", READERS, ids=lambda verb: " ".join(verb[:2]))
@pytest.mark.parametrize("place", PLACES)
def test_reading_what_is_no_run(verb, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0)
    code, _, message = run_verb([argument.format(tmp_path / PLACES[place]) for argument in verb], capsys)
    assert code in (1, 2, 3, 4) and message.startswith("error: ") and "Traceback" not in message


@pytest.mark.parametrize("flag", ["--run_dir=~/run", "--run_dir=~/run/"])
def test_the_home_directory_is_filled_in(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert verbs.main(["train", *FAST, flag]) == 0
    assert verbs.main(["evaluate", flag]) == 0
    assert (tmp_path / "home" / "run" / "result.json").is_file() and not (tmp_path / "~").exists()


ERRORS = {
    "full disk, from TensorFlow": (
        "ResourceExhaustedError",
        "/mnt/x/variables; No space left on device",
        "No space left on device: /mnt/x/variables",
    ),
    "full memory, from TensorFlow": ("ResourceExhaustedError", "OOM when allocating tensor with shape[1,2]", "out of memory"),
    "no rights, from TensorFlow": ("PermissionDeniedError", "/mnt/x; Permission denied", "Permission denied: /mnt/x"),
    "limit of sizes, from TensorFlow": ("OutOfRangeError", "/mnt/x; File too large", "File too large: /mnt/x"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_tensorflow_are_told_apart(name, capsys):
    import tensorflow as tf

    from tl_keras.cli.run_command import run_command

    kind, text, expected = ERRORS[name]

    def fail():
        raise getattr(tf.errors, kind)(None, None, text)

    assert run_command(fail) == 1 and expected in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_terminal_that_cannot_show_a_name(encoding, tmp_path, monkeypatch):
    """A folder whose files have names in other encodings is reported in any terminal."""
    photos, pixels = tmp_path / "photos", np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    for index, image in enumerate(pixels):
        path = photos / ("cat", "d\u00f6g")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    shutil.copy(photos / "cat" / "0.png", os.fsencode(photos) + b"/cat/caf\xe9.png")
    (photos / "cat" / "\u6f22.png").write_bytes(b"bad")
    flags = ["--backbone=tiny", "--weights=none", "--strategy=head", "--epochs=1", "--on_corrupt=skip", "--precision=float32"]
    terminal = {name: io.TextIOWrapper(io.BytesIO(), encoding, "strict", write_through=True) for name in ("stdout", "stderr")}
    for name, stream in terminal.items():
        monkeypatch.setattr(sys, name, stream)
    assert verbs.main(["train", f"--dataset=folder:{photos}", f"--run_dir={tmp_path / 'run'}", *flags]) == 0
    assert b"1 unreadable files" in terminal["stdout"].buffer.getvalue() and b"Traceback" not in terminal["stderr"].buffer.getvalue()
