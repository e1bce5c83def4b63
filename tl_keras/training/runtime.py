"""What a run runs on: seeds, precision, tf.distribute and XLA, decided once, checked, and recorded as they really are."""

import importlib.metadata
import os
import platform
import subprocess
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tl_keras.config import RuntimeConfig
from tl_keras.errors import ConfigError

PACKAGES = ("tl_keras", "tensorflow", "keras", "tensorflow-datasets", "keras-cv", "numpy")


@dataclass(frozen=True)
class Runtime:
    """The resolved runtime: no `auto` is left in it."""

    device: str
    precision: str
    xla: bool
    replicas: int
    strategy: tf.distribute.Strategy

    def scope(self) -> AbstractContextManager[Any]:
        """Where variables are made."""
        return self.strategy.scope()

    def __str__(self) -> str:
        return f"{self.device} ({processor()}), {self.precision}, XLA {'on' if self.xla else 'off'}, replicas {self.replicas}"

    def record(self) -> dict[str, Any]:
        """What `result.json` says of it."""
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
    """Resolve `config` on this machine, and set the global seed and precision.

    Args:
        depthwise: whether the backbone has depthwise convolutions, for which bfloat16 is slower on CPUs.

    Raises:
        ConfigError: the batch does not divide by the number of replicas.
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


@cache  # a second MirroredStrategy in a process would give its collectives the keys of the first one's
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
    """Whether the first GPU has bfloat16 units (compute capability 8.0, Ampere, or later)."""
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
    """The processor and how many of its cores this process may use, e.g. `AMD EPYC, 2 cores`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_cpuinfo('model name') or platform.processor() or platform.machine()}, {cores} cores"


def _device_name(gpus: list[Any]) -> str:
    if not gpus:
        return "CPU"
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return f"{len(gpus)} x {details.get('device_name', 'GPU')}"


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what a run computes."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_revision() -> str:
    """The revision of the source tree this package runs from, or an empty string for an installed one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
