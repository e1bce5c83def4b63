"""Run directories: atomic files, finished and unfinished runs, other versions, and the lock."""

import errno
import json
import subprocess
import sys

import numpy as np
import pytest
from plain_config import PLAIN

from tl_keras.errors import ConfigError, DamagedError, UserError
from tl_keras.results import run_directory
from tl_keras.results.predictions import write_predictions
from tl_keras.utils import files

CONFIG = PLAIN.replace(backbone="alexnet", epochs=3)
ROWS = [{"epoch": 1, "phase": "full", "loss": 2.25, "accuracy": 0.125}, {"epoch": 2, "phase": "full", "loss": 0.5, "accuracy": 0.75}]


def complete_result(config=CONFIG):
    groups = {name: dict.fromkeys(keys) for name, keys in run_directory.RESULT_KEYS.items()}
    groups["metrics"]["test"] = dict.fromkeys(run_directory.TEST_KEYS)
    return groups | {"name": "a", "phases": [dict.fromkeys(run_directory.PHASE_KEYS)], "config": config.identity()}


@pytest.fixture
def run_dir(tmp_path):
    return run_directory.RunDirectory(tmp_path / "run")


def full_disk(*arguments, **settings):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_finished_run_is_found_by_its_identity(run_dir):
    run_dir.write_config(CONFIG)
    assert run_dir.load_if_finished(CONFIG) is None
    run_dir.write_result(complete_result())
    assert run_dir.load_if_finished(CONFIG)["schema"] == run_directory.SCHEMA
    assert run_dir.load_if_finished(CONFIG.replace(data_dir="/elsewhere"))  # paths do not matter
    assert run_dir.load_if_finished(CONFIG.replace(seed=1)) is None
    assert run_directory.load_result(run_dir.path)["config"] == CONFIG.identity()


@pytest.mark.parametrize(
    "content",
    [b"", b'{"schema": 1, "name"', b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema": "x"}', b'{"schema": 4}'],
    ids=["empty", "truncated", "list", "null", "not UTF-8", "deep", "no schema", "no keys"],
)
def test_a_damaged_result_is_unfinished(run_dir, content):
    run_dir.write_config(CONFIG)
    (run_dir.path / run_directory.RESULT).write_bytes(content)
    assert run_dir.load_if_finished(CONFIG) is None
    with pytest.raises(ConfigError, match="unfinished run: run its command again"):
        run_directory.load_result(run_dir.path)


@pytest.mark.parametrize("schema", [3, run_directory.SCHEMA + 1])
def test_a_result_of_another_version_is_refused_with_what_to_do(run_dir, schema):
    run_dir.write_config(CONFIG)
    files.write_json(run_dir.path / run_directory.RESULT, {**complete_result(), "schema": schema})
    for read in (lambda: run_dir.load_if_finished(CONFIG), lambda: run_directory.load_result(run_dir.path)):
        with pytest.raises(ConfigError, match=rf"has schema {schema}; .* reads schema 4\. Delete the directory and run its command again"):
            read()


@pytest.mark.parametrize("key", run_directory.PHASE_KEYS)
def test_a_result_without_one_of_its_phase_keys_is_unfinished(run_dir, key):
    result = complete_result()
    del result["phases"][0][key]
    run_dir.write_result(result)
    assert run_dir.load_if_finished(CONFIG) is None


@pytest.mark.parametrize("name", run_directory.RESULT_KEYS)
def test_a_result_without_one_of_its_keys_is_unfinished(run_dir, name):
    result = complete_result()
    del result[name]
    run_dir.write_result(result)
    assert run_dir.load_if_finished(CONFIG) is None


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in run_directory.RESULT_KEYS.items() for key in keys])
def test_a_result_without_one_of_its_inner_keys_is_unfinished(run_dir, name, key):
    result = complete_result()
    del result[name][key]
    run_dir.write_result(result)
    assert run_directory.try_load_result(run_dir.path) is None


@pytest.mark.parametrize("key", run_directory.TEST_KEYS)
def test_a_result_without_one_of_its_test_metrics_is_unfinished(run_dir, key):
    result = complete_result()
    del result["metrics"]["test"][key]
    run_dir.write_result(result)
    assert run_directory.try_load_result(run_dir.path) is None


