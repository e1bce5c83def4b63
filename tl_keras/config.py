"""What a run is: frozen dataclasses, checked when they are made, to and from JSON.

Every setting is one field with its default, its help text and its allowed values; `flags.py` makes the command line
from them. Field names are unique over all groups, so a run can be named flat: `RunConfig().replace(epochs=3)`.
No TensorFlow here.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tl_keras.errors import ConfigError, unknown

LOSSES = ("cross_entropy", "focal")
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "step", "one_cycle", "plateau")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
CACHES = ("auto", "off", "memory", "disk")


def _setting(default: Any, help: str, *, choices: tuple[str, ...] = (), is_local: bool = False) -> Any:
    """A field. `is_local` marks what concerns this machine alone, where files lie and what is kept: it does not change what the run is."""
    return field(default=default, metadata={"help": help, "choices": choices, "is_local": is_local})


def _require(ok: bool, name: str, value: object, expected: str) -> None:
    if not ok:
        raise ConfigError(f"expected {expected}.", setting=name, value=value)


def _check(config: Any) -> None:
    """Check the type of every field (ints pass as floats) and its choices."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.type is float and type(value) is int:
            object.__setattr__(config, item.name, float(value))
        elif type(value) is not item.type:
            raise ConfigError(f"expected {item.type.__name__}.", setting=item.name, value=repr(value))
        if item.type is float:
            _require(math.isfinite(value), item.name, value, "a finite number")
        choices = item.metadata["choices"]
        _require(not choices or value in choices, item.name, value, f"one of {', '.join(choices)}")


@dataclass(frozen=True)
class DataConfig:
    """Which images, how many of them, and what is done to them before the model."""

    dataset: str = _setting("cifar10", "data set: a TFDS name, folder:PATH, or digits (embedded)")
    data_dir: str = _setting("", "directory of prepared TFDS data sets; empty: TFDS's own default", is_local=True)
    label: str = _setting("label", "which label of the data set to learn, e.g. label or species of oxford_iiit_pet")
    fraction: float = _setting(1.0, "share of the train split to train on, stratified; 1 means all that validation leaves")
    validation_fraction: float = _setting(0.1, "share of the train split held out for validation, stratified, before `fraction` is taken")
    limit_train: int = _setting(0, "train on at most this many images (0: no limit); the result is marked")
    limit_test: int = _setting(0, "test on at most this many images (0: no limit); the result is marked")
    on_corrupt: str = _setting("error", "what to do with unreadable files of a folder", choices=("error", "skip"))
    keep: str = _setting("", "shares of the training images of classes, or groups of them, to keep, e.g. cat:0.25; validation keeps all")
    sampling: str = _setting(
        "natural",
        "natural: each image once an epoch; balanced: those of smaller classes again until all classes are as large",
        choices=("natural", "balanced"),
    )
    augmentation: str = _setting("none", "augmentation of the training images: names joined by +; see `list augmentations`")
    cache_views: int = _setting(
        0, "show each training image in this many augmented views, made once, so that features of frozen layers can be kept; 0: always new"
    )
    crop_fraction: float = _setting(0.0, "share of the shorter side kept by the centre crop before resizing; 0: the data set's own")

    def __post_init__(self) -> None:
        _check(self)
        _require(0 < self.fraction <= 1, "fraction", self.fraction, "a share in (0, 1]")
        _require(0 <= self.validation_fraction < 1, "validation_fraction", self.validation_fraction, "a share in [0, 1)")
        total = self.fraction + self.validation_fraction
        _require(self.fraction == 1 or total <= 1 + 1e-9, "fraction", self.fraction,
                 f"at most 1 - `validation_fraction={self.validation_fraction}`, or 1 for all that validation leaves")  # fmt: skip
        _require(self.limit_train >= 0, "limit_train", self.limit_train, "0 or more images")
        _require(self.limit_test >= 0, "limit_test", self.limit_test, "0 or more images")
        _require(self.cache_views >= 0, "cache_views", self.cache_views, "0 or more views")
        _require(0 <= self.crop_fraction <= 1, "crop_fraction", self.crop_fraction, "a share in (0, 1], or 0")


