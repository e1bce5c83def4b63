"""Every setting has an effect: a table of a value for each, and of what must change with it."""

import numpy as np
import pytest
from plain_config import PLAIN

from tl_keras import data
from tl_keras.config import SETTINGS
from tl_keras.data.sampling import TrainingOrder
from tl_keras.results import run_directory
from tl_keras.runs.resolve import load_source, resolve
from tl_keras.runs.run import run
from tl_keras.runs.setup import build_model, build_runtime

BASE = PLAIN.replace(
    dataset="digits", backbone="tiny", weights="none", epochs=2, batch_size=64, learning_rate=0.02, limit_train=128, limit_test=64,
    validation_fraction=0.05, precision="float32", cache="off", save_model=False, strategy="head",
)  # fmt: skip
IMBALANCED = {"keep": "even:0.5", "limit_train": 0}


def resolved_settings(config):
    resolved = resolve(config)
    return resolved.backbone.name, resolved.geometry, resolved.normalization, resolved.phases, resolved.distribution


def split_sizes(config):
    splits = data.make_splits(data.load_source(config.data), config.data, config.seed)
    return len(splits.train), len(splits.validation or ()), len(splits.test)


def class_names(config):
    return load_source(config.data).class_names


def epoch_views(config):
    splits = data.make_splits(load_source(config.data), config.data, config.seed)
    order = TrainingOrder(splits.train, config.seed, config.data.sampling, config.data.cache_views)
    return order.num_examples, order.epoch(5).views.tolist(), order.epoch(0).positions.tolist()


def layers(config):
    return build_model(resolve(config), 3).get_config()


def layers_for_two_classes(config):
    return build_model(resolve(config), 2).get_config()


def losses_of_three_examples(config):
    from tl_keras.training.losses import build_loss

    targets, logits = np.eye(3, dtype=np.float32), np.array([[2, 0, 0], [0, 1, 0], [1, 0, 0]], np.float32)
    return np.asarray(build_loss(config.train, {0: 1, 1: 2, 2: 5}, 3)(targets, logits)).tolist()


def two_updates(config):
    """Return kernel and bias after two updates with fixed gradients."""
    import keras

    from tl_keras.training.optimizers import build_optimizer

    optimizer = build_optimizer(config.train)
    variables = [keras.Variable(np.ones(2, np.float32), name=name) for name in ("kernel", "bias")]
    optimizer.build(variables)
    for gradient in (1.0, 0.3):
        optimizer.apply([np.full(2, gradient, np.float32)] * 2, variables)
    return [variable.numpy().tolist() for variable in variables]


def lr_factors(config):
    from tl_keras.training.schedules import Schedule

    schedule = Schedule(config.train, updates_per_epoch=3)
    return [schedule.factor(step) for step in range(6)]


