"""Detects that fine-tuning has destroyed what the model had learned, and reports what the run shows of the cause.

An update of Adam changes every weight by about the learning rate, whatever its gradient. BatchNorm on statistics of the batch
normalizes the activations that such changes shift; on fixed statistics it does not. In `experiments/collapse.py`, AdamW lost within a
few updates what it had learned when the statistics were fixed, and SGD did not.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from tl_keras.backbones import HEAD
from tl_keras.config import TrainConfig
from tl_keras.strategies import Phase, freezing
from tl_keras.training.optimizers import has_weight_decay

LEARNED_LOSS_FRACTION = 0.8  # a training loss below this fraction of log(classes) shows that the model learns
GUESSING_LOSS_FACTOR = 1.2  # a validation loss above this multiple of log(classes) is worse than guessing
LOSS_JUMP_FACTOR = 2.0  # growth of the validation loss in one epoch; overfitting takes several epochs for it
MIN_ACCURACY_DROP = 0.2  # a smaller drop is noise on a small validation split
NO_COLLAPSE: Mapping[str, Any] = MappingProxyType({"largest_change": {}, "fixed_statistics": False, "warning": ""})

FIXED_STATISTICS = (
    "BatchNorm of trained stages runs on fixed statistics, which the activations outgrow as the weights change: compare with "
    "`batch_norm=train` and `eval_mode_after=-1`."
)
ADVICE = "Try a tenth of `learning_rate`."


class CollapseDetector(keras.callbacks.Callback):
    """Warns once per phase when an epoch is a collapse, see `detect_collapse`.

    The trainer begins and ends each phase and stores `state` in its checkpoint. The warning is printed unless `verbose` is 0.

    Attributes:
        state: JSON-able state of the phase: `largest_change` of its first epoch and `fixed_statistics`, see `collapse_warning`, and
            `warning`, empty if there is none.
    """

    def __init__(self, config: TrainConfig):
        super().__init__()
        self._config = config
        self._history: list[Mapping[str, float]] = []
        self._kernels: Sequence[keras.Variable] = ()  # until the first epoch of the phase is over
        self._initial_values: dict[str, np.ndarray] = {}
        self.state = dict(NO_COLLAPSE)

    def restore(self, state: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
        """Continue an interrupted run that had saved `state` and trained the epochs of `history`."""
        self.state, self._history = dict(state), list(history)

    def begin_phase(self, stages: freezing.Stages, phase: Phase) -> None:
        """Start `phase`, of whose kernels all but those of the new head are pre-trained. Skip the call once its first epoch is over."""
        self.state["fixed_statistics"] = has_fixed_statistics(stages, phase)
        self._kernels = kernels_before_head(stages, phase)
        self._initial_values = _values(self._kernels)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._history.append(logs or {})
        if self._kernels:
            updates = math.ceil(self.params["steps"] / self._config.accumulate_steps)
            self.state["largest_change"] = largest_relative_change(self._initial_values, _values(self._kernels)) | {"updates": updates}
            self._kernels, self._initial_values = (), {}
        symptom = "" if self.state["warning"] else detect_collapse(self._history, self.model.output_shape[-1])
        if symptom:
            change, is_fixed = self.state["largest_change"], self.state["fixed_statistics"]
            self.state["warning"] = collapse_warning(symptom, epoch + 1, self._config, change, fixed_statistics=is_fixed)
            if self.params["verbose"]:
                print(self.state["warning"], flush=True)

    def end_phase(self) -> str:
        """Return the warning of the phase, or an empty string, and reset `state`."""
        warning = self.state["warning"]
        self.state = dict(NO_COLLAPSE)
        return warning


def kernels_before_head(stages: freezing.Stages, phase: Phase) -> list[keras.Variable]:
    """Return the kernels that `phase` trains, without those of the head. Call outside `apply_phase`."""
    head = {variable.path for layer in stages[HEAD] for variable in layer.weights}
    return [v for v in freezing.trained_variables(stages, phase) if has_weight_decay(v) and v.path not in head]


def has_fixed_statistics(stages: freezing.Stages, phase: Phase) -> bool:
    """Return True if a stage that `phase` trains has a BatchNorm on fixed running statistics. Call outside `apply_phase`."""
    trained = [stage for stage in stages if freezing.trained_variables({stage: stages[stage]}, phase)]
    norms = [(layer, stage) for stage in trained for layer in stages[stage] if isinstance(layer, keras.layers.BatchNormalization)]
    return any(not freezing.runs_in_training_mode(layer, stage, phase) for layer, stage in norms)


def _values(variables: Sequence[keras.Variable]) -> dict[str, np.ndarray]:
    return {variable.path: variable.numpy() for variable in variables}


def detect_collapse(history: Sequence[Mapping[str, Any]], num_classes: int) -> str:
    """Return a description of a collapse in the last epoch of `history`, or an empty string.

    An example is "validation accuracy fell from 91.0 to 40.2 %". A collapse is a loss of what was learned. With validation, either
    the accuracy loses more than half of its best lead over guessing, or the loss jumps above that of guessing although the training
    loss is low. Without validation, the training loss returns to that of guessing. A model that never learned has not collapsed,
    and neither has one that slowly overfits.

    Args:
        history: one row per epoch with `loss`, and with `val_loss` and `val_accuracy` if there is validation.
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
    jumped = last["val_loss"] > max(GUESSING_LOSS_FACTOR * guessing, LOSS_JUMP_FACTOR * previous)
    if jumped and last["loss"] < LEARNED_LOSS_FRACTION * guessing:
        return f"the validation loss is {last['val_loss']:.2f}, that of guessing {guessing:.2f}, though training's is {last['loss']:.2f}"
    return ""


def largest_relative_change(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the weight that changed most, relative to its value `before`.

    Returns:
        `path` of the weight and `fraction`, the norm of its change over its norm before. Empty if there are no weights.
    """
    fractions = {path: float(np.linalg.norm(after[path] - value) / (np.linalg.norm(value) or math.inf)) for path, value in before.items()}
    path = max(fractions, key=fractions.__getitem__, default="")
    return {"path": path, "fraction": fractions[path]} if path else {}


def collapse_warning(
    symptom: str, epoch: int, config: TrainConfig, largest_change: Mapping[str, Any], *, fixed_statistics: bool = False
) -> str:
    """Return the warning: the symptom, what the run shows of its cause, and what to try.

    Args:
        symptom: the result of `detect_collapse`.
        epoch: counted from 1.
        largest_change: the result of `largest_relative_change` after the first epoch of the phase, and the number of `updates` in
            that epoch; or empty.
        fixed_statistics: True if BatchNorm of trained stages runs on its running statistics.
    """
    cause = ""
    if largest_change:
        fraction = f"{100 * largest_change['fraction']:.0f} %"
        cause = f" {config.optimizer} at rate {config.learning_rate:g} moved {largest_change['path']} by {fraction} of its norm "
        cause += f"in the first {largest_change['updates']} updates of the phase."
    cause += f" {FIXED_STATISTICS}" if fixed_statistics else ""
    return f"Training collapsed in epoch {epoch}: {symptom}.{cause} {ADVICE}"
