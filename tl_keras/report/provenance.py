"""Sections on the origin of the results: data, weights, hardware, package versions, time, and the single runs."""

from collections.abc import Mapping
from typing import Any

from tl_keras.report.document import Block, Heading, Table
from tl_keras.report.experiment_results import ExperimentResults, Run
from tl_keras.report.text import EMPTY_CELL, device_name, format_duration, format_range, join_unique, row_label
from tl_keras.utils.text import to_one_line

RUN_HEADINGS = ("row", "seed", "test accuracy (%)", "validation accuracy (%)", "tested epoch", "training time", "directory")


def provenance_blocks(results: ExperimentResults, level: int) -> list[Block]:
    """Return a table of what the results come from, and a table with a line for each run. Several values if runs differ."""
    facts = [(name, text) for name, text in {**_data(results), **_runtime(results)}.items() if text]
    runs = [[row_label(results, row), *_run(run)] for row in results.rows for run in row.runs]
    return [
        Heading(level, "Provenance"),
        Table(("fact", "value"), facts, is_text=True, is_sortable=False),
        Heading(level, "Runs"),
        Table(RUN_HEADINGS, runs),
    ]


def _data(results: ExperimentResults) -> dict[str, str]:
    """Return the data set, its splits and the weights."""
    data = [run.result["data"] for run in results.runs]
    models = [run.result["model"] for run in results.runs]
    splits = ("train", "validation", "test")
    return {
        "data set": join_unique(part["dataset"] for part in data),
        "fingerprint of the data": join_unique(part["fingerprint"] for part in data),
        **{f"{split} images": format_range([part[f"num_{split}"] for part in data]) for split in splits},
        "seeds": join_unique(run.seed for run in results.runs),
        "weights": join_unique(map(_weights, models)),
        "SHA-256 of the weights file": join_unique(found for model in models if (found := model.get("weights_sha256"))),
    }


def _runtime(results: ExperimentResults) -> dict[str, str]:
    """Return the hardware, the precision and XLA that were really used, the package versions and the time."""
    runtimes = [run.result["runtime"] for run in results.runs]
    versions = [runtime["versions"] for runtime in runtimes]
    packages = dict.fromkeys(name for found in versions for name in found)
    finished = sorted({str(run.result["finished"]) for run in results.runs if run.result.get("finished")})
    return {
        "device": join_unique(device_name(run) for run in results.runs),
        "precision": join_unique(runtime["precision"] for runtime in runtimes),
        "XLA": join_unique("on" if runtime["xla"] else "off" for runtime in runtimes),
        "replicas": join_unique(runtime["replicas"] for runtime in runtimes),
        **{to_one_line(name): join_unique(found.get(name, EMPTY_CELL) for found in versions) for name in packages},
        "source revision": join_unique(runtime["git_revision"] for runtime in runtimes if runtime["git_revision"]),
        "finished": " to ".join(map(to_one_line, dict.fromkeys([*finished[:1], *finished[-1:]]))),
        "time of all runs": format_duration(sum(run.result["seconds"]["total"] for run in results.runs)),
    }


def _weights(model: Mapping[str, Any]) -> str:
    """Return the origin of the model's weights, e.g. the file, and which variables it does not have."""
    info = "; ".join(f"{name}: {_describe(value)}" for name, value in model["loading_info"].items() if value)
    return f"{to_one_line(model['backbone'])}: {info or model['weights']}"


def _describe(value: Any) -> str:
    """Return a value of `loading_info` as text, e.g. `logits/kernel (not in the file)` for an entry of a mapping."""
    return ", ".join(f"{name} ({text})" for name, text in value.items()) if isinstance(value, Mapping) else str(value)


def _run(run: Run) -> list[str]:
    validation = run.result["metrics"]["validation"].get("accuracy")
    shown = EMPTY_CELL if validation is None else f"{100 * validation:.2f}"
    epochs = f"{run.result['selection']['epoch']} of {run.num_epochs}"
    return [str(run.seed), f"{100 * run.test['accuracy']:.2f}", shown, epochs, format_duration(run.result["seconds"]["train"]), run.name]
