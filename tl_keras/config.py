"""The configuration of a run: frozen dataclasses that are checked on construction, to and from JSON. No TensorFlow.

Every setting is one field with its default, its help text and its allowed values; `cli/flags.py` defines the command line
from them. Field names are unique over all groups, so settings need no group: `RunConfig().replace(epochs=3)`. Defaults are for a first
user with hundreds or thousands of images; docs/defaults.md has the measurements behind them.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tl_keras.errors import ConfigError, unknown
from tl_keras.utils import lr_schedules
from tl_keras.utils.files import is_path

LOSSES = ("cross_entropy", "focal")
OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
INTERPOLATIONS = ("bilinear", "bicubic")
COLUMN_SETTINGS = ("image_column", "label_column", "group_column", "split_column")  # of csv:PATH
CACHES = ("auto", "off", "memory", "disk")


def _setting(default: Any, help: str, *, choices: tuple[str, ...] = (), is_local: bool = False) -> Any:
    """Return a dataclass field. `is_local` settings (paths, cache) describe the machine and are not part of the run's identity."""
    return field(default=default, metadata={"help": help, "choices": choices, "is_local": is_local})


def _check_that(ok: bool, name: str, value: object, expected: str) -> None:
    if not ok:
        raise ConfigError(f"expected {expected}.", setting=name, value=value)