@dataclass(frozen=True)
class ModelConfig:
    """Which backbone, which weights it starts from, and what it sees."""

    backbone: str = _setting("resnet50", "backbone, by name; see `list backbones`")
    weights: str = _setting("imagenet", "none, imagenet, another variant that `list backbones` names, or the path of a weights file")
    weights_dir: str = _setting("", "directory where weights files lie; empty: the caches that `weights --help` names", is_local=True)
    stem: str = _setting(
        "imagenet", "stem of a ResNet: imagenet (7x7 stride 2, max-pool) or cifar (3x3 stride 1, no pool)", choices=("imagenet", "cifar")
    )
    image_size: int = _setting(0, "side of the square input in pixels; 0: the backbone's own")
    normalization: str = _setting(
        "weights", "what the pixels are normalised by inside the model; weights: what the weights were trained with"
    )

    def __post_init__(self) -> None:
        _check(self)
        _require(self.image_size >= 0, "image_size", self.image_size, "a side in pixels, or 0")


@dataclass(frozen=True)
class TrainConfig:
    """What is trained, how fast, how long."""

    strategy: str = _setting("full", "what is trained: full, head, last:N, train:a+b, freeze:a+b; see `list strategies`")
    grid: str = _setting(
        "", "with `strategy=head`: train many heads at once, e.g. learning_rate=1e-4:1e-1:7,l2=0:1e-2:3, and keep the best on validation"
    )
    frozen_mode: str = _setting(
        "inference",
        "how frozen stages run: inference (running statistics, no dropout) or training (as PyTorch's model.train())",
        choices=("inference", "training"),
    )
    loss: str = _setting("cross_entropy", "loss; focal lowers the weight of examples that are right already", choices=LOSSES)
    focal_gamma: float = _setting(2.0, "how much focal does that: (1 - p)^gamma")
    class_weights: str = _setting(
        "none", "balanced: each class has the same total weight in the training loss", choices=("none", "balanced")
    )
    label_smoothing: float = _setting(0.0, "share of each training label that is spread evenly over all classes")
    optimizer: str = _setting("sgd", "optimizer, with PyTorch's arithmetic", choices=OPTIMIZERS)
    learning_rate: float = _setting(1e-3, "learning rate, the peak of the schedule")
    momentum: float = _setting(0.9, "momentum of sgd")
    nesterov: bool = _setting(False, "Nesterov momentum of sgd")
    weight_decay: float = _setting(0.0, "decoupled weight decay (AdamW's), times the learning rate")
    l2: float = _setting(0.0, "L2 penalty added to the gradient (weight_decay of torch.optim.SGD and Adam)")
    decay_biases: bool = _setting(True, "whether l2 and weight_decay act on biases and the weights of norms too")
    clip_norm: float = _setting(0.0, "largest L2 norm of the gradient of all weights together; larger ones are scaled down (0: no limit)")
    accumulate_steps: int = _setting(1, "batches whose gradients are averaged into one update")
    ema: float = _setting(
        0.0, "decay of an exponential moving average of the weights, which is then what is validated and tested (0: none)"
    )
    schedule: str = _setting("constant", "learning-rate schedule after warm-up", choices=SCHEDULES)
    warmup_epochs: float = _setting(
        0.0, "epochs over which the rate rises linearly from 0; with one_cycle the length of its own rise, 30 % of the run if 0"
    )
    epochs: int = _setting(10, "epochs of training")
    batch_size: int = _setting(64, "images in a training step, over all replicas")
    selection: str = _setting("best", "which epoch is tested: best on validation, or the last", choices=("best", "last"))

    def __post_init__(self) -> None:
        _check(self)
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "a rate above 0")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "a number in [0, 1)")
        _require(not self.nesterov or self.momentum > 0, "nesterov", self.nesterov, "`momentum` above 0 with Nesterov")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _require(self.l2 >= 0, "l2", self.l2, "0 or more")
        _require(self.focal_gamma >= 0, "focal_gamma", self.focal_gamma, "0 or more")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "a share in [0, 1)")
        _require(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 or more")
        _require(self.accumulate_steps >= 1, "accumulate_steps", self.accumulate_steps, "at least 1")
        _require(0 <= self.ema < 1, "ema", self.ema, "a decay in [0, 1)")
        _require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _require(0 <= self.warmup_epochs < self.epochs, "warmup_epochs", self.warmup_epochs, f"fewer than `epochs={self.epochs}`")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")


@dataclass(frozen=True)
class RuntimeConfig:
    """What it runs on. `auto` is resolved by `runtime.py` and recorded in the result."""

    precision: str = _setting("auto", "arithmetic; auto: what the device is fast at", choices=PRECISIONS)
    xla: str = _setting("auto", "compile the step with XLA; auto: on GPUs only", choices=("auto", "on", "off"))
    save_model: bool = _setting(True, "keep the tested model in the run's directory, for export and evaluate")
    distribution: str = _setting("none", "none: one device; mirrored: all local GPUs", choices=("none", "mirrored"))
    cache: str = _setting(
        "auto",
        "where the output of frozen layers is kept; auto: memory, or files where it is larger than the budget; disk: files, which later "
        "commands find again",
        choices=CACHES,
        is_local=True,
    )
    cache_budget: int = _setting(2000, "MB of memory that this may take; ten times as much on disk", is_local=True)
    cache_dir: str = _setting("", "directory of the files; empty: tl_keras/features in the user's cache directory", is_local=True)

    def __post_init__(self) -> None:
        _check(self)
        _require(self.cache_budget >= 1, "cache_budget", self.cache_budget, "at least 1 MB")


@dataclass(frozen=True)
class RunConfig:
    """One run: one configuration, one seed, one directory, one result."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    seed: int = _setting(0, "seed of the split, the new weights, the shuffling, the augmentation and dropout")

    def __post_init__(self) -> None:
        _require(type(self.seed) is int and 0 <= self.seed < 2**31, "seed", self.seed, "an integer in [0, 2^31)")
        twice = self.data.sampling == self.train.class_weights == "balanced"
        _require(not twice, "class_weights", self.train.class_weights, "none with `sampling=balanced`, which makes classes even already")

    def replace(self, **settings: Any) -> "RunConfig":
        """A copy with flat settings replaced, e.g. `config.replace(epochs=3, backbone="vgg16")`."""
        left = dict(settings)
        groups = {group: dataclasses.replace(getattr(self, group), **_take(left, getattr(self, group))) for group in GROUPS}
        seed = left.pop("seed", self.seed)
        if left:
            raise unknown("setting", next(iter(left)), SETTINGS)
        return RunConfig(seed=seed, **groups)

    def to_dict(self) -> dict[str, Any]:
        """All settings by their flat names, e.g. `{"dataset": "cifar10", ..., "seed": 0}`."""
        return {name: value for group in GROUPS for name, value in vars(getattr(self, group)).items()} | {"seed": self.seed}

    def identity(self) -> dict[str, Any]:
        """The settings that say what the run is: all but what concerns this machine alone."""
        return {name: value for name, value in self.to_dict().items() if not SETTINGS[name].metadata["is_local"]}

    def digest(self) -> str:
        """Eight hex digits that differ between runs of different identity."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:8]

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "RunConfig":
        """The inverse of `flat()`; raises ConfigError for unknown names and impossible values."""
        return cls().replace(**settings)


def _take(settings: dict[str, Any], group: Any) -> dict[str, Any]:
    """Remove from `settings` what belongs to `group`, and return it."""
    return {item.name: settings.pop(item.name) for item in dataclasses.fields(group) if item.name in settings}


GROUPS = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig, "runtime": RuntimeConfig}
SETTINGS = {item.name: item for group in GROUPS.values() for item in dataclasses.fields(group)}
SETTINGS["seed"] = next(item for item in dataclasses.fields(RunConfig) if item.name == "seed")
