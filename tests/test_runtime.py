"""The resolved runtime, and the global state that a run leaves as it was."""

import logging
import random
import subprocess
import sys
import warnings
from contextlib import nullcontext

import keras
import numpy as np
import pytest

from tl_keras.config import RuntimeConfig
from tl_keras.errors import ConfigError
from tl_keras.runs.run import run
from tl_keras.training.runtime import make_runtime, preserve_global_state
from tl_keras.utils.tensorflow_import import import_tensorflow


def test_the_batch_size_must_be_a_multiple_of_the_replicas():
    with pytest.raises(ConfigError, match="multiple of the 2 replicas"):
        make_runtime(RuntimeConfig(distribution="mirrored"), seed=0, batch_size=7, depthwise=False)


@pytest.mark.parametrize("config", [{}, {"precision": "float32", "xla": "on"}])
def test_the_record_states_what_is_really_used(config):
    record = make_runtime(RuntimeConfig(**config), seed=0, batch_size=8, depthwise=True).record()
    assert record["precision"] == "float32"  # for depthwise networks on a CPU, whatever the CPU supports
    assert record["xla"] is (config.get("xla") == "on")
    assert record["replicas"] == 1 and record["device"] == "CPU" and record["versions"]["keras"] == keras.__version__


def global_state() -> dict:
    numpy_state = np.random.get_state(legacy=False)
    return {
        "policy": keras.config.dtype_policy().name,
        "python": random.getstate(),
        "numpy": (numpy_state["bit_generator"], numpy_state["state"]["pos"], numpy_state["state"]["key"].tolist()),
        "levels": [logging.getLogger(name).level for name in (None, "absl", "tensorflow", "tl_keras_test")],
        "filters": list(warnings.filters),
        "stderr": sys.stderr,
    }


def change_global_state(monkeypatch) -> None:
    make_runtime(RuntimeConfig(precision="mixed_bfloat16"), seed=7, batch_size=8, depthwise=False)
    for name in (None, "absl", "tensorflow", "tl_keras_test"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    monkeypatch.setattr(sys, "stderr", None)


@pytest.mark.parametrize("raises", [False, True])
def test_global_state_is_restored(raises, monkeypatch):
    before = global_state()
    with pytest.raises(RuntimeError) if raises else nullcontext():  # noqa: SIM117
        with preserve_global_state():
            change_global_state(monkeypatch)
            changed = global_state()
            if raises:
                raise RuntimeError
    assert global_state() == before
    assert all(changed[name] != before[name] for name in before)


def test_a_run_has_channels_last_whatever_the_users_keras_says(finished_run, tmp_path, monkeypatch):
    """A `keras.json` with channels_first applies to every program of a user (tensorflow/tensorflow#44126)."""
    monkeypatch.setattr("keras.src.backend.config._IMAGE_DATA_FORMAT", "channels_first")
    result = run(finished_run.config, tmp_path / "run")
    assert result["metrics"]["test"]["loss"] == finished_run.result["metrics"]["test"]["loss"]
    assert keras.config.image_data_format() == "channels_first"


def test_random_numbers_continue_after_the_block_as_without_it():
    random.seed(1)
    np.random.seed(1)
    expected = [random.random(), np.random.random()]
    random.seed(1)
    np.random.seed(1)
    with preserve_global_state():
        keras.utils.set_random_seed(5)
    assert [random.random(), np.random.random()] == expected


def test_importing_tensorflow_keeps_logger_levels():
    levels = [logging.getLogger(name).level for name in ("absl", "tensorflow")]
    import_tensorflow()
    assert [logging.getLogger(name).level for name in ("absl", "tensorflow")] == levels


@pytest.mark.slow
def test_the_command_line_imports_tensorflow_without_a_notice():
    """Standard error is discarded during the import alone."""
    code = (
        "import sys\n"
        "from tl_keras.utils.tensorflow_import import quiet_tensorflow\n"
        "quiet_tensorflow()\n"
        "print('end', file=sys.stderr)\n"
        "assert 'tensorflow' in sys.modules\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stderr == "end\n" and finished.stdout == ""
