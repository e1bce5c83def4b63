"""What all tests share: quiet TensorFlow on two logical CPUs, no TF32, and global state put back after each test."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def two_logical_cpus():
    """Two logical devices, for the mirrored tests; TensorFlow takes this only before it first computes."""
    import tensorflow as tf

    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    tf.config.experimental.enable_tensor_float_32_execution(False)


@pytest.fixture(autouse=True)
def global_state(monkeypatch):
    """The dtype policy that a run sets globally, and the directories that the environment names."""
    import keras

    for name in ("KERAS_HOME", "TFDS_DATA_DIR", "TL_KERAS_WEIGHTS", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def shared() -> Path:
    """Real data, real weights and figures made with torch; a checkout need not have them."""
    if not SHARED.is_dir():
        pytest.skip("needs the directory shared/ beside the checkout")
    return SHARED


@pytest.fixture
def offline(monkeypatch):
    """No host answers."""
    monkeypatch.setattr("tl_keras.utils.connectivity.is_reachable", lambda url, timeout=10.0: False)
