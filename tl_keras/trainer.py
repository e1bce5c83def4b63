"""The training loop: one loop for one device and for several, with Keras callbacks, exact resume and an audit of every phase."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tl_keras import checkpoint, freezing
from tl_keras.config import TrainConfig
from tl_keras.evaluation import make_predict, metrics, predict_logits
from tl_keras.meter import EpochMeter
from tl_keras.optimizers import Schedule, build_optimizer
from tl_keras.runtime import Runtime
from tl_keras.strategies import Phase

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")


@dataclass(frozen=True)
class Batches:
    """What the trainer reads.

    Attributes:
        training: epoch, from 0 -> batches (images float32 (b, h, w, 3), labels int32 (b,)); the same for the same epoch.
        num_train: examples in an epoch.
        validation: batches (images, labels, weights), or None.
    """

    training: Callable[[int], tf.data.Dataset]
    num_train: int
    validation: tf.data.Dataset | None


@dataclass
class Progress:
    """How far a run has come: all that a resumed one needs besides the values of variables.

    Attributes:
        epoch: epochs done.
        history: one row an epoch; see `Trainer._run_epoch`.
        phases: one record for each phase that is done and audited.
        before_phase: fingerprints of the weights when the current phase began.
        schedule: state of the learning-rate schedule.
        rate_factor: the factor of the schedule that the learning rate was last set to.
        best: epoch, accuracy and loss of the best epoch on validation; empty without validation.
        stopped: whether a callback ended the training.
    """

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    phases: list[dict[str, Any]] = field(default_factory=list)
    before_phase: dict[str, str] = field(default_factory=dict)
    schedule: dict[str, float] = field(default_factory=dict)
    rate_factor: float = math.nan
    best: dict[str, float] = field(default_factory=dict)
    stopped: bool = False


class Trainer:
    """Trains a classifier through the phases of a strategy.

    Args:
        model: maps images (b, h, w, 3) to float32 logits (b, classes); built under `runtime.scope()`.
        stages: stage -> layers, covering every weight of `model`.
        phases: the plan; the optimizer is built on every variable that any of them trains.
        directory: where `latest.npz` and `best.npz` lie; a checkpoint found there is resumed.
        on_epoch: called with the progress after each epoch, before its checkpoint.
    """

    def __init__(
        self,
        model: keras.Model,
        stages: freezing.Stages,
        phases: Sequence[Phase],
        config: TrainConfig,
        runtime: Runtime,
        directory: Path,
        on_epoch: Callable[[Progress], None] = lambda progress: None,
    ):
        self.model, self.stages, self.phases, self.config, self.runtime = model, stages, phases, config, runtime
        self.progress = Progress()
        self.predict = make_predict(model, runtime)
        self._latest, self._best = directory / "latest.npz", directory / "best.npz"
        self._on_epoch = on_epoch
        for phase in phases:
            freezing.require_weights(stages, phase)
        self._trained = list({v.path: v for phase in phases for v in freezing.trained_variables(stages, phase)}.values())
        with runtime.scope():
            self.optimizer = build_optimizer(config)
            # Float16 underflows without a scaled loss; bfloat16 has the range of float32.
            self._updater = keras.optimizers.LossScaleOptimizer(self.optimizer) if runtime.precision == "mixed_float16" else self.optimizer
            self._updater.build(self._trained)

    def fit(self, batches: Batches, callbacks: Sequence[keras.callbacks.Callback] = (), *, verbose: int = 0) -> Progress:
        """Train what is left to train, and leave the model with the selected weights.

        Args:
            verbose: 0 silent, 1 a progress bar, 2 a line each epoch.

        Raises:
            TrainingError: a loss was not finite, or the audit of a phase failed.
        """
        self._steps_per_epoch = math.ceil(batches.num_train / self.config.batch_size)
        self._schedule = Schedule(
            self.config.schedule,
            steps_per_epoch=self._steps_per_epoch,
            epochs=self.config.epochs,
            warmup_epochs=self.config.warmup_epochs,
        )
        self._resume()
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
        if self._latest.exists():
            self.progress = Progress(**checkpoint.restore(self._latest, self._variables()))
            self._schedule.state |= self.progress.schedule

    def _variables(self) -> list[keras.Variable]:
        return [*self.model.variables, *self._updater.variables]

    def _select(self) -> None:
        """Put back the weights of the best epoch on validation, where that is asked for."""
        if self.selected_epoch() != self.progress.epoch:
            checkpoint.restore(self._best, self.model.variables)

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
        scales = freezing.rate_scales(self.stages, phase)
        self.optimizer.rate_scales = [scales.get(variable.path, 0.0) for variable in self._trained]
        self.progress.before_phase = self.progress.before_phase or freezing.fingerprints(self.stages)
        with freezing.follow(self.stages, phase):
            step = self._make_step(variables)
            for epoch in epochs:
                if epoch >= self.progress.epoch and not self.progress.stopped:
                    self._run_epoch(epoch, phase.name, step, batches, listeners)
        rows = self.progress.history[epochs.start : epochs.stop]
        record = {
            "name": phase.name,
            "epochs": len(rows),
            "trainable_parameters": sum(math.prod(variable.shape) for variable in variables),
            "trainable_stages": list(phase.trainable),
            "frozen_mode": phase.frozen_mode,
            "seconds": sum(row["seconds"] for row in rows),
            "audit": freezing.audit(self.stages, phase, self.progress.before_phase),
        }
        self.progress.phases.append(record)
        self.progress.before_phase = {}

    def _make_step(self, variables: Sequence[keras.Variable]) -> Callable[..., Any]:
        """A compiled step: (images, labels, examples in the global batch) -> summed loss and number right, over all replicas."""
        model, updater, strategy = self.model, self._updater, self.runtime.strategy
        sources = [variable.value for variable in variables]

        # XLA compiles the forward and backward pass alone: around strategy.run it breaks on several replicas.
        @tf.function(jit_compile=self.runtime.xla or None, reduce_retracing=True)
        def differentiate(images: tf.Tensor, labels: tf.Tensor, num_examples: tf.Tensor) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                logits = model(images, training=True)
                loss = ops.sum(LOSS(labels, logits))
                objective = updater.scale_loss(loss / num_examples)
            right = ops.sum(ops.cast(ops.equal(ops.argmax(logits, axis=-1), ops.cast(labels, "int32")), "float32"))
            return loss, right, tape.gradient(objective, sources)

        def replica_step(images: tf.Tensor, labels: tf.Tensor, num_examples: tf.Tensor) -> Any:
            loss, right, gradients = differentiate(images, labels, num_examples)
            updater.apply(gradients, variables)
            return loss, right

        @tf.function(reduce_retracing=True)
        def step(images: Any, labels: Any, num_examples: tf.Tensor) -> Any:
            loss, right = strategy.run(replica_step, (images, labels, num_examples))
            return strategy.reduce("SUM", loss, axis=None), strategy.reduce("SUM", right, axis=None)

        return step

    def _run_epoch(
        self, epoch: int, phase_name: str, step: Callable[..., Any], batches: Batches, listeners: keras.callbacks.CallbackList
    ) -> None:
        listeners.on_epoch_begin(epoch)
        started = time.perf_counter()
        first_step = epoch * self._steps_per_epoch
        meter = EpochMeter(epoch + 1, first_step)
        for index, num_examples, (images, labels) in self._distributed(batches, epoch):
            self._set_rate(first_step + index)
            listeners.on_train_batch_begin(index)
            meter.add(num_examples, *step(images, labels, tf.constant(num_examples, tf.float32)))
            listeners.on_train_batch_end(index, meter.logs())
        logs = meter.finish()
        seconds = time.perf_counter() - started
        logs |= self._validate(batches.validation) | {"learning_rate": float(self.optimizer.learning_rate.numpy())}
        listeners.on_epoch_end(epoch, logs)
        self._end_epoch({"epoch": epoch + 1, "phase": phase_name, **logs, "seconds": seconds})

    def _distributed(self, batches: Batches, epoch: int) -> Iterator[tuple[int, int, Any]]:
        """(index, examples in the global batch, batch on the replicas) of each step of an epoch."""
        left = batches.num_train
        for index, batch in enumerate(self.runtime.strategy.experimental_distribute_dataset(batches.training(epoch))):
            yield index, min(self.config.batch_size, left), batch
            left -= self.config.batch_size

    def _set_rate(self, step: int) -> None:
        """Set the rate where the schedule changes it; where it does not, one that a callback has set stays."""
        factor = self._schedule.factor(step)
        if factor != self.progress.rate_factor:
            self.progress.rate_factor = factor
            self.optimizer.learning_rate = self.config.learning_rate * factor

    def _validate(self, validation: tf.data.Dataset | None) -> dict[str, float]:
        if validation is None:
            return {}
        scores = metrics(*predict_logits(self.predict, self.runtime, validation))
        return {"val_loss": scores["loss"], "val_accuracy": scores["accuracy"]}

    def _end_epoch(self, row: dict[str, Any]) -> None:
        progress = self.progress
        progress.epoch, progress.stopped = row["epoch"], self.model.stop_training
        progress.history.append(row)
        self._schedule.observe(row.get("val_loss", row["loss"]))
        progress.schedule = self._schedule.state
        best = progress.best
        if "val_loss" in row and (row["val_accuracy"], -row["val_loss"]) > (best.get("accuracy", -1.0), -best.get("loss", math.inf)):
            progress.best = {"epoch": row["epoch"], "accuracy": row["val_accuracy"], "loss": row["val_loss"]}
            if self.config.selection == "best":
                checkpoint.save(self._best, self.model.variables, {})
        self._on_epoch(progress)
        checkpoint.save(self._latest, self._variables(), asdict(progress))
