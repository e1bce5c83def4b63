"""Fixtures of all tests: quiet TensorFlow on two logical CPUs, no TF32, restored global state, and a finished run to read.

Under pytest-xdist every worker is a process with its own session fixtures and temporary directories.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest

SHARED = Path(__file__).parents[2] / "shared"
WORKER_BYTES = 5 * 2**30  # memory to reserve for each worker; the peak of one was 3.9 GiB, of two together 7.3 GiB


@pytest.hookimpl(optionalhook=True)  # pytest-xdist may be absent
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the workers of `-n auto`: one per core, as far as memory allows; 0 runs the tests in this process."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    workers = min(os.cpu_count() or 1, memory // WORKER_BYTES)
    return workers if workers > 1 else 0


# The files that take longest, first: workers take files in this order, so that none is left alone with a long one at the end.
LONGEST_FILES = (
    *("torch_training", "feature_cache", "trainer", "backbones", "weights", "run", "readme", "interface", "report", "pipeline"),
    *("convert", "export", "settings", "head_grid", "benchmarks", "python_page", "parity", "lora", "last_batch", "conditions"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the longest files to the front; `--no-loadscope-reorder` keeps this order in the workers."""
    ranks = {f"test_{name}.py": rank for rank, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


@pytest.fixture(scope="session", autouse=True)
def two_logical_cpus() -> None:
    """Two logical devices, for the mirrored tests. TensorFlow takes this only before its first computation."""
    import tensorflow as tf

    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    tf.config.experimental.enable_tensor_float_32_execution(False)


@pytest.fixture(scope="session")
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's cache directory of all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def global_state(monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> Iterator[None]:
    """Restore the dtype policy, which a run sets globally, and hide the directories that the environment names."""
    import keras

    monkeypatch.setenv("XDG_CACHE_HOME", str(user_cache))

    for name in ("KERAS_HOME", "TFDS_DATA_DIR", "TL_KERAS_WEIGHTS", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    yield
    keras.config.set_dtype_policy("float32")


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended: its configuration, its directory and the content of its result.json."""

    config: Any
    directory: Path
    result: dict[str, Any]


@pytest.fixture(scope="session")
def tiny_config() -> Any:
    """Three epochs of the backbone `tiny` on the embedded digits: a run of about a second."""
    from plain_config import PLAIN

    return PLAIN.replace(
        dataset="digits", backbone="tiny", weights="none", epochs=3, batch_size=32, learning_rate=0.02, fraction=0.2, limit_test=99,
        precision="float32", last_batch="keep",
    )  # fmt: skip


@pytest.fixture(scope="session")
def finished_run(tiny_config: Any, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The run of `tiny_config`, for all tests that only read one. Nothing may write to its directory."""
    from tl_keras.runs.run import run

    directory = tmp_path_factory.mktemp("finished") / "run"
    return FinishedRun(tiny_config, directory, run(tiny_config, directory))


@pytest.fixture
def low_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save plots at 60 dpi, in half the time."""
    from tl_keras.report import style

    monkeypatch.setattr(style, "DPI", 60)
    monkeypatch.setattr(style, "PHOTOGRAPH_DPI", 60)


@pytest.fixture
def shared() -> Path:
    """Real data sets, real weights and the source reports, beside the checkout. Tests that take it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs real data sets, real weights or the source reports, in shared/ beside the checkout")
    return SHARED


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host answers."""
    monkeypatch.setattr("tl_keras.utils.connectivity.is_reachable", lambda url, timeout=10.0: False)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the commands of a page run, with a folder of pictures of two classes."""
    from pages import write_pictures

    directory = tmp_path_factory.mktemp("page")
    write_pictures(directory / "photos")
    return directory


@pytest.fixture
def reader(global_state: None, offline: None, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A reader of a page in the scratch directory, with an empty home directory and without a network, also in child processes."""
    root = str(Path(__file__).parents[1])
    monkeypatch.chdir(scratch)
    monkeypatch.syspath_prepend(root)
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setenv("HOME", str(scratch / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return monkeypatch


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    """The variables of all Python blocks of a page."""
    return {}
