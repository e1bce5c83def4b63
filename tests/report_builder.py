"""Made-up results of experiments, in directories as real experiments write them, for the tests of the report."""

import math
from types import SimpleNamespace

import numpy as np
from plain_config import PLAIN

from tl_keras import report
from tl_keras.results.experiment_file import EXPERIMENT_FILE, ExperimentRecord, RowRecord, write_experiment_file
from tl_keras.results.predictions import ConfidentErrors, write_confident_errors, write_predictions
from tl_keras.results.run_directory import RunDirectory, try_load_result
from tl_keras.training import evaluation

NUM_TEST = 10_000
PUBLISHED = {("pre-trained", 0.1): 82.99, ("pre-trained", 0.2): 87.18, ("pre-trained", 0.5): 89.68,
            ("from scratch", 0.1): 12.89, ("from scratch", 0.2): 37.41, ("from scratch", 0.5): 51.06}  # fmt: skip
NUM_CORRECT = {("pre-trained", 0.1): 8342, ("pre-trained", 0.2): 8699, ("pre-trained", 0.5): 9011,
        ("from scratch", 0.1): 1031, ("from scratch", 0.2): 3522, ("from scratch", 0.5): 5240}  # fmt: skip
CURVES = {
    "pre-trained": {1: (1.1414, 59.68), 5: (0.3922, 86.78), 10: (0.2157, 92.82)},
    "from scratch": {1: (2.3024, 10.44), 5: (2.2999, 12.66), 10: (2.2823, 11.82)},
}
EXPERIMENT = SimpleNamespace(name="part_a", title="Part A", question="How much does pre-training help?")


def make_row(line, fraction, label="", fallbacks=(), published=None, published_curve=None, settings=None):
    config = PLAIN.replace(fraction=fraction or 1.0, backbone="alexnet", weights="imagenet" if line == "pre-trained" else "none")
    known = {"test accuracy": PUBLISHED[line, fraction]} if (line, fraction) in PUBLISHED else {}
    return SimpleNamespace(
        label=label or f"{line}, {100 * fraction:g} %",
        line=line,
        train_fraction=fraction,
        config=config,
        published=known if published is None else published,
        published_curve=published_curve or (CURVES.get(line, {}) if fraction == 0.1 else {}),
        settings=make_settings(config) if settings is None else settings,
        fallbacks=tuple(fallbacks),
    )


def make_settings(config):
    """Return some settings of a configuration with their origins."""
    origins = {"dataset": "said", "fraction": "said", "weights": "shown", "image_size": "chosen", "learning_rate": "changed"}
    values = config.identity()
    return {name: (values[name], origin) for name, origin in origins.items()}


def make_history(final, seed):
    """Return ten epochs whose accuracy approaches `final`, a fraction."""
    accuracies = [0.1 + (final - 0.1) * (1 - math.exp(-(epoch + 0.3 * seed) / 2.5)) for epoch in range(1, 11)]
    return [
        {"epoch": epoch, "phase": "full", "loss": -math.log(max(1e-3, min(0.99, accuracy + 0.02))), "accuracy": min(1, accuracy + 0.02),
         "images/s": 100.0, "input_wait": 0.02,
         "val_loss": -math.log(max(1e-3, accuracy)), "val_accuracy": accuracy, "learning_rate": 1e-3, "seconds": 30.0}
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]  # fmt: skip


def make_predictions(num_correct, num_test, num_classes, key):
    """Return logits and labels with exactly `num_correct` correct predictions.

    The difficulty of an image is similar for every `key`, a tuple of two ints.
    """
    rng = np.random.default_rng(key)
    labels = np.arange(num_test) % num_classes
    difficulty = np.random.default_rng(0).normal(size=num_test) + 0.5 * rng.normal(size=num_test)
    predicted = (labels + rng.choice([1, 1, 1, min(2, num_classes - 1), num_classes - 1], num_test)) % num_classes
    predicted[np.argsort(difficulty)[:num_correct]] = labels[np.argsort(difficulty)[:num_correct]]
    wrong = predicted != labels
    logits = rng.normal(size=(num_test, num_classes)).clip(-2, 2)
    logits[np.arange(num_test), predicted] = 2.1 + rng.exponential(np.where(wrong, 1.5, 4.0))
    return logits.astype(np.float32), labels


def make_confident_errors(logits, labels, num_images=16, size=96):
    """Return errors whose images are gratings, tilted by class."""
    predicted = logits.argmax(axis=1)
    indices = np.flatnonzero(predicted != labels)[:num_images]
    down, across = np.mgrid[:size, :size] / 8
    waves = [np.sin(across * np.cos(label) + down * np.sin(label)) for label in labels[indices]]
    images = np.array([np.stack([wave, wave * 0.6, -wave], -1) * 110 + 128 for wave in waves]).reshape(-1, size, size, 3)
    return ConfidentErrors(
        images.astype(np.uint8), labels[indices], predicted[indices], np.linspace(1, 0.6, len(indices), dtype=np.float32), indices
    )


