"""The training loop: one loop for one device and for several, with Keras callbacks, exact resume and an audit of every phase."""

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

from tl_keras.backbones import HEAD
from tl_keras.config import TrainConfig
from tl_keras.errors import DamagedError
from tl_keras.strategies import Phase, freezing
from tl_keras.training import checkpoint, collapse
from tl_keras.training.ema import ExponentialMovingAverage
from tl_keras.training.epoch_meter import EpochMeter
from tl_keras.training.evaluation import compute_metrics, make_predict, predict_logits
from tl_keras.training.losses import Loss
from tl_keras.training.optimizers import build_optimizer, has_weight_decay
from tl_keras.training.runtime import Runtime
from tl_keras.training.schedules import Schedule
from tl_keras.training.train_step import Batch, enumerate_batches, make_train_step
from tl_keras.utils.text import join_names


@dataclass(frozen=True)
class Batches:
    """What the trainer reads.

    Attributes:
        training: epoch, from 0 -> batches (images float32 (b, h, w, 3), targets float32 (b, classes)); the same for the same epoch.
        num_train: examples in an epoch.
        validation: batches (images, labels int32 (b,), weights float32 (b,)), or None.
    """

    training: Callable[[int], tf.data.Dataset]
    num_train: int
    validation: tf.data.Dataset | None


@dataclass(frozen=True)
class SplitInputs:
    """What a phase trains: a network with the model's own weights, and what it reads.

    Attributes:
        network: (what `batches` hold, training=...) -> logits: the whole, or what is left of the model behind a cut; None: the whole.
        batches: as the model's, of the network's inputs instead of images.
        cache: what the phase's record says of the cut.
    """

    model: Callable[..., Any] | None
    batches: Batches
    record: dict[str, Any] = field(default_factory=dict)


@dataclass
class Progress:
    """How far a run has come: all that a resumed one needs besides the values of variables.

    Attributes:
        epoch: epochs done.
        history: one row an epoch; see `Trainer._run_epoch`.
        phases: one record for each phase that is done and audited.
        before_phase: fingerprints of the weights when the current phase began.
        schedule: state of the learning-rate schedule.
        lr_factor: the factor of the schedule that the learning rate was last set to.
        best: epoch, accuracy and loss of the best epoch on validation; empty without validation.
        stopped: whether a callback ended the training.
        moved: which weight the current phase's first epoch moved most; see `collapse.collapse_warning`.
        collapse: what was said of a collapse in the current phase, or empty.
    """

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    phases: list[dict[str, Any]] = field(default_factory=list)
    before_phase: dict[str, str] = field(default_factory=dict)
    schedule: dict[str, float] = field(default_factory=dict)
    lr_factor: float = math.nan
    best: dict[str, float] = field(default_factory=dict)
    stopped: bool = False
    moved: dict[str, Any] = field(default_factory=dict)
    collapse: str = ""


