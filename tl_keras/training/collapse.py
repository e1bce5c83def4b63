"""Notices that fine-tuning has destroyed what the network had learned, and says what moved and what helps. NumPy alone.

Pre-trained weights are small: at 0.02 each, a convolution's of ResNet size, Adam's first steps, which are as large as the rate for
every weight whatever its gradient, change them by 5 % each at rate 1e-3. Before a BatchNorm only this share matters, for the scale
of such weights cancels. tools/adamw_collapse.py measures it, and what cures it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tl_keras.config import TrainConfig

LEARNED_LOSS_FRACTION = 0.8  # a training loss below this share of log(classes): the network does learn
WORSE_THAN_GUESSING = 1.2  # a validation loss above this share of log(classes)
LOSS_JUMP_FACTOR = 2.0  # how much a validation loss grows at once; overfitting takes epochs for it
MIN_ACCURACY_DROP = 0.2  # of accuracy; less is noise on a small validation split

ADVICE = (
    "Try a tenth of `learning_rate`, or rates that fall towards the stem, `strategy=layer_decay:0.3`. Of little help: `warmup_epochs` "
    "puts it off until the rate is reached, and Adam's step is the same for a gradient that `clip_norm` has scaled down."
)


def detect_collapse(history: Sequence[Mapping[str, Any]], num_classes: int) -> str:
    """What says that the last epoch of `history` is a collapse, e.g. "validation accuracy fell from 91.0 to 40.2 %"; empty if nothing.

    A collapse is a loss of what was there: accuracy on validation, above guessing, falls by more than half from its best, or its loss
    jumps beyond that of guessing although the training loss is lower; without validation, the training loss comes back to that of
    guessing. A network that never learned has not collapsed, nor has one that slowly overfits.

    Args:
        history: a row an epoch with `loss`, and `val_loss` and `val_accuracy` where there is validation.
    """
    last, before = history[-1], history[:-1]
    guessing = math.log(num_classes)
    if "val_loss" not in last:
        best = min((row["loss"] for row in before), default=math.inf)
        rose = best < LEARNED_LOSS_FRACTION * guessing and last["loss"] > guessing
        return f"the training loss rose from {best:.2f} to {last['loss']:.2f}, that of guessing is {guessing:.2f}" if rose else ""
    best = max((row["val_accuracy"] for row in before), default=0.0)
    now, chance = last["val_accuracy"], 1 / num_classes
    if best - now > max(MIN_ACCURACY_DROP, (best - chance) / 2):
        return f"validation accuracy fell from {100 * best:.1f} to {100 * now:.1f} %"
    previous = before[-1]["val_loss"] if before else 0.0
    jumped = last["val_loss"] > max(WORSE_THAN_GUESSING * guessing, LOSS_JUMP_FACTOR * previous)
    if jumped and last["loss"] < LEARNED_LOSS_FRACTION * guessing:
        return f"the validation loss is {last['val_loss']:.2f}, that of guessing {guessing:.2f}, though training's is {last['loss']:.2f}"
    return ""


def largest_relative_change(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The weight that moved most for its size: its `path` and `share`, the norm of its change over its norm; empty of no weights."""
    shares = {path: float(np.linalg.norm(after[path] - value) / (np.linalg.norm(value) or math.inf)) for path, value in before.items()}
    path = max(shares, key=shares.__getitem__, default="")
    return {"path": path, "share": shares[path]} if path else {}


def collapse_warning(what: str, epoch: int, config: TrainConfig, moved: Mapping[str, Any]) -> str:
    """The one message of a collapse: the symptom, the likely cause and the cures.

    Args:
        moved: what `largest_change` says of the phase's first epoch, and `updates`, how many that was; or empty.
    """
    cause = ""
    if moved:
        cause = f" {config.optimizer} at rate {config.learning_rate:g} moved {moved['path']} by {100 * moved['share']:.0f} % of its norm "
        cause += f"in the first {moved['updates']} updates."
    return f"Training collapsed in epoch {epoch}: {what}.{cause} {ADVICE}"
