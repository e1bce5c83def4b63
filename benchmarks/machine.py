"""The processor that the benchmark runs on, and the fraction of its peak that a row reaches."""

import importlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from benchmarks import ours
from benchmarks.measure import Measured
from benchmarks.rows import OURS, TORCH
from tl_keras.backbones.macs import MATRIX_SIZE, MEASURED_SECONDS, measure_matmul_throughput
from tl_keras.config import RuntimeConfig
from tl_keras.training import runtime

DTYPES = ("float32", "bfloat16")

Peaks = Mapping[str, Mapping[str, float]]


def describe() -> dict[str, Any]:
    """Device, processor, automatic precision, versions and revision, as a run records them; with torch, threads and `peaks`."""
    record = runtime.make_runtime(RuntimeConfig(), seed=0, batch_size=1, depthwise=False).record()
    torch_threads = 0
    with suppress(ImportError):
        torch = importlib.import_module("torch")
        record["versions"]["torch"], torch_threads = torch.__version__, torch.get_num_threads()
    return record | {"torch_threads": torch_threads, "matrix_size": MATRIX_SIZE, "peaks": peaks()}


def peaks() -> Peaks:
    """Library -> dtype -> multiply-adds a second of a product of two matrices."""
    rates = {"tensorflow": {dtype: measure_matmul_throughput(dtype) for dtype in DTYPES}}
    with suppress(ImportError):
        torch = importlib.import_module("benchmarks.plain_torch")
        rates["torch"] = {dtype: torch.matrix_rate(dtype, MATRIX_SIZE, MEASURED_SECONDS) for dtype in DTYPES}
    return rates


def peak_shares(measured: Measured, peaks: Peaks) -> dict[str, float]:
    """Side -> its multiply-adds a second over those of a product of matrices in the same library and precision."""
    row = measured.row
    if not row.kind.passes:
        return {}
    forward, step = ours.multiply_adds(row.work.backbone, row.work.image_size)
    each = {"forward": forward, "step": step}[row.kind.passes]
    dtypes = {side: "float32" for side in measured.sides} | {OURS: ours.precision(row.work).removeprefix("mixed_")}
    rates = {side: peaks["torch" if side == TORCH else "tensorflow"].get(dtype) for side, dtype in dtypes.items()}
    return {side: measured.figure(side).median * each / rate for side, rate in rates.items() if rate and side in measured.sides}
