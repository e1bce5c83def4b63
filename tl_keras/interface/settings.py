"""The settings of `fit` by name, made from `tl_keras.config` by tools/make_settings_types.py. Do not edit."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from tl_keras.strategies import Strategy

if TYPE_CHECKING:
    from tl_keras.interface.run import Run


class Settings(TypedDict, total=False):
    """The settings that `fit`, `dry_run` and `lr_find` take by name."""

    fraction: float
    validation_fraction: float
    limit_train: int
    limit_test: int
    keep: str
    sampling: Literal["natural", "balanced"]
    augmentation: str
    cache_views: int
    crop_fraction: float
    interpolation: Literal["weights", "bilinear", "bicubic"]
    split: Literal["stratified", "streaming"]
    extra_classes: int
    backbone: str
    weights: "str | Path | Run | None"
    weights_dir: str
    stem: Literal["imagenet", "cifar"]
    image_size: int
    normalization: str
    head: Literal["linear", "one_logit"]
    head_dropout: float
    strategy: "str | Strategy"
    grid: str
    frozen_mode: Literal["inference", "training"]
    batch_norm: Literal["train", "inference"]
    batch_norm_momentum: float
    eval_mode_after: int
    loss: Literal["cross_entropy", "focal"]
    focal_gamma: float
    class_weights: Literal["none", "balanced"]
    label_smoothing: float
    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: float
    stage_learning_rates: str
    momentum: float
    nesterov: bool
    weight_decay: float
    l2: float
    decay_biases: bool
    clip_norm: float
    accumulate_steps: int
    ema: float
    schedule: str
    schedule_interval: Literal["step", "epoch"]
    warmup_epochs: float
    epochs: int
    batch_size: int
    last_batch: Literal["merge", "keep"]
    selection: Literal["best", "last"]
    time_limit: float
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
    xla: Literal["auto", "on", "off"]
    save_model: bool
    tensorboard: bool
    distribution: Literal["none", "mirrored"]
    cache: Literal["auto", "off", "memory", "disk"]
    cache_budget: int
    cache_dir: str
    seed: int
