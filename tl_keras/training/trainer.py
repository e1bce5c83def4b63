"""Trains a classifier through the phases of a strategy: one loop for one device and for several.

The loop calls Keras callbacks, resumes an interrupted run exactly, and verifies after every phase that only its weights changed.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_keras.config import TrainConfig
from tl_keras.errors import DamagedError
from tl_keras.strategies import Phase, freezing
from tl_keras.training import checkpoint
from tl_keras.training.activations import compiled_activations
from tl_keras.training.batch_norm import fused_batch_norm
from tl_keras.training.collapse import CollapseDetector
from tl_keras.training.ema import ExponentialMovingAverage
from tl_keras.training.epoch_meter import EpochMeter
from tl_keras.training.evaluation import compute_metrics, make_predict, predict_logits
from tl_keras.training.losses import Loss
from tl_keras.training.optimizers import build_optimizer
from tl_keras.training.runtime import Runtime
from tl_keras.training.schedules import Schedule
from tl_keras.training.time_limit import TimeLimit
from tl_keras.training.train_step import Batch, Forward, TrainStep, enumerate_batches, make_train_step
from tl_keras.utils.text import join_names


@dataclass(frozen=True)
class Batches:
    """The data that a model is trained and validated on.

    Attributes:
        training: epoch, from 0 -> batches (images float32 (b, h, w, 3), targets float32 (b, classes)), equal for equal epochs.
        sizes: numbers of examples in the batches of an epoch, see `data.sampling.batch_sizes`.
        validation: batches (images, labels int32 (b,), weights float32 (b,)), or None.
    """

    training: Callable[[int], tf.data.Dataset]
    sizes: Sequence[int]
    validation: tf.data.Dataset | None


@dataclass(frozen=True)
class SplitInputs:
    """The model and the batches of a phase whose frozen prefix may be split off.

    Attributes:
        model: the suffix, with the weights of the whole model; None if the whole model is trained.
        batches: cached features instead of images, if there is a suffix.
        record: entry `cache` of the phase in `result.json`.
    """

    model: Forward | None
    batches: Batches
    record: dict[str, Any] = field(default_factory=dict)


@dataclass
class Progress:
    """Progress of a run: the state that a resumed run needs besides the values of variables.

    Attributes:
        epoch: number of epochs done.
        history: one row per epoch with `epoch`, `phase`, `loss`, `accuracy`, the throughput, `val_loss` and `val_accuracy` if there
            is validation, `learning_rate` and `seconds`.
        phases: one record per phase that is done and verified.
        before_phase: hashes of the weights at the start of the current phase.
        schedule: state of the learning-rate schedule.
        lr_factor: factor of the schedule that the learning rate was last set to.
        best: epoch, accuracy and loss of the best epoch on validation; empty without validation.
        stopped: True if a callback or the time limit has ended the training.
        collapse: state of the `CollapseDetector`.
        seconds: time of the training so far, features and validation included.
        time_is_up: True if the time limit has ended the training.
    """

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    phases: list[dict[str, Any]] = field(default_factory=list)
    before_phase: dict[str, str] = field(default_factory=dict)
    schedule: dict[str, float] = field(default_factory=dict)
    lr_factor: float = math.nan
    best: dict[str, float] = field(default_factory=dict)
    stopped: bool = False
    collapse: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    time_is_up: bool = False


SplitPhase = Callable[[Phase, int, Batches], SplitInputs]


class Trainer:
    """Trains a classifier through the phases of a strategy.

    Args:
        model: images (b, h, w, 3) -> float32 logits (b, classes); built under `runtime.scope()`.
        stages: stage -> layers, covering every weight of `model`.
        phases: the phases in order. The optimizer is built on the variables of all of them.
        loss: (targets, logits) -> loss of each example, see `losses.build_loss`.
        forward: (images, training) -> logits, if images are resized on the device first; default: `model`.
        unbiased_variance: True if BatchNorm keeps its running variance as PyTorch does, see `fused_batch_norm`.
    """

    def __init__(
        self,
        model: keras.Model,
        stages: freezing.Stages,
        phases: Sequence[Phase],
        config: TrainConfig,
        runtime: Runtime,
        *,
        loss: Loss,
        forward: Forward | None = None,
        unbiased_variance: bool = False,
    ):
        self.model, self.stages, self.phases, self.config, self.runtime = model, stages, phases, config, runtime
        self.progress = Progress()
        self._loss, self._forward, self._unbiased_variance = loss, forward or model, unbiased_variance
        self.predict = make_predict(self._forward, runtime)
        self._trained = list({v.path: v for phase in phases for v in freezing.trained_variables(stages, phase)}.values())
        with runtime.scope():
            self.optimizer = build_optimizer(config)
            # Float16 underflows without a scaled loss; bfloat16 has the range of float32.
            self._scaled = keras.optimizers.LossScaleOptimizer(self.optimizer) if runtime.precision == "mixed_float16" else self.optimizer
            self._scaled.build(self._trained)
        updated = {path for phase in phases for path in freezing.updated_paths(stages, phase)}
        self._frozen_paths = freezing.weight_paths(stages) - updated
        self._mutable_variables = [v for v in model.variables if v.path not in self._frozen_paths]  # with the seeds of dropout
        averaged = [v for v in model.variables if v.path in updated] if config.ema else []
        self._average = ExponentialMovingAverage(averaged, config.ema, runtime)
        self._best_values: list[np.ndarray] = []  # of the mutable variables in the best epoch, if that is selected

    def fit(
        self,
        batches: Batches,
        checkpoint_dir: Path,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        *,
        split_phase: SplitPhase | None = None,
        on_epoch: Callable[[Progress], None] = lambda progress: None,
        verbose: int = 0,
    ) -> Progress:
        """Train the remaining epochs and set the model to the selected weights.

        Args:
            checkpoint_dir: directory of `latest.npz`. A checkpoint found there is resumed.
            callbacks: Keras callbacks. Their logs of a batch lag by up to `READ_EVERY_SECONDS`, unless one has a true `exact_logs`.
            split_phase: (phase, first epoch, batches) -> model and batches to train; None: the whole model on images.
            on_epoch: called with the progress after each epoch, before its checkpoint.
            verbose: 0 silent, 1 a progress bar, 2 a line per epoch.

        Raises:
            TrainingError: A loss is not finite, or the verification of a phase failed.
            DamagedError: The checkpoint is damaged, or belongs to other frozen weights or another version.
        """
        config = self.config
        self._checkpoint_path, self._save_policy = checkpoint_dir / "latest.npz", checkpoint.SavePolicy()
        self._split_phase, self._on_epoch = split_phase, on_epoch
        self._exact_logs = any(getattr(callback, "exact_logs", False) for callback in callbacks)
        self._steps_per_epoch = len(batches.sizes)
        updates = math.ceil(self._steps_per_epoch / config.accumulate_steps)
        self._schedule = Schedule(config, updates)
        self._collapse = CollapseDetector(config)
        self._resume()
        self._time_limit = TimeLimit(config.time_limit, self.progress.seconds)
        if verbose and self.progress.epoch:
            print(f"resuming after epoch {self.progress.epoch}", flush=True)
        callback_list = self._make_callback_list(callbacks, verbose)
        self.model.optimizer, self.model.stop_training = self.optimizer, False  # Keras callbacks use these attributes
        try:
            callback_list.on_train_begin()
            self._run_phases(batches, callback_list)
            callback_list.on_train_end()
        finally:
            self.model.optimizer = None
        self._load_selected_weights()
        return self.progress

    def _make_callback_list(self, callbacks: Sequence[keras.callbacks.Callback], verbose: int) -> keras.callbacks.CallbackList:
        callback_list = keras.callbacks.CallbackList(list(callbacks), add_progbar=verbose > 0)
        callback_list.callbacks += [self._time_limit, self._collapse]  # last, so that a warning follows the progress bar
        callback_list.set_model(self.model)
        callback_list.set_params({"verbose": verbose, "epochs": self.config.epochs, "steps": self._steps_per_epoch})
        return callback_list

    def _resume(self) -> None:
        if not self._checkpoint_path.exists():
            return
        self._best_values, state = checkpoint.restore(self._checkpoint_path, self._checkpointed_variables(), self._mutable_variables)
        try:
            self.progress = Progress(**state)
        except TypeError as error:
            raise DamagedError(
                f"Checkpoint {self._checkpoint_path} was written by another version of tl_keras. "
                "Delete its directory to train this run again."
            ) from error
        self._schedule.state |= self.progress.schedule
        self._collapse.restore(self.progress.collapse, self.progress.history)
        self._require_frozen_weights()

    def _require_frozen_weights(self) -> None:
        """Raise DamagedError unless the frozen weights, which a checkpoint omits, are those of the interrupted run."""
        current, stored = freezing.weight_hashes(self.stages), self.progress.before_phase
        if changed := sorted(path for path in self._frozen_paths if current[path] != stored.get(path)):
            raise DamagedError(
                f"{self._checkpoint_path} was written with other frozen weights: {len(changed)} weights ({join_names(changed)}) differ. "
                "Expected those that the run began with; was the file of `weights` replaced? Put it back, or delete the run's directory "
                "to train it again."
            )

    def _checkpointed_variables(self) -> list[keras.Variable]:
        return [*self._mutable_variables, *self._scaled.variables, *self._average.variables]

    def _load_selected_weights(self) -> None:
        """Set the model to the weights of the selected epoch, or to their averages."""
        if self.selected_epoch() != self.progress.epoch:
            for variable, value in zip(self._mutable_variables, self._best_values, strict=True):
                variable.assign(value)
        else:
            self._average.copy_to_model()

    def selected_epoch(self) -> int:
        """Return the epoch, from 1, whose weights are tested."""
        best = self.progress.best if self.config.selection == "best" else {}
        return int(best.get("epoch", self.progress.epoch))

    def _run_phases(self, batches: Batches, callbacks: keras.callbacks.CallbackList) -> None:
        first = 0
        for index, phase in enumerate(self.phases):
            epochs = range(first, first + phase.epochs)
            if index >= len(self.progress.phases) and not (self.progress.stopped and self.progress.epoch <= first):
                self._run_phase(phase, epochs, batches, callbacks)
            first = epochs.stop

    def _run_phase(self, phase: Phase, epochs: range, batches: Batches, callbacks: keras.callbacks.CallbackList) -> None:
        self.progress.before_phase = self.progress.before_phase or freezing.weight_hashes(self.stages)
        if self.progress.epoch == epochs.start:
            self._collapse.begin_phase(self.stages, phase)
        started, inputs = time.perf_counter(), SplitInputs(None, batches)
        if self._split_phase and self.progress.epoch < epochs.stop and not self.progress.stopped:
            inputs = self._split_phase(phase, max(epochs.start, self.progress.epoch), batches)
        split_seconds = time.perf_counter() - started
        predict = make_predict(inputs.model, self.runtime) if inputs.model else self.predict
        with self.phase_step(phase, inputs.model) as step:
            for epoch in epochs:
                if epoch >= self.progress.epoch and not self.progress.stopped:
                    if phase.reset_optimizer == "epoch" or (phase.reset_optimizer == "phase" and epoch == epochs.start):
                        self.optimizer.reset_slots()
                    logs = self._run_epoch(epoch, step, predict, inputs.batches, callbacks)
                    self._end_epoch({"epoch": epoch + 1, "phase": phase.name, **logs})
        self.progress.phases.append(self._phase_record(phase, epochs, inputs.record, split_seconds))
        self.progress.before_phase, self.progress.collapse = {}, self._collapse.state

    def _phase_record(self, phase: Phase, epochs: range, cache: dict[str, Any], split_seconds: float) -> dict[str, Any]:
        """Return the entry of a finished phase in `result.json`, after verifying which weights changed."""
        rows = self.progress.history[epochs.start : epochs.stop]
        return {
            "name": phase.name,
            "epochs": len(rows),
            "trainable_parameters": sum(math.prod(variable.shape) for variable in freezing.trained_variables(self.stages, phase)),
            "trainable_stages": list(phase.trainable),
            "frozen_mode": phase.frozen_mode,
            "batch_norm": phase.batch_norm,
            "eval_mode": phase.eval_mode,
            "seconds": split_seconds + sum(row["seconds"] for row in rows),
            "cache": dict(cache),
            "audit": freezing.verify_frozen(self.stages, phase, self.progress.before_phase, self.config.learning_rate),
            "collapse": self._collapse.end_phase(),
        }

    @contextmanager
    def phase_step(self, phase: Phase, model: Forward | None = None) -> Iterator[TrainStep]:
        """Yield the compiled step of `phase`, for `take_step`. In the block, layers have the modes and learning rates of `phase`.

        Args:
            model: the suffix to train; None: the whole model.
        """
        variables = freezing.trained_variables(self.stages, phase)
        multipliers = freezing.lr_multipliers(self.stages, phase)
        self.optimizer.lr_multipliers = [multipliers.get(variable.path, 0.0) for variable in self._trained]
        use_accumulation = self.config.accumulate_steps > 1
        forward = self._with_fused_kernels(model or self._forward, phase)
        with freezing.apply_phase(self.stages, phase):
            yield make_train_step(forward, self._scaled, variables, self._loss, self.runtime, use_accumulation=use_accumulation)

    def _with_fused_kernels(self, forward: Forward, phase: Phase) -> Forward:
        """Return `forward` for training, whose layers use fused kernels while it is traced, and only then. Call outside `apply_phase`.

        The frozen prefix keeps Keras's arithmetic, so that a run is bit-identical with and without cached features.
        """
        prefix = freezing.frozen_prefix(self.stages, phase)
        layers = [layer for stage, members in self.stages.items() if stage not in prefix for layer in members]
        compiled_layers = layers if self.runtime.compiles_parts else []

        def fused(images: Any, training: bool) -> Any:
            with fused_batch_norm(layers, unbiased_variance=self._unbiased_variance), compiled_activations(compiled_layers):
                return forward(images, training=training)

        return fused

    def take_step(self, step: TrainStep, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the summed loss and the number of correct predictions of a batch, on the device."""
        images, targets = batch.data
        return step(images, targets, tf.constant(batch.update_size, tf.float32), batch.is_last_batch)

    def _run_epoch(
        self, epoch: int, step: TrainStep, predict: Callable[[Any], Any], batches: Batches, callbacks: keras.callbacks.CallbackList
    ) -> dict[str, Any]:
        """Train and validate one epoch, from 0. Return its row of the history without `epoch` and `phase`."""
        callbacks.on_epoch_begin(epoch)
        started = time.perf_counter()
        meter = EpochMeter(epoch + 1, epoch * self._steps_per_epoch, reads_every_step=self._exact_logs)
        for batch in meter.timed(self.batches(batches, epoch)):
            self._set_learning_rate(batch.update)
            callbacks.on_train_batch_begin(batch.index)
            meter.add(batch.num_examples, *self.take_step(step, batch))
            if batch.is_last_batch:
                self._average.update(batch.update)
            callbacks.on_train_batch_end(batch.index, meter.logs())
        logs = meter.finish()
        seconds = time.perf_counter() - started
        logs |= self._validate(predict, batches.validation) | {"learning_rate": float(self.optimizer.learning_rate.numpy())}
        callbacks.on_epoch_end(epoch, logs)
        return logs | {"seconds": seconds}

    def batches(self, batches: Batches, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, distributed to the replicas, with their positions in the run."""
        distributed = self.runtime.strategy.experimental_distribute_dataset(batches.training(epoch))
        return enumerate_batches(distributed, epoch, batches.sizes, self.config.accumulate_steps)

    def _set_learning_rate(self, update: int) -> None:
        """Set the learning rate if the schedule changes it. Otherwise keep it, as a callback may have set it."""
        factor = self._schedule.factor(update)
        if factor != self.progress.lr_factor:
            self.progress.lr_factor = factor
            self.optimizer.learning_rate = self.config.learning_rate * factor

    def _validate(self, predict: Callable[[Any], Any], validation: tf.data.Dataset | None) -> dict[str, float]:
        if validation is None:
            return {}
        with self._average.averaged_weights():
            scores = compute_metrics(*predict_logits(predict, self.runtime, validation))
        return {"val_loss": scores["loss"], "val_accuracy": scores["accuracy"]}

    def _end_epoch(self, row: dict[str, Any]) -> None:
        """Update the progress with a row of the history, keep the best weights, and write a checkpoint if one is due."""
        progress = self.progress
        progress.epoch, progress.stopped = row["epoch"], self.model.stop_training
        progress.seconds, progress.time_is_up = self._time_limit.seconds(), self._time_limit.is_up
        progress.history.append(row)
        self._schedule.on_validation_loss(row.get("val_loss", row["loss"]))
        progress.schedule, progress.collapse = self._schedule.state, self._collapse.state
        best = progress.best
        if "val_loss" in row and (row["val_accuracy"], -row["val_loss"]) > (best.get("accuracy", -1.0), -best.get("loss", math.inf)):
            progress.best = {"epoch": row["epoch"], "accuracy": row["val_accuracy"], "loss": row["val_loss"]}
            if self.config.selection == "best":
                with self._average.averaged_weights():
                    self._best_values = [variable.numpy() for variable in self._mutable_variables]
        self._on_epoch(progress)
        if self._save_policy.is_due:
            with self._save_policy.writing():
                checkpoint.save(self._checkpoint_path, self._checkpointed_variables(), self._best_values, asdict(progress))
