"""Measures candidates for the default settings on three small data sets and two backbones, and prints the tables of docs/defaults.md.

    python -m tools.measure_defaults --data_dir=DIRECTORY                                      # one seed of every candidate
    python -m tools.measure_defaults --data_dir=DIRECTORY --seeds=0,1,2 --candidates="A;B"     # the finalists A and B

Finished runs are not repeated. Each command ends with the table of its runs; `--table_only` prints the table alone. Candidates are chosen
by validation accuracy and cost. Test accuracy is printed for several seeds only, that is for the finalists. Costs are processor seconds,
added over all cores, since elapsed seconds depend on what else the computer does.
"""

import argparse
import gc
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from types import MappingProxyType
from typing import Any

import numpy as np

import tl_keras
from tl_keras.results.metrics import group_interval
from tl_keras.results.predictions import read_predictions

Runs = Sequence[tl_keras.Run]

# Every candidate names all settings that may become other defaults. `before` has the defaults that reproduce the source reports.
BEFORE = MappingProxyType(
    {
        "strategy": "full",
        "optimizer": "sgd",
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "schedule": "constant",
        "warmup_epochs": 0.0,
        "augmentation": "none",
        "batch_size": 64,
    }
)
COSINE = MappingProxyType({**BEFORE, "schedule": "cosine", "batch_size": 32})
ADAMW = MappingProxyType({**COSINE, "optimizer": "adamw", "weight_decay": 0.01})
CANDIDATES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "before": BEFORE,
        "head, Adam 1e-3": {**COSINE, "strategy": "head", "optimizer": "adam"},
        "head, Adam 1e-2": {**COSINE, "strategy": "head", "optimizer": "adam", "learning_rate": 1e-2},
        "last:2, AdamW 3e-4": {**ADAMW, "strategy": "last:2", "learning_rate": 3e-4},
        "last:2, AdamW 1e-3": {**ADAMW, "strategy": "last:2"},
        "last:2, AdamW 1e-3, flip": {**ADAMW, "strategy": "last:2", "augmentation": "flip"},
        "last:2, AdamW 1e-3, batch 64": {**ADAMW, "strategy": "last:2", "batch_size": 64},
        "last:3, AdamW 1e-3": {**ADAMW, "strategy": "last:3"},
        "full, SGD 1e-2": {**COSINE, "learning_rate": 1e-2},
        "full, AdamW 1e-3": {**ADAMW},
        "head_then_full, AdamW 3e-4": {**ADAMW, "strategy": "head_then_full", "learning_rate": 3e-4},
        "head_then_full, AdamW 1e-3": {**ADAMW, "strategy": "head_then_full"},
    }
)

CHOSEN = "last:2, AdamW 1e-3"  # the defaults of `tl_keras.config`; a test compares them

# Data set -> settings. Images are small, and the epochs of the largest set half as many, so that the whole costs little.
CIFAR10 = MappingProxyType({"dataset": "cifar10", "image_size": 64, "validation_fraction": 0.02, "limit_test": 2000})
DATA: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "pets": {"dataset": "oxford_iiit_pet", "image_size": 96, "validation_fraction": 0.2, "epochs": 10},
        "CIFAR-10 2 %": {**CIFAR10, "fraction": 0.02, "epochs": 10},
        "CIFAR-10 10 %": {**CIFAR10, "fraction": 0.1, "epochs": 5},
    }
)
BACKBONES = ("efficientnet_lite0", "mobilenet_0.75")
COST = "cost.json"


def run_dir(runs_dir: Path, candidate: str, data: str, backbone: str, seed: int) -> Path:
    """Return the directory of one run, named after its candidate, data set, backbone and seed."""
    words = "".join(letter if letter.isalnum() else " " for letter in f"{data} {backbone} {candidate}").split()
    return runs_dir / f"{'-'.join(words)}-seed{seed}"


