"""Describes the machine, and the fraction of its peak throughput that a benchmark reaches."""

import importlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from benchmarks import ours, step_profile
from benchmarks.measure import Measured
from benchmarks.registry import OURS, TORCH, Benchmark
from tl_keras.backbones.macs import MATRIX_SIZE, MEASURED_SECONDS, measure_matmul_throughput
from tl_keras.config import RuntimeConfig
from tl_keras.training.runtime import make_runtime

DTYPES = ("float32", "bfloat16")
PROFILED_STEPS = 2

Peaks = Mapping[str, Mapping[str, float]]


def describe() -> dict[str, Any]:
    """Return the runtime record of a run, with torch's version and threads and with `peaks`."""
    record = make_runtime(RuntimeConfig(), seed=0, batch_size=1, depthwise=False).record()
    torch_threads = 0
    with suppress(ImportError):
        torch = importlib.import_module("torch")
        record["versions"]["torch"], torch_threads = torch.__version__, torch.get_num_threads()
    return record | {"torch_threads": torch_threads, "matrix_size": MATRIX_SIZE, "peaks": peaks()}


def peaks() -> Peaks:
    """Return library -> dtype -> multiply-adds per second of a matrix product."""
    rates = {"tensorflow": {dtype: measure_matmul_throughput(dtype) for dtype in DTYPES}}
    with suppress(ImportError):
        torch = importlib.import_module("benchmarks.plain_torch")
        rates["torch"] = {dtype: torch.matrix_rate(dtype, MATRIX_SIZE, MEASURED_SECONDS) for dtype in DTYPES}
    return rates


def explain(measured: Measured, peaks: Peaks) -> Measured:
    """Return `measured` with the precision of ours, the fraction of the peak that each side reaches, and the profile of our step."""
    measured = replace(measured, precision=ours.precision(measured.benchmark.work))
    return replace(measured, peak_fraction=_peak_fractions(measured, peaks), shares=_shares(measured.benchmark))


def _shares(benchmark: Benchmark) -> dict[str, float]:
    """Return kind of operation -> its share of the time of our step, or nothing if the benchmark measures something else."""
    if benchmark.benchmark_type.passes != "step":
        return {}
    return step_profile.profile_step(ours.configure(benchmark.work), PROFILED_STEPS).shares()


def _peak_fractions(measured: Measured, peaks: Peaks) -> dict[str, float]:
    """Return side -> its multiply-adds per second over those of a matrix product in the same library and precision."""
    benchmark = measured.benchmark
    if not benchmark.benchmark_type.passes:
        return {}
    forward, step = ours.multiply_adds(benchmark.work.backbone, benchmark.work.image_size)
    each = {"forward": forward, "step": step}[benchmark.benchmark_type.passes]
    dtypes = {side: "float32" for side in measured.sides} | {OURS: measured.precision.removeprefix("mixed_")}
    rates = {side: peaks["torch" if side == TORCH else "tensorflow"].get(dtype) for side, dtype in dtypes.items()}
    return {side: measured.value(side).median * each / rate for side, rate in rates.items() if rate and side in measured.sides}