def runtime_record(config):
    record = build_runtime(resolve(config)).record()
    return record["precision"], record["xla"], record["replicas"]


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A function from a configuration to the losses, the selected epoch, the cache record and the files of a run."""
    runs = tmp_path_factory.mktemp("runs")

    def observe(config):
        directory = runs / config.config_id() / config.runtime.cache / str(config.runtime.cache_budget)
        result = run(config, directory)
        losses = [(row["loss"], row.get("val_loss")) for row in run_directory.read_history(directory)]
        cache = result["phases"][0]["cache"]
        files = sorted(path.name for path in directory.iterdir())
        return losses, result["selection"], cache["split_point"], cache.get("storage"), files

    return observe


# setting -> (settings it is tested with, its other value, what must change)
EFFECTS = {
    "dataset": ({}, "glyphs", class_names),
    "label": ({}, "parity", class_names),
    "fraction": ({"limit_train": 0}, 0.25, split_sizes),
    "validation_fraction": ({}, 0.2, split_sizes),
    "limit_train": ({}, 100, split_sizes),
    "limit_test": ({}, 50, split_sizes),
    "split": ({"limit_train": 0}, "streaming", split_sizes),
    "extra_classes": ({}, 990, class_names),
    "keep": ({"limit_train": 0}, "even:0.5", split_sizes),
    "sampling": (IMBALANCED, "balanced", epoch_views),
    "cache_views": ({"augmentation": "flip"}, 3, epoch_views),
    "seed": ({}, 1, epoch_views),
    "augmentation": ({"augmentation": "crop:padding=1"}, "crop:padding=3", "history"),
    "crop_fraction": ({}, 0.8, resolved_settings),
    "interpolation": ({"image_size": 24}, "bicubic", "history"),
    "backbone": ({}, "alexnet_narrow", resolved_settings),
    "image_size": ({}, 20, resolved_settings),
    "normalization": ({}, "cifar10", resolved_settings),
    "head": ({"label": "parity"}, "one_logit", layers_for_two_classes),
    "head_dropout": ({}, 0.5, layers),
    "stem": ({"backbone": "resnet18", "image_size": 32}, "cifar", layers),
    "strategy": ({}, "full", resolved_settings),
    "frozen_mode": ({}, "training", resolved_settings),
    "batch_norm": ({"strategy": "full"}, "inference", "history"),
    "batch_norm_momentum": ({}, 0.5, layers),
    "eval_mode_after": ({"strategy": "full"}, 1, "history"),
    "stage_learning_rates": ({"strategy": "full"}, "stem=0.1", "history"),
    "distribution": ({}, "mirrored", resolved_settings),
    "loss": ({}, "focal", losses_of_three_examples),
    "focal_gamma": ({"loss": "focal"}, 4.0, losses_of_three_examples),
    "class_weights": ({}, "balanced", losses_of_three_examples),
    "label_smoothing": ({}, 0.1, losses_of_three_examples),
    "optimizer": ({}, "adam", two_updates),
    "learning_rate": ({}, 0.1, two_updates),
    "momentum": ({}, 0.5, two_updates),
    "nesterov": ({}, True, two_updates),
    "weight_decay": ({}, 0.1, two_updates),
    "l2": ({}, 0.1, two_updates),
    "decay_biases": ({"l2": 0.1}, False, two_updates),
    "clip_norm": ({}, 0.1, two_updates),
    "schedule": ({}, "step:every=1", lr_factors),
    "schedule_interval": ({"schedule": "cosine"}, "epoch", lr_factors),
    "warmup_epochs": ({}, 1.0, lr_factors),
    "accumulate_steps": ({}, 2, "history"),
    "ema": ({}, 0.9, "history"),
    "epochs": ({}, 3, "history"),
    "batch_size": ({}, 32, "history"),
    "last_batch": ({"strategy": "full", "image_size": 8, "limit_train": 66}, "keep", "history"),
    "selection": ({"learning_rate": 1e-6}, "last", "history"),
    "time_limit": ({}, 1e-6, "history"),
    "grid": ({"cache": "memory"}, "l2=0|1", "history"),
    "precision": ({}, "mixed_bfloat16", runtime_record),
    "xla": ({}, "on", runtime_record),
    "save_model": ({}, True, "history"),
    "tensorboard": ({"epochs": 1}, True, "history"),
    "cache": ({}, "memory", "history"),
    "cache_budget": ({"cache": "auto", "backbone": "alexnet_narrow", "limit_train": 0, "limit_test": 0, "epochs": 1}, 1, "history"),
}
# Paths are tested where files are looked up.
ELSEWHERE = {
    "data_dir": "test_data_tfds.py",
    "on_corrupt": "test_data_folder.py",
    "links": "test_data_folder.py",
    "rehash": "test_data_folder.py",
    "group_by": "test_carve.py",
    "test_fraction": "test_data_table.py",
    "image_column": "test_data_table.py",
    "label_column": "test_data_table.py",
    "group_column": "test_data_table.py",
    "split_column": "test_data_table.py",
    "weights": "test_weights_registry.py",
    "weights_dir": "test_weights_registry.py",
    "cache_dir": "test_feature_cache.py",
}


@pytest.mark.parametrize("name", EFFECTS)
def test_a_setting_has_an_effect(name, history, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    others, value, observe = EFFECTS[name]
    observe = history if observe == "history" else observe
    config = BASE.replace(**others)
    assert config.to_dict()[name] != value
    assert observe(config) != observe(config.replace(**{name: value}))


def test_every_setting_is_tested():
    assert set(EFFECTS) | set(ELSEWHERE) == set(SETTINGS) and not set(EFFECTS) & set(ELSEWHERE)


def test_a_setting_without_an_effect_would_be_found(history):
    """With `cache=off` the budget changes nothing, and two runs agree in everything that is observed."""
    assert history(BASE) == history(BASE.replace(cache_budget=3000))