def make_result(
    row, seed, test, row_index, *, dataset="cifar10", embedded=False, limited=False, class_names=(), notes=(), fingerprint="abc123"
):
    trained = 57044810 // (1 + row_index**2)
    return {
        "name": row.label,
        "config": row.config.replace(seed=seed).identity(),
        "data": {
            "dataset": dataset, "fingerprint": fingerprint, "class_names": list(class_names),
            "num_train": round(50000 * (row.train_fraction or 1)), "num_validation": 5000, "num_test": test["num_examples"],
            "embedded": embedded, "limited": limited, "notes": list(notes),
        },
        "model": {"backbone": "alexnet", "parameters": 57044810, "image_size": 224, "crop_fraction": 1.0,
                  "interpolation": "bilinear", "normalization": "imagenet", "weights": row.config.model.weights,
                  "loading_info": {"source": "alexnet.pth", "loaded": 14, "missing": {"logits/kernel": "not in the file; new"}}},
        "phases": [{"name": "full", "epochs": 10, "trainable_parameters": trained, "trainable_stages": ["conv1"], "seconds": 300.0,
                    "frozen_mode": "inference", "batch_norm": "train", "eval_mode": False, "audit": {},
                    "cache": {"split_point": "", "reason": "nothing is frozen"}, "collapse": ""}],
        "test_cache": {"split_point": "", "reason": "nothing is frozen"},
        "runtime": {"device": "1 x NVIDIA H200", "cpu": "AMD EPYC, 2 cores", "precision": "mixed_bfloat16", "xla": True, "replicas": 1,
                    "versions": {"python": "3.11.9", "tensorflow": "2.21.0"}, "git_revision": "d4bc3b5"},
        "selection": {"rule": "last", "epoch": 10},
        "metrics": {"test": test, "validation": {"epoch": 9, "accuracy": 0.83, "loss": 0.6}},
        "seconds": {"total": 400.0, "train": 367.0 - 7 * row_index, "test": 5.0},
    }  # fmt: skip


def make_run(path, row, seed, row_index, num_correct, num_test, class_names, **data):
    """Write the directory of a finished run; `data` are keywords of `make_result`."""
    logits, labels = make_predictions(num_correct, num_test, len(class_names), (row_index, seed))
    test = evaluation.compute_metrics(logits, labels)
    directory = RunDirectory(path)
    directory.write_config(row.config.replace(seed=seed))
    directory.write_history(make_history(test["accuracy"], seed))
    write_predictions(directory.path, logits, labels)
    write_confident_errors(directory.path, make_confident_errors(logits, labels))
    directory.write_result(make_result(row, seed, test, row_index, class_names=class_names, **data))
    assert try_load_result(path), "make_result lacks a key of a result: see RESULT_KEYS"


def make_experiment(
    directory, rows=None, seeds=(0,), experiment=EXPERIMENT, embedded=False, command="python -m experiments.part_a",
    changed_settings=(), profile="paper", num_test=NUM_TEST, class_names=None, accuracies=(), reference="", **data,
):  # fmt: skip
    """Write run directories and `experiment.json`, and return the loaded experiment.

    `accuracies` are fractions, one per row; by default `NUM_CORRECT` has the number of correct predictions.
    """
    rows = rows or [make_row(line, fraction) for line, fraction in PUBLISHED]
    names = class_names or [f"class{i}" for i in range(10)]
    for index, row in enumerate(rows):
        accuracy = accuracies[index] if accuracies else NUM_CORRECT.get((row.line, row.train_fraction), 7000) / NUM_TEST
        for seed in seeds:
            num_correct = min(num_test, round((accuracy + 0.004 * seed) * num_test))
            make_run(directory / f"run{index}-seed{seed}", row, seed, index, num_correct, num_test, names, embedded=embedded, **data)
    records = [
        RowRecord(
            row.label, row.line, row.train_fraction, row.published, row.published_curve, row.settings, row.fallbacks,
            runs=tuple(f"run{index}-seed{seed}" for seed in seeds),
        )
        for index, row in enumerate(rows)
    ]  # fmt: skip
    record = ExperimentRecord(
        experiment.name, experiment.title, experiment.question, command, profile, embedded,
        tuple(changed_settings), reference, tuple(records),
    )  # fmt: skip
    write_experiment_file(directory / EXPERIMENT_FILE, record)
    return report.load_experiment(directory / EXPERIMENT_FILE)
