"""Experiments that never ran: directories with made-up results of every shape a report must show."""

import math
from types import SimpleNamespace

import numpy as np

from tl_keras import report
from tl_keras.config import RunConfig
from tl_keras.results.predictions import ConfidentErrors, write_confident_errors, write_predictions
from tl_keras.results.run_directory import RunDirectory, try_load_result
from tl_keras.training import evaluation

NUM_TEST = 10_000
REPORTED = {("pre-trained", 0.1): 82.99, ("pre-trained", 0.2): 87.18, ("pre-trained", 0.5): 89.68,
            ("from scratch", 0.1): 12.89, ("from scratch", 0.2): 37.41, ("from scratch", 0.5): 51.06}  # fmt: skip
OURS = {("pre-trained", 0.1): 8342, ("pre-trained", 0.2): 8699, ("pre-trained", 0.5): 9011,
        ("from scratch", 0.1): 1031, ("from scratch", 0.2): 3522, ("from scratch", 0.5): 5240}  # fmt: skip
CURVES = {
    "pre-trained": {1: (1.1414, 59.68), 5: (0.3922, 86.78), 10: (0.2157, 92.82)},
    "from scratch": {1: (2.3024, 10.44), 5: (2.2999, 12.66), 10: (2.2823, 11.82)},
}
EXPERIMENT = SimpleNamespace(name="part_a", title="Part A", question="How much does pre-training help?")


def make_row(group, x, label="", stand_ins=(), reported=None):
    config = RunConfig().replace(fraction=x or 1.0, backbone="alexnet", weights="imagenet" if group == "pre-trained" else "none")
    known = {"test accuracy": REPORTED[group, x]} if (group, x) in REPORTED else {}
    return SimpleNamespace(
        label=label or f"{group}, {100 * x:g} %",
        group=group,
        x=x,
        config=config,
        reported=known if reported is None else reported,
        reported_curve=CURVES.get(group, {}) if x == 0.1 else {},
        stand_ins=tuple(stand_ins),
    )


def make_history(final, seed):
    """Ten epochs that approach the share `final`."""
    reached = [0.1 + (final - 0.1) * (1 - math.exp(-(epoch + 0.3 * seed) / 2.5)) for epoch in range(1, 11)]
    return [
        {"epoch": epoch, "phase": "full", "loss": -math.log(max(1e-3, min(0.99, share + 0.02))), "accuracy": min(1, share + 0.02),
         "images/s": 100.0, "input_wait": 0.02,
         "val_loss": -math.log(max(1e-3, share)), "val_accuracy": share, "learning_rate": 1e-3, "seconds": 30.0}
        for epoch, share in enumerate(reached, start=1)
    ]  # fmt: skip


def make_predictions(num_right, num_test, num_classes, key):
    """Logits and labels with exactly `num_right` hits; images are about as hard for every `key`, a tuple of two ints."""
    rng = np.random.default_rng(key)
    labels = np.arange(num_test) % num_classes
    hardness = np.random.default_rng(0).normal(size=num_test) + 0.5 * rng.normal(size=num_test)
    predicted = (labels + rng.choice([1, 1, 1, min(2, num_classes - 1), num_classes - 1], num_test)) % num_classes
    predicted[np.argsort(hardness)[:num_right]] = labels[np.argsort(hardness)[:num_right]]
    wrong = predicted != labels
    logits = rng.normal(size=(num_test, num_classes)).clip(-2, 2)
    logits[np.arange(num_test), predicted] = 2.1 + rng.exponential(np.where(wrong, 1.5, 4.0))
    return logits.astype(np.float32), labels