def _check(config: Any) -> None:
    """Check the type and the choices of every field. Integers are converted where a float is expected."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.type is float and type(value) is int:
            object.__setattr__(config, item.name, float(value))
        elif type(value) is not item.type:
            raise ConfigError(f"expected {type(item.default).__name__}.", setting=item.name, value=repr(value))
        if item.type is float:
            _check_that(math.isfinite(value), item.name, value, "a finite number")
        choices = item.metadata["choices"]
        if choices and value not in choices:
            raise unknown("value", value, choices, setting=item.name, value=value)


def _absolute(dataset: str) -> str:
    """Return `dataset` with the absolute path of a folder or a table, so that it is one run however the path is written."""
    prefix, colon, path = dataset.partition(":")
    return f"{prefix}:{os.path.abspath(os.path.expanduser(path))}" if prefix in ("folder", "csv") and colon and path else dataset


def unused_settings(dataset: str) -> dict[str, Any]:
    """Return the settings of columns and groups that a data set of this kind does not have, with the values that they must have."""
    kind = dataset.partition(":")[0] if ":" in dataset else ""
    names = [*(() if kind == "csv" else COLUMN_SETTINGS), *(() if kind in ("folder", "csv", "table") else ("group_by",))]
    return {item.name: item.default for item in dataclasses.fields(DataConfig) if item.name in names}


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


@dataclass(frozen=True)
class DataConfig:
    """Settings of the data: which images, how many of them, and their augmentation."""

    dataset: str = _setting("cifar10", "data set: a TFDS name, folder:PATH, csv:PATH, or digits (bundled)")
    data_dir: str = _setting(
        "", "directory of prepared TFDS data sets, or of the table of table:HASH; empty: TFDS's own default", is_local=True
    )
    label: str = _setting("label", "label to learn, e.g. label or species of oxford_iiit_pet")
    fraction: float = _setting(1.0, "fraction of the train split to train on, stratified; 1: all but the validation images")
    validation_fraction: float = _setting(
        0.1, "fraction of the train split held out for validation, stratified, before `fraction` is applied"
    )
    test_fraction: float = _setting(
        0.2, "fraction of the images carved out for testing, stratified, where the data set has no test split of its own"
    )
    limit_train: int = _setting(0, "train on at most this many images (0: no limit); the result is marked")
    limit_test: int = _setting(0, "test on at most this many images (0: no limit); the result is marked")
    on_corrupt: str = _setting("error", "what to do about unreadable files of a folder or a table", choices=("error", "skip"))
    rehash: bool = _setting(False, "read every file of a folder of images again, also those that have not changed", is_local=True)
    links: str = _setting("inside", "links in a folder of images: only to files inside it, or anywhere", choices=("inside", "anywhere"))
    group_by: str = _setting(
        "",
        "regular expression for paths in a folder or a table; images with the same first group, e.g. of one patient, stay in one split",
    )
    image_column: str = _setting("image", "column of csv:PATH with paths of images, absolute or relative to the directory of the table")
    label_column: str = _setting("label", "column of csv:PATH with the names of the classes")
    group_column: str = _setting(
        "", "column of csv:PATH with groups of images that stay in one split, e.g. patients; empty: there are no groups"
    )
    split_column: str = _setting("", "column of csv:PATH with train, validation or test; empty: the splits are carved out")
    keep: str = _setting("", "fractions of the training images of classes or superclasses to keep, e.g. cat:0.25; validation keeps all")
    sampling: str = _setting(
        "natural",
        "natural: each image once per epoch; balanced: repeat smaller classes up to the size of the largest",
        choices=("natural", "balanced"),
    )
    augmentation: str = _setting(
        "none", "augmentation of the training images, e.g. rotate:degrees=20+flip; see: tl-keras list augmentations"
    )
    cache_views: int = _setting(
        0,
        "augmented views per training image, created once and reused, so that their features can be cached; 0: augment anew every epoch",
    )
    crop_fraction: float = _setting(
        0.0,
        "fraction of the shorter side that the centre crop keeps; 0: as the weights' own test images for oxford_iiit_pet, 1 for other "
        "data sets, folders included",
    )
    interpolation: str = _setting(
        "weights", "interpolation of the resize; weights: that of the weights' own test images", choices=("weights", *INTERPOLATIONS)
    )
    split: str = _setting(
        "stratified",
        "rule that divides the train split into training and validation images; streaming: image by image in the order of the data "
        "set, as source report D does for its imbalanced sets, whatever the seed",
        choices=("stratified", "streaming"),
    )
    extra_classes: int = _setting(0, "classes without images that the head has after those of the data set")

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "dataset", _absolute(self.dataset))
        _check_that(_is_pattern(self.group_by), "group_by", self.group_by, "a regular expression, e.g. (patient[0-9]+)")
        _check_that(0 < self.test_fraction < 1, "test_fraction", self.test_fraction, "a fraction in (0, 1)")
        _check_that(0 < self.fraction <= 1, "fraction", self.fraction, "a fraction in (0, 1]")
        _check_that(0 <= self.validation_fraction < 1, "validation_fraction", self.validation_fraction, "a fraction in [0, 1)")
        total = self.fraction + self.validation_fraction
        _check_that(self.fraction == 1 or total <= 1 + 1e-9, "fraction", self.fraction,
                 f"at most 1 - `validation_fraction={self.validation_fraction}`, or 1 for all but the validation images")  # fmt: skip
        if self.split == "streaming":
            _check_that(self.fraction == 1, "fraction", self.fraction, "1 with `split=streaming`; `limit_train` takes a part")
            _check_that(self.validation_fraction > 0, "validation_fraction", 0.0, "a fraction above 0 with `split=streaming`")
        _check_that(self.limit_train >= 0, "limit_train", self.limit_train, "0 or more images")
        _check_that(self.limit_test >= 0, "limit_test", self.limit_test, "0 or more images")
        _check_that(self.cache_views >= 0, "cache_views", self.cache_views, "0 or more views")
        _check_that(0 <= self.crop_fraction <= 1, "crop_fraction", self.crop_fraction, "a fraction in (0, 1], or 0")
        _check_that(self.extra_classes >= 0, "extra_classes", self.extra_classes, "0 or more classes")


@dataclass(frozen=True)
class ModelConfig:
    """Settings of the model: its backbone, initial weights and input."""

    backbone: str = _setting("efficientnet_lite0", "backbone; see: tl-keras list backbones")
    weights: str = _setting(
        "imagenet",
        "none, imagenet, another variant of `tl-keras list backbones`, or a path: a weights file, the directory of a finished run or of an "
        "export, a SavedModel, or the delta.npz of a run",
    )
    weights_dir: str = _setting("", "directory of weights files; empty: the caches that the help of tl-keras weights lists", is_local=True)
    stem: str = _setting(
        "imagenet", "stem of a ResNet: imagenet (7x7 stride 2, max-pool) or cifar (3x3 stride 1, no pool)", choices=("imagenet", "cifar")
    )
    image_size: int = _setting(0, "side of the square input in pixels; 0: that of the weights' own test images")
    normalization: str = _setting("weights", "input normalization inside the model; weights: the one the weights were trained with")
    head: str = _setting(
        "linear", "head: linear (one logit per class), or one_logit for two classes (logits 0 and z)", choices=("linear", "one_logit")
    )
    head_dropout: float = _setting(0.0, "dropout rate before the new head, besides any dropout of the backbone")

    def __post_init__(self) -> None:
        _check(self)
        if is_path(self.weights):
            object.__setattr__(self, "weights", os.path.abspath(os.path.expanduser(self.weights)))
        _check_that(0 <= self.head_dropout < 1, "head_dropout", self.head_dropout, "a rate in [0, 1)")
        _check_that(self.image_size >= 0, "image_size", self.image_size, "a side in pixels, or 0")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training: what is trained, with which optimizer, for how long."""

    strategy: str = _setting(
        "last:2", "fine-tuning strategy: full, head, last:N, train:a+b, freeze:a+b, ...; see: tl-keras list strategies"
    )
    grid: str = _setting(
        "", "with `strategy=head`: train many heads at once, e.g. learning_rate=1e-4:1e-1:7,l2=0:1e-2:3, and select the best on validation"
    )
    frozen_mode: str = _setting(
        "inference",
        "how frozen stages run: inference (running statistics, no dropout) or training (as PyTorch's model.train())",
        choices=("inference", "training"),
    )
    batch_norm: str = _setting(
        "train",
        "statistics of BatchNorm in trained stages: train (those of the batch) or inference (fixed running statistics)",
        choices=("train", "inference"),
    )
    batch_norm_momentum: float = _setting(
        0.0, "fraction of its running statistics that BatchNorm keeps in an update (0.9 is PyTorch's 0.1); 0: that of the backbone"
    )
    eval_mode_after: int = _setting(
        -1, "epochs after which the whole network runs in evaluation mode while its weights go on training; -1: never"
    )
    loss: str = _setting("cross_entropy", "loss; focal reduces the weight of examples that are classified well", choices=LOSSES)
    focal_gamma: float = _setting(2.0, "gamma of the focal loss, whose weight is (1 - p)^gamma")
    class_weights: str = _setting(
        "none", "balanced: each class has the same total weight in the training loss", choices=("none", "balanced")
    )
    label_smoothing: float = _setting(0.0, "fraction of each training label that is spread evenly over all classes")
    optimizer: str = _setting("adamw", "optimizer, with PyTorch's arithmetic", choices=OPTIMIZERS)
    learning_rate: float = _setting(1e-3, "learning rate, the peak of the schedule")
    stage_learning_rates: str = _setting(
        "", "learning rates of single stages, e.g. stem=7e-3,head=1e-2,*=5e-3; * stands for the others; empty: those of the strategy"
    )
    momentum: float = _setting(0.9, "momentum of sgd")
    nesterov: bool = _setting(False, "Nesterov momentum of sgd")
    weight_decay: float = _setting(0.01, "decoupled weight decay (AdamW's), times the learning rate")
    l2: float = _setting(0.0, "L2 penalty added to the gradient (weight_decay of torch.optim.SGD and Adam)")
    decay_biases: bool = _setting(True, "also apply l2 and weight_decay to biases and normalization parameters")
    clip_norm: float = _setting(0.0, "maximum L2 norm of the gradient of all weights together; 0: no limit")
    accumulate_steps: int = _setting(1, "number of batches whose gradients are averaged into one update")
    ema: float = _setting(
        0.0, "decay of an exponential moving average of the weights, which is validated and tested instead of them; 0: none"
    )
    schedule: str = _setting(
        "cosine", f"learning-rate schedule after warm-up: {', '.join(lr_schedules.SCHEDULES)}; options: see tl-keras list schedules"
    )
    schedule_interval: str = _setting(
        "step",
        "how often the schedule changes the learning rate: after every update, or after every epoch as in PyTorch",
        choices=("step", "epoch"),
    )
    warmup_epochs: float = _setting(
        0.0, "epochs over which the learning rate rises linearly from 0; with one_cycle the length of its rise, 30 % of the run if 0"
    )
    epochs: int = _setting(10, "epochs of training")
    batch_size: int = _setting(32, "images per training step, over all replicas")
    last_batch: str = _setting(
        "merge",
        "last images of an epoch that are too few for the statistics of BatchNorm: merge them into the batch before, or keep them apart",
        choices=("merge", "keep"),
    )
    selection: str = _setting("best", "epoch that is tested: the best on validation, or the last", choices=("best", "last"))
    time_limit: float = _setting(
        0.0, "seconds of training, features and validation included, beyond which no further epoch is expected to last; 0: no limit"
    )

    def __post_init__(self) -> None:
        _check(self)
        _check_that(self.learning_rate > 0, "learning_rate", self.learning_rate, "a learning rate above 0")
        _check_that(0 <= self.momentum < 1, "momentum", self.momentum, "a number in [0, 1)")
        _check_that(not self.nesterov or self.momentum > 0, "nesterov", self.nesterov, "`momentum` above 0 with Nesterov")
        _check_that(0 <= self.batch_norm_momentum < 1, "batch_norm_momentum", self.batch_norm_momentum, "a fraction in [0, 1)")
        _check_that(self.eval_mode_after >= -1, "eval_mode_after", self.eval_mode_after, "a number of epochs, or -1")
        _check_that(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _check_that(self.l2 >= 0, "l2", self.l2, "0 or more")
        _check_that(self.focal_gamma >= 0, "focal_gamma", self.focal_gamma, "0 or more")
        _check_that(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "a fraction in [0, 1)")
        _check_that(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 or more")
        _check_that(self.accumulate_steps >= 1, "accumulate_steps", self.accumulate_steps, "at least 1")
        _check_that(0 <= self.ema < 1, "ema", self.ema, "a decay in [0, 1)")
        _check_that(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _check_that(0 <= self.warmup_epochs < self.epochs, "warmup_epochs", self.warmup_epochs, f"fewer than `epochs={self.epochs}`")
        lr_schedules.parse(self.schedule)
        whole = self.schedule_interval == "step" or self.warmup_epochs.is_integer()
        _check_that(whole, "warmup_epochs", self.warmup_epochs, "a whole number with `schedule_interval=epoch`")
        _check_that(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _check_that(self.time_limit >= 0, "time_limit", self.time_limit, "a number of seconds, or 0")


@dataclass(frozen=True)
class RuntimeConfig:
    """Settings of the runtime. `training/runtime.py` resolves `auto`; the result records the value in effect."""

    precision: str = _setting("auto", "arithmetic; auto: the fastest of the device", choices=PRECISIONS)
    xla: str = _setting("auto", "compile the training step with XLA; auto: on GPUs only", choices=("auto", "on", "off"))
    save_model: bool = _setting(True, "save the tested model in the run directory, for export and evaluate")
    tensorboard: bool = _setting(
        False,
        "write loss, accuracy and learning rate of each epoch to the folder tensorboard of the run, which the package tensorboard shows",
        is_local=True,
    )
    distribution: str = _setting("none", "none: one device; mirrored: all local GPUs", choices=("none", "mirrored"))
    cache: str = _setting(
        "auto",
        "storage of the features of frozen layers; auto: memory, or disk beyond the budget; disk: files, which later commands reuse",
        choices=CACHES,
        is_local=True,
    )
    cache_budget: int = _setting(2000, "memory budget of the feature cache in MB; ten times as much on disk", is_local=True)
    cache_dir: str = _setting("", "directory of the feature cache; empty: tl_keras/features in the user's cache directory", is_local=True)

    def __post_init__(self) -> None:
        _check(self)
        _check_that(self.cache_budget >= 1, "cache_budget", self.cache_budget, "at least 1 MB")


@dataclass(frozen=True)
class RunConfig:
    """All settings of one run, checked on construction. Names are unique over the groups.

    Example:
        >>> config = tl_keras.RunConfig().replace(strategy="head", learning_rate=0.01)
        >>> config.train.strategy, config.to_dict()["learning_rate"]
        ('head', 0.01)
    """

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    seed: int = _setting(0, "seed of the split, new weights, shuffling, augmentation and dropout")

    def __post_init__(self) -> None:
        _check_that(type(self.seed) is int and 0 <= self.seed < 2**31, "seed", self.seed, "an integer in [0, 2^31)")
        twice = self.data.sampling == self.train.class_weights == "balanced"
        _check_that(
            not twice, "class_weights", self.train.class_weights, "none with `sampling=balanced`, which balances the classes already"
        )

    def replace(self, **settings: Any) -> "RunConfig":
        """Return a copy with some settings replaced, e.g. `config.replace(epochs=3, backbone="vgg16")`."""
        remaining = dict(settings)
        groups = {group: dataclasses.replace(getattr(self, group), **_pop_fields(remaining, getattr(self, group))) for group in GROUPS}
        seed = remaining.pop("seed", self.seed)
        if remaining:
            raise unknown("setting", next(iter(remaining)), SETTINGS)
        return RunConfig(seed=seed, **groups)

    def with_data(self, **settings: Any) -> "RunConfig":
        """Return a copy with other data. Settings of columns and groups that a new data set does not have get their defaults."""
        return self.replace(**{**unused_settings(settings.get("dataset", self.data.dataset)), **settings})

    def to_dict(self) -> dict[str, Any]:
        """Return all settings by name, e.g. `{"dataset": "cifar10", ..., "seed": 0}`."""
        return {name: value for group in GROUPS for name, value in vars(getattr(self, group)).items()} | {"seed": self.seed}

    def identity(self) -> dict[str, Any]:
        """Return the settings that define the run: all but the local ones."""
        return {name: value for name, value in self.to_dict().items() if not SETTINGS[name].metadata["is_local"]}

    def config_id(self) -> str:
        """Return eight hex digits that differ between runs of different identity."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:8]

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "RunConfig":
        """Return the configuration of settings by name; ConfigError for unknown names and impossible values."""
        return cls().replace(**settings)


def _pop_fields(settings: dict[str, Any], group: Any) -> dict[str, Any]:
    """Remove the settings of `group` from `settings`, and return them."""
    return {item.name: settings.pop(item.name) for item in dataclasses.fields(group) if item.name in settings}


GROUPS = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig, "runtime": RuntimeConfig}
SETTINGS = {item.name: item for group in GROUPS.values() for item in dataclasses.fields(group)}
SETTINGS["seed"] = next(item for item in dataclasses.fields(RunConfig) if item.name == "seed")