class Trainer:
    """Trains a classifier through the phases of a strategy.

    Args:
        model: maps images (b, h, w, 3) to float32 logits (b, classes); built under `runtime.scope()`.
        stages: stage -> layers, covering every weight of `model`.
        phases: the plan; the optimizer is built on every variable that any of them trains.
        loss: the loss of each example from targets and logits, as `losses.build_loss` makes it.
        directory: where `latest.npz` lies; a checkpoint found there is resumed.
        on_epoch: called with the progress after each epoch, before its checkpoint.
        split_phase: (phase, its first epoch to run, from 0, batches of images) -> what is trained; None: the whole model.
        network: (images of the batches, training=...) -> logits, where it is not `model` itself but what resizes images before it.
    """

    def __init__(
        self,
        model: keras.Model,
        stages: freezing.Stages,
        phases: Sequence[Phase],
        config: TrainConfig,
        runtime: Runtime,
        directory: Path,
        *,
        loss: Loss,
        on_epoch: Callable[[Progress], None] = lambda progress: None,
        split_phase: Callable[[Phase, int, Batches], SplitInputs] | None = None,
        forward: Callable[..., Any] | None = None,
    ):
        self.model, self.stages, self.phases, self.config, self.runtime = model, stages, phases, config, runtime
        self.progress = Progress()
        self._forward = forward or model
        self.predict = make_predict(self._forward, runtime)
        self._checkpoint_path, self._save_policy = directory / "latest.npz", checkpoint.SavePolicy()
        self._best: list[np.ndarray] = []  # of what changes, in the best epoch, if that is to be tested
        self._loss, self._on_epoch, self._split_phase = loss, on_epoch, split_phase
        for phase in phases:
            freezing.require_weights(stages, phase)
        self._trained = list({v.path: v for phase in phases for v in freezing.trained_variables(stages, phase)}.values())
        with runtime.scope():
            self.optimizer = build_optimizer(config)
            # Float16 underflows without a scaled loss; bfloat16 has the range of float32.
            self._updater = keras.optimizers.LossScaleOptimizer(self.optimizer) if runtime.precision == "mixed_float16" else self.optimizer
            self._updater.build(self._trained)
        moving = {path for phase in phases for path in freezing.updated_paths(stages, phase)}
        self._frozen_paths = freezing.weight_paths(stages) - moving
        self._mutable_variables = [
            variable for variable in model.variables if variable.path not in self._frozen_paths
        ]  # also seeds of dropout
        self._average = ExponentialMovingAverage(
            [v for v in model.variables if v.path in moving] if config.ema else [], config.ema, runtime
        )

    def fit(self, batches: Batches, callbacks: Sequence[keras.callbacks.Callback] = (), *, verbose: int = 0) -> Progress:
        """Train what is left to train, and leave the model with the selected weights.

        Args:
            verbose: 0 silent, 1 a progress bar, 2 a line each epoch.

        Raises:
            TrainingError: a loss was not finite, or the audit of a phase failed.
            DamagedError: the checkpoint to resume is damaged, or belongs to other frozen weights.
        """
        self._steps_per_epoch = math.ceil(batches.num_train / self.config.batch_size)
        self._updates_per_epoch = math.ceil(self._steps_per_epoch / self.config.accumulate_steps)
        self._schedule = Schedule(
            self.config.schedule,
            steps_per_epoch=self._updates_per_epoch,
            epochs=self.config.epochs,
            warmup_epochs=self.config.warmup_epochs,
        )
        self._resume()
        self._verbose = verbose
        if verbose and self.progress.epoch:
            print(f"resuming after epoch {self.progress.epoch}", flush=True)
        listeners = keras.callbacks.CallbackList(
            list(callbacks),
            add_progbar=verbose > 0,
            model=self.model,
            verbose=verbose,
            epochs=self.config.epochs,
            steps=self._steps_per_epoch,
        )
        self.model.optimizer, self.model.stop_training = self.optimizer, False  # where Keras callbacks look for them
        try:
            listeners.on_train_begin()
            self._run_phases(batches, listeners)
            listeners.on_train_end()
        finally:
            self.model.optimizer = None
        self._select()
        return self.progress

    def _resume(self) -> None:
        if self._checkpoint_path.exists():
            self._best, state = checkpoint.restore(self._checkpoint_path, self._variables(), self._mutable_variables)
            self.progress = Progress(**state)
            self._schedule.state |= self.progress.schedule
            self._require_constant()

    def _require_constant(self) -> None:
        """A checkpoint leaves out the weights that no phase changes: they must be those that the interrupted run had."""
        now, before = freezing.weight_hashes(self.stages), self.progress.before_phase
        if changed := sorted(path for path in self._frozen_paths if now[path] != before.get(path)):
            raise DamagedError(
                f"{self._checkpoint_path} was written with other frozen weights: {len(changed)} weights ({join_names(changed)}) differ. "
                "Expected those that the run "
                "began with; was the file of `weights` replaced? Put it back, or delete the run's directory to train it anew."
            )

    def _variables(self) -> list[keras.Variable]:
        """All that training changes."""
        return [*self._mutable_variables, *self._updater.variables, *self._average.variables]

    def _select(self) -> None:
        """Leave the model with what is tested: the weights of the selected epoch, or their averages."""
        if self.selected_epoch() != self.progress.epoch:
            for variable, value in zip(self._mutable_variables, self._best, strict=True):
                variable.assign(value)
        else:
            self._average.copy_to_model()

    def selected_epoch(self) -> int:
        """The epoch, from 1, whose weights are tested."""
        best = self.progress.best if self.config.selection == "best" else {}
        return int(best.get("epoch", self.progress.epoch))

    def _run_phases(self, batches: Batches, listeners: keras.callbacks.CallbackList) -> None:
        first = 0
        for index, phase in enumerate(self.phases):
            epochs = range(first, first + phase.epochs)
            if index >= len(self.progress.phases) and not (self.progress.stopped and self.progress.epoch <= first):
                self._run_phase(phase, epochs, batches, listeners)
            first = epochs.stop

    def _run_phase(self, phase: Phase, epochs: range, batches: Batches, listeners: keras.callbacks.CallbackList) -> None:
        variables = freezing.trained_variables(self.stages, phase)
        self.progress.before_phase = self.progress.before_phase or freezing.weight_hashes(self.stages)
        self._start = self._kernels(phase) if self.progress.epoch == epochs.start else {}
        started, inputs = time.perf_counter(), SplitInputs(None, batches)
        if self._split_phase and self.progress.epoch < epochs.stop and not self.progress.stopped:
            inputs = self._split_phase(phase, max(epochs.start, self.progress.epoch), batches)
        narrowing = time.perf_counter() - started
        predict = make_predict(inputs.model, self.runtime) if inputs.model else self.predict
        with self.phase_step(phase, inputs.model) as step:
            for epoch in epochs:
                if epoch >= self.progress.epoch and not self.progress.stopped:
                    self._run_epoch(epoch, phase.name, step, predict, inputs.batches, listeners)
        rows = self.progress.history[epochs.start : epochs.stop]
        record = {
            "name": phase.name,
            "epochs": len(rows),
            "trainable_parameters": sum(math.prod(variable.shape) for variable in variables),
            "trainable_stages": list(phase.trainable),
            "frozen_mode": phase.frozen_mode,
            "seconds": narrowing + sum(row["seconds"] for row in rows),
            "cache": dict(inputs.record),
            "audit": freezing.verify_frozen(self.stages, phase, self.progress.before_phase, self.config.learning_rate),
            "collapse": self.progress.collapse,
        }
        self.progress.phases.append(record)
        self.progress.before_phase, self.progress.moved, self.progress.collapse = {}, {}, ""

    def _kernels(self, phase: Phase) -> dict[str, np.ndarray]:
        """Path -> value of the kernels that `phase` trains, without those of the head, which is new."""
        head = {variable.path for layer in self.stages[HEAD] for variable in layer.weights}
        variables = freezing.trained_variables(self.stages, phase)
        return {variable.path: variable.numpy() for variable in variables if has_weight_decay(variable) and variable.path not in head}

    @contextmanager
    def phase_step(self, phase: Phase, network: Callable[..., Any] | None = None) -> Iterator[Callable[..., Any]]:
        """The compiled step of `phase`, for `take_step`: of the whole, or of a `network` that is inputs of it.

        In this block layers have the modes, and variables the rates, that the phase asks for.
        """
        variables = freezing.trained_variables(self.stages, phase)
        scales = freezing.lr_multipliers(self.stages, phase)
        self.optimizer.lr_multipliers = [scales.get(variable.path, 0.0) for variable in self._trained]
        with freezing.apply_phase(self.stages, phase):
            yield self._make_step(network or self._forward, variables)

    def take_step(self, step: Callable[..., Any], batch: Batch) -> tuple[Any, Any]:
        """Summed loss and number right of a batch, still on the device; the weights move where it completes an update."""
        return step(*batch.data, tf.constant(batch.update_size, tf.float32), batch.is_last_batch)

    def _make_step(self, network: Callable[..., Any], variables: Sequence[keras.Variable]) -> Callable[..., Any]:
        use_accumulation = self.config.accumulate_steps > 1
        return make_train_step(network, self._updater, variables, self._loss, self.runtime, use_accumulation=use_accumulation)

    def _run_epoch(
        self,
        epoch: int,
        phase_name: str,
        step: Callable[..., Any],
        predict: Callable[[Any], Any],
        batches: Batches,
        listeners: keras.callbacks.CallbackList,
    ) -> None:
        listeners.on_epoch_begin(epoch)
        started = time.perf_counter()
        meter = EpochMeter(epoch + 1, epoch * self._steps_per_epoch)
        for batch in meter.timed(self.batches(batches, epoch)):
            self._set_rate(batch.update)
            listeners.on_train_batch_begin(batch.index)
            meter.add(batch.num_examples, *self.take_step(step, batch))
            if batch.is_last_batch:
                self._average.update(batch.update)
            listeners.on_train_batch_end(batch.index, meter.logs())
        logs = meter.finish()
        seconds = time.perf_counter() - started
        logs |= self._validate(predict, batches.validation) | {"learning_rate": float(self.optimizer.learning_rate.numpy())}
        listeners.on_epoch_end(epoch, logs)
        self._end_epoch({"epoch": epoch + 1, "phase": phase_name, **logs, "seconds": seconds})

    def batches(self, batches: Batches, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch on the replicas, with their places in the run."""
        contents = self.runtime.strategy.experimental_distribute_dataset(batches.training(epoch))
        return enumerate_batches(contents, epoch, batches.num_train, self.config)

    def _set_rate(self, update: int) -> None:
        """Set the rate where the schedule changes it; where it does not, one that a callback has set stays."""
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
        progress = self.progress
        progress.epoch, progress.stopped = row["epoch"], self.model.stop_training
        progress.history.append(row)
        self._schedule.on_validation_loss(row.get("val_loss", row["loss"]))
        progress.schedule = self._schedule.state
        best = progress.best
        if "val_loss" in row and (row["val_accuracy"], -row["val_loss"]) > (best.get("accuracy", -1.0), -best.get("loss", math.inf)):
            progress.best = {"epoch": row["epoch"], "accuracy": row["val_accuracy"], "loss": row["val_loss"]}
            if self.config.selection == "best":
                with self._average.averaged_weights():
                    self._best = [variable.numpy() for variable in self._mutable_variables]
        self._watch()
        self._on_epoch(progress)
        if self._save_policy.is_due:
            with self._save_policy.writing():
                checkpoint.save(self._checkpoint_path, self._variables(), self._best, asdict(progress))

    def _watch(self) -> None:
        """Say once a phase where the last epoch is a collapse."""
        progress = self.progress
        if self._start:
            now = {variable.path: variable.numpy() for variable in self._trained if variable.path in self._start}
            progress.moved = collapse.largest_relative_change(self._start, now) | {"updates": self._updates_per_epoch}
            self._start = {}
        what = "" if progress.collapse else collapse.detect_collapse(progress.history, self.model.output_shape[-1])
        if what:
            progress.collapse = collapse.collapse_warning(what, progress.epoch, self.config, progress.moved)
            if self._verbose:
                print(progress.collapse, flush=True)
