"""Resolves device, precision, XLA and replicas of a run once, records what is used, and preserves global state."""

import importlib.metadata
import os
import platform
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_keras.config import RuntimeConfig
from tl_keras.errors import ConfigError
from tl_keras.training.gradient_registry import free_custom_gradients
from tl_keras.utils.tensorflow_import import preserve_logger_levels

PACKAGES = ("tl_keras", "tensorflow", "keras", "tensorflow-datasets", "keras-cv", "numpy")


@dataclass(frozen=True)
class Runtime:
    """The resolved runtime. No field is `auto`."""

    device: str
    precision: str
    xla: bool
    replicas: int
    strategy: tf.distribute.Strategy

    def scope(self) -> AbstractContextManager[Any]:
        """Return the context in which variables are created."""
        return self.strategy.scope()

    @property
    def compiles_parts(self) -> bool:
        """True if XLA compiles parts of the step: on CPUs, if it does not compile the whole step. On GPUs this was not measured."""
        return self.device == "CPU" and not self.xla

    def __str__(self) -> str:
        return f"{self.device} ({processor()}), {self.precision}, XLA {'on' if self.xla else 'off'}, replicas {self.replicas}"

    def record(self) -> dict[str, Any]:
        """Return the entry `runtime` of `result.json`."""
        return {
            "device": self.device,
            "cpu": processor(),
            "precision": self.precision,
            "xla": self.xla,
            "replicas": self.replicas,
            "versions": versions(),
            "git_revision": _git_revision(),
        }


def make_runtime(config: RuntimeConfig, *, seed: int, batch_size: int, depthwise: bool) -> Runtime:
    """Resolve `config` on this machine. Set Keras's global dtype policy and the seeds of all random generators.

    Args:
        depthwise: True if the backbone has depthwise convolutions, for which bfloat16 is slower on CPUs.

    Raises:
        ConfigError: The batch size is not a multiple of the number of replicas.
    """
    strategy = _strategy(config.distribution)
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ConfigError(
            f"expected a multiple of the {replicas} replicas of `distribution=mirrored`.", setting="batch_size", value=batch_size
        )
    gpus = tf.config.list_logical_devices("GPU")
    precision = _precision(config.precision, on_gpu=bool(gpus), depthwise=depthwise)
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)
    xla = config.xla == "on" or (config.xla == "auto" and bool(gpus))
    return Runtime(_device_name(gpus), precision, xla, replicas, strategy)


@contextmanager
def preserve_global_state() -> Iterator[None]:
    """Restore the global state that a run changes when the block ends, also after an exception.

    Restored are Keras's dtype policy, the random generators of Python and NumPy, the levels of all loggers, the filters of
    `warnings` and `sys.stderr`. The global seeds of TensorFlow and Keras cannot be read back, so they stay at the seed of the run.
    Inside, images have their channels last, whatever the user's `keras.json` says. Graphs that are made in the block can be freed
    after it, with the models that they read.
    """
    policy, stderr, data_format = keras.config.dtype_policy(), sys.stderr, keras.config.image_data_format()
    python_state, numpy_state = random.getstate(), np.random.get_state(legacy=False)
    try:
        keras.config.set_image_data_format("channels_last")
        with preserve_logger_levels(), warnings.catch_warnings(), free_custom_gradients():
            yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(data_format)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        sys.stderr = stderr


@cache  # a second MirroredStrategy in a process would give its collectives the keys of the first one
def _strategy(name: str) -> tf.distribute.Strategy:
    if name == "none":
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _precision(name: str, *, on_gpu: bool, depthwise: bool) -> str:
    if name != "auto":
        return name
    fast = _gpu_has_bfloat16() if on_gpu else _cpu_has_bfloat16() and not depthwise
    return "mixed_bfloat16" if fast else "float32"


def _gpu_has_bfloat16() -> bool:
    """Return True if the first GPU has bfloat16 units: compute capability 8.0 (Ampere) or later."""
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return details.get("compute_capability", (0, 0)) >= (8, 0)


def _cpu_has_bfloat16() -> bool:
    flags = _cpuinfo("flags").split()
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def processor() -> str:
    """Return the processor and the number of its cores that this process may use, e.g. `AMD EPYC, 2 cores`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_cpuinfo('model name') or platform.processor() or platform.machine()}, {cores} cores"


def _device_name(gpus: list[tf.config.LogicalDevice]) -> str:
    if not gpus:
        return "CPU"
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return f"{len(gpus)} x {details.get('device_name', 'GPU')}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the result of a run."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_revision() -> str:
    """Return the git revision of the source tree of this package, or an empty string for an installed one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