def test_a_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no run\. Expected a directory with result\.json"):
        run_directory.load_result(tmp_path)


def test_config_json_separates_identity_and_local_settings(run_dir):
    run_dir.write_config(CONFIG.replace(data_dir="/data"))
    written = json.loads((run_dir.path / run_directory.CONFIG).read_text())
    local = {
        "data_dir": "/data",
        "weights_dir": "",
        "cache": "auto",
        "cache_budget": 2000,
        "cache_dir": "",
        "rehash": False,
        "tensorboard": False,
    }
    assert written == {"identity": CONFIG.identity(), "local": local, "weights_sha256": ""}


def test_another_run_in_the_directory_is_an_error_that_lists_the_differences(run_dir):
    run_dir.write_config(CONFIG)
    run_dir.write_config(CONFIG.replace(data_dir="/elsewhere"))
    run_dir.write_config(CONFIG.replace(learning_rate=0.02))  # nothing was trained yet
    run_dir.write_config(CONFIG)
    run_dir.write_history([{"epoch": 1}])
    with pytest.raises(ConfigError, match=r"learning_rate: 0\.001 there, 0\.01 here, epochs: 3 there, 5 here\..*run_dir"):
        run_dir.write_config(CONFIG.replace(learning_rate=0.01, epochs=5))


@pytest.mark.parametrize("content", ["", "[]", '{"identity": 3}'])
def test_a_damaged_config_is_replaced(run_dir, content):
    run_dir.write_config(CONFIG)
    (run_dir.path / run_directory.CONFIG).write_text(content)
    run_dir.write_config(CONFIG)
    assert json.loads((run_dir.path / run_directory.CONFIG).read_text())["identity"] == CONFIG.identity()


def test_history_is_read_back_with_numbers_as_numbers(run_dir):
    run_dir.write_history(ROWS[:1])
    run_dir.write_history(ROWS)
    assert run_directory.read_history(run_dir.path) == ROWS


@pytest.mark.parametrize(
    "content", ["", "epoch,loss\n", "step,loss\n1,2\n", "epoch,loss\n1\n", "epoch,loss\n1,2,3\n", 'epoch,loss\n1,"2\n', None]
)
def test_a_damaged_history_is_named(run_dir, content):
    run_dir.write_config(CONFIG)
    if content is not None:
        (run_dir.path / run_directory.HISTORY).write_text(content)
    with pytest.raises(DamagedError, match=r"history\.csv cannot be read"):
        run_directory.read_history(run_dir.path)


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, function):
    path = tmp_path / "file.json"
    files.write_json(path, {"old": True})
    monkeypatch.setattr(files.os, function, full_disk)
    with pytest.raises(UserError, match=r"Cannot write .*file\.json: No space left on device\. Free space"):
        files.write_json(path, {"old": False})
    assert files.read_json(path) == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_becomes_full_while_writing_is_the_same_error(run_dir, monkeypatch):
    run_dir.write_config(CONFIG)
    monkeypatch.setattr(files.np, "savez_compressed", full_disk)
    with pytest.raises(UserError, match=r"predictions\.npz: No space left"):
        write_predictions(run_dir.path, np.eye(2), np.arange(2))
    assert [path.name for path in run_dir.path.iterdir()] == [run_directory.CONFIG]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot create the directory"), run_directory.RunDirectory(tmp_path / "file" / "run").lock():
        pass


LOCK = """
import pathlib, sys
from tl_keras.results.run_directory import RunDirectory
with RunDirectory(pathlib.Path(sys.argv[1])).lock():
    print("in")
"""


def test_the_lock_keeps_a_second_process_out_and_opens_again(run_dir):
    command = [sys.executable, "-c", LOCK, str(run_dir.path)]
    with run_dir.lock():
        second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode and "ConfigError: Another process is training in" in second.stderr
    assert subprocess.run(command, capture_output=True, text=True).stdout == "in\n"
    with pytest.raises(ZeroDivisionError), run_dir.lock():
        raise ZeroDivisionError
    with run_dir.lock():
        pass


def test_results_and_report_load_no_tensorflow():
    code = "import sys, tl_keras.results.predictions, tl_keras.report; print({'tensorflow', 'keras'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