def make_mistakes(logits, labels, num=16, size=96):
    """Gratings in the place of images, tilted by class."""
    predicted = logits.argmax(axis=1)
    positions = np.flatnonzero(predicted != labels)[:num]
    down, across = np.mgrid[:size, :size] / 8
    waves = [np.sin(across * np.cos(label) + down * np.sin(label)) for label in labels[positions]]
    images = np.array([np.stack([wave, wave * 0.6, -wave], -1) * 110 + 128 for wave in waves]).reshape(-1, size, size, 3)
    return ConfidentErrors(
        images.astype(np.uint8), labels[positions], predicted[positions], np.linspace(1, 0.6, len(positions), dtype=np.float32), positions
    )


def make_result(
    row, seed, test, number, *, dataset="cifar10", embedded=False, limited=False, class_names=(), notes=(), fingerprint="abc123"
):
    trained = 57044810 // (1 + number**2)
    return {
        "name": row.label,
        "config": row.config.replace(seed=seed).identity(),
        "data": {
            "dataset": dataset, "fingerprint": fingerprint, "class_names": list(class_names),
            "num_train": round(50000 * (row.x or 1)), "num_validation": 5000, "num_test": test["num_examples"],
            "embedded": embedded, "limited": limited, "notes": list(notes),
        },
        "model": {"backbone": "alexnet", "parameters": 57044810, "image_size": 224, "crop_fraction": 1.0,
                  "normalization": "imagenet", "weights": row.config.model.weights,
                  "loading_info": {"source": "alexnet.pth", "loaded": 14, "left_out": 2}},
        "phases": [{"name": "full", "epochs": 10, "trainable_parameters": trained, "trainable_stages": ["conv1"], "seconds": 300.0,
                    "frozen_mode": "inference", "audit": {}, "cache": {"split_point": "", "reason": "nothing is frozen"}, "collapse": ""}],
        "test_cache": {"split_point": "", "reason": "nothing is frozen"},
        "runtime": {"device": "1 x NVIDIA H200", "cpu": "AMD EPYC, 2 cores", "precision": "mixed_bfloat16", "xla": True, "replicas": 1,
                    "versions": {"python": "3.11.9", "tensorflow": "2.21.0"}, "git_revision": "d4bc3b5"},
        "selection": {"rule": "last", "epoch": 10},
        "metrics": {"test": test, "validation": {"epoch": 9, "accuracy": 0.83, "loss": 0.6}},
        "seconds": {"total": 400.0, "train": 367.0 - 7 * number, "test": 5.0},
    }  # fmt: skip


def make_run(path, row, seed, number, num_right, num_test, class_names, **facts):
    logits, labels = make_predictions(num_right, num_test, len(class_names), (number, seed))
    test = evaluation.compute_metrics(logits, labels)
    place = RunDirectory(path)
    place.write_config(row.config.replace(seed=seed))
    place.write_history(make_history(test["accuracy"], seed))
    write_predictions(place.path, logits, labels)
    write_confident_errors(place.path, make_mistakes(logits, labels))
    place.write_result(make_result(row, seed, test, number, class_names=class_names, **facts))
    assert try_load_result(path), "what make_result holds is no longer what a result must hold: see RESULT_KEYS"


def make_experiment(
    directory, rows=None, seeds=(0,), experiment=EXPERIMENT, embedded=False, command="python -m experiments.part_a",
    departures=(), profile="paper", num_test=NUM_TEST, class_names=None, shares=(), **facts,
):  # fmt: skip
    """Run directories and `experiment.json`; rows are right in `shares` of the test images, by default as `OURS` says."""
    rows = rows or [make_row(group, x) for group, x in REPORTED]
    names = class_names or [f"class{i}" for i in range(10)]
    for number, row in enumerate(rows):
        share = shares[number] if shares else OURS.get((row.group, row.x), 7000) / NUM_TEST
        for seed in seeds:
            num_right = min(num_test, round((share + 0.004 * seed) * num_test))
            make_run(directory / f"run{number}-seed{seed}", row, seed, number, num_right, num_test, names, embedded=embedded, **facts)
    return report.collect(experiment, rows, seeds, directory, embedded=embedded, command=command, departures=departures, profile=profile)