def measure(directory: Path, settings: Mapping[str, Any], data_dir: str) -> None:
    """Run `settings` in `directory` unless they have been run, and write the processor seconds beside the result.

    An interrupted run begins again, since a part of its cost is not known.
    """
    if (directory / COST).exists():
        return
    shutil.rmtree(directory, ignore_errors=True)
    settings, started = dict(settings), time.process_time()
    data = tl_keras.ImageData.from_tfds(settings.pop("dataset"), data_dir=data_dir or None)
    # A cache of its own: candidates that share features would cost less than they do for a user.
    run = tl_keras.fit(data, directory, **settings, save_model=False, verbose=0, cache_dir=str(directory / "features"))
    seconds = time.process_time() - started
    (directory / COST).write_text(json.dumps({"processor_seconds": seconds}) + "\n")
    print(f"{directory.name}: validation {run.result['metrics']['validation']['accuracy']:.3f}, {seconds:.0f} s", flush=True)
    gc.collect()  # A model is a cycle of references and would still be in memory while the next one is built.


def validation(runs: Runs) -> str:
    """Return the mean validation accuracy over seeds in per cent."""
    return f"{100 * fmean(run.result['metrics']['validation']['accuracy'] for run in runs):.1f}"


def cost(runs: Runs) -> str:
    """Return the median processor seconds."""
    return f"{median(json.loads((run.path / COST).read_text())['processor_seconds'] for run in runs):.0f} s"


def test(runs: Runs) -> str:
    """Return the mean test accuracy over seeds in per cent, with its 95 % interval over test images.

    The seeds share their test images, so the interval resamples images with the outcomes of all seeds (cluster bootstrap).
    """
    outcomes = []
    for run in runs:
        logits, labels = read_predictions(run.path)
        outcomes.append(logits.argmax(-1) == labels)
    correct = np.concatenate(outcomes)
    low, high = group_interval(correct, np.tile(np.arange(len(outcomes[0])), len(outcomes)))
    return f"{100 * correct.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def table(runs_dir: Path, candidates: Sequence[str], data: Sequence[str], backbones: Sequence[str], seeds: Sequence[int]) -> str:
    """Return a Markdown table of validation accuracy and cost and, of several seeds, one of test accuracy. Missing runs are dashes."""

    def rows(cell: Callable[[Runs], str]) -> list[str]:
        header = ["candidate", *(f"{name}, {backbone}" for name in data for backbone in backbones)]
        lines = [header, ["---"] * len(header)]
        for candidate in candidates:
            groups = [[run_dir(runs_dir, candidate, name, backbone, seed) for seed in seeds] for name in data for backbone in backbones]
            complete = [all((directory / COST).exists() for directory in group) for group in groups]
            loaded = [[tl_keras.load_run(path) for path in group] if done else [] for group, done in zip(groups, complete, strict=True)]
            lines.append([candidate, *(cell(runs) if runs else "-" for runs in loaded)])
        return [f"| {' | '.join(line)} |" for line in lines]

    parts = [rows(lambda runs: f"{validation(runs)}, {cost(runs)}"), *([rows(test)] if len(seeds) > 1 else [])]
    return "\n\n".join("\n".join(part) for part in parts)


def _choice(text: str, known: Sequence[str], separator: str = ",") -> list[str]:
    chosen = [name.strip() for name in text.split(separator)] if text else list(known)
    if unknown := [name for name in chosen if name not in known]:
        raise SystemExit(f"{unknown[0]!r} is none of: {'; '.join(known)}")
    return chosen


def main() -> None:
    """Run what the arguments choose, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="", help="directory of prepared TFDS data sets")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs/defaults"))
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--candidates", default="", help="separated by semicolons; empty: all")
    parser.add_argument("--data", default="", help="separated by commas; empty: all")
    parser.add_argument("--backbones", default="", help="separated by commas; empty: both")
    parser.add_argument("--table_only", action="store_true", help="print the table of what has been run")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    candidates = _choice(options.candidates, list(CANDIDATES), ";")
    data, backbones = _choice(options.data, list(DATA)), _choice(options.backbones, BACKBONES)
    jobs = [(c, d, b, seed) for d in data for c in candidates for b in backbones for seed in seeds]
    for candidate, name, backbone, seed in [] if options.table_only else jobs:
        settings = {**CANDIDATES[candidate], **DATA[name], "backbone": backbone, "seed": seed}
        measure(run_dir(options.runs_dir, candidate, name, backbone, seed), settings, options.data_dir)
    print(table(options.runs_dir, candidates, data, backbones, seeds))


if __name__ == "__main__":
    main()
