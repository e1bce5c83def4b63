"""Trains many classifier heads on the same frozen features in one compiled loop, and selects the best on validation.

Heads that differ in learning rate, decay, label smoothing or seed see the same batches, so they share one matrix product:
features (b, f) times kernels (f, heads x units). Optimizer, schedule, clipping, average and best epoch are separate for each
head, as in a run of its own.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_keras.config import TrainConfig
from tl_keras.errors import ConfigError, TrainingError
from tl_keras.strategies.grid import HEAD_SETTINGS, HeadConfig
from tl_keras.training.losses import build_loss
from tl_keras.training.optimizers import CLIP_EPSILON, build_optimizer, has_weight_decay
from tl_keras.training.schedules import Schedule
from tl_keras.training.time_limit import TimeLimit
from tl_keras.utils.progress import track

BLOCK_BYTES = 1 << 28  # features read from a file at a time
EVALUATION_BATCH = 512


@dataclass(frozen=True)
class GridResult:
    """The best head of a grid, and a table of all.

    Attributes:
        best_index: index of the head that is best on validation, in the order of the grid.
        kernel, bias: weights of the best head at its selected epoch, float32 (f, units) and (units,).
        best: epoch, accuracy and loss on validation of its best epoch, as `Progress.best`.
        selected_epoch: epoch of the weights, from 1.
        history: its history, as `Progress.history`. Seconds are those of all heads together.
        table: one row per head: its settings, `selected_epoch` with its `val_accuracy` and `val_loss`, the training `loss` of the
            last epoch, and `diverged`. A head has diverged if a loss was not finite; a single run would have failed.
    """

    best_index: int
    kernel: np.ndarray
    bias: np.ndarray
    best: dict[str, float]
    selected_epoch: int
    history: list[dict[str, Any]]
    table: list[dict[str, Any]]


def train_heads(
    training: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    heads: Sequence[HeadConfig],
    config: TrainConfig,
    *,
    num_classes: int,
    order: Callable[[int], np.ndarray],
    initial: Callable[[int], tuple[np.ndarray, np.ndarray]],
    xla: bool = False,
    time_limit: TimeLimit | None = None,
) -> GridResult:
    """Train all `heads` at once. Each equals a single run with its settings, to rounding.

    Memory: (2 + optimizer slots + 1 with `ema`) float32 arrays (heads, f, units), plus the features. SGD has one slot, Adam two.
    Memory-mapped features are read `BLOCK_BYTES` at a time.

    Args:
        training, validation: features (n, f), float32, float16 or bfloat16, and labels int (n,).
        config: all settings but those of `HeadConfig`.
        order: epoch, from 0 -> indices of the training examples, in order, see `data.sampling`.
        initial: seed -> kernel (f, units) and bias (units,) of a new model with this seed. The units are the classes, or a single
            one for the head `one_logit`, whose first logit is 0.
        xla: True to compile the loop with XLA.
        time_limit: ends the training of all heads after the last epoch that fits; None: all epochs are trained.

    Raises:
        ConfigError: There are no validation examples.
        TrainingError: No head kept a finite loss.
    """
    if not len(validation[1]):
        raise ConfigError("A grid of heads is chosen on validation, and there are no validation examples; raise `validation_fraction`.")
    batched = _BatchedHeads(heads, config, num_classes, initial, np.bincount(training[1], minlength=num_classes), xla)
    train, validate = _Split(*training), _Split(*validation)
    histories = [_HeadHistory() for _ in heads]
    time_limit = time_limit or TimeLimit(0.0)
    for epoch in track(range(config.epochs), f"training {len(heads)} heads", config.epochs, "epochs"):
        started = time.perf_counter()
        time_limit.on_epoch_begin(epoch)
        losses, accuracies, learning_rates = batched.train(train, order(epoch), epoch)
        seconds = time.perf_counter() - started
        val_losses, val_accuracies = batched.validate(validate)
        for index, head_history in enumerate(histories):
            row = {"epoch": epoch + 1, "phase": "head", "loss": losses[index], "accuracy": accuracies[index]}
            row |= {"val_loss": val_losses[index], "val_accuracy": val_accuracies[index], "learning_rate": learning_rates[index]}
            if head_history.add(row | {"seconds": seconds}) or config.selection == "last":
                head_history.weights = batched.weights(index)
        batched.on_validation_losses(val_losses)
        if time_limit.is_over_after_epoch():
            break
    return _result(heads, histories, config)


class _HeadHistory:
    """The history of one head, its best epoch, and the weights of its selected epoch."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, float] = {"epoch": 0, "accuracy": -1.0, "loss": math.inf}
        self.diverged = False
        self.weights: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, row: dict[str, Any]) -> bool:
        """Add the row of an epoch. Return True if it is the best so far on validation."""
        self.history.append(row)
        self.diverged |= not math.isfinite(row["loss"] + row["val_loss"])
        if self.diverged or (row["val_accuracy"], -row["val_loss"]) <= (self.best["accuracy"], -self.best["loss"]):
            return False
        self.best = {"epoch": row["epoch"], "accuracy": row["val_accuracy"], "loss": row["val_loss"]}
        return True

    def selected(self, config: TrainConfig) -> dict[str, Any]:
        """Return the row of the selected epoch: the best one, or the last if the head diverged before any was best."""
        return self.history[int(self.best["epoch"]) - 1 if config.selection == "best" else -1]


def _result(heads: Sequence[HeadConfig], histories: Sequence[_HeadHistory], config: TrainConfig) -> GridResult:
    selected = [head_history.selected(config) for head_history in histories]
    weights = {index: history.weights for index, history in enumerate(histories) if not history.diverged and history.weights}
    if not weights:
        raise TrainingError("The loss of every head of the grid became infinite or not a number. Try lower learning rates in `grid`.")
    best_index = max(weights, key=lambda index: (selected[index]["val_accuracy"], -selected[index]["val_loss"]))
    table = [
        {
            **dataclasses.asdict(head),
            "selected_epoch": row["epoch"],
            "val_accuracy": row["val_accuracy"],
            "val_loss": row["val_loss"],
            "loss": head_history.history[-1]["loss"],
            "diverged": head_history.diverged,
        }
        for head, head_history, row in zip(heads, histories, selected, strict=True)
    ]
    kernel, bias = weights[best_index]
    return GridResult(
        best_index, kernel, bias, histories[best_index].best, selected[best_index]["epoch"], histories[best_index].history, table
    )


class _Split:
    """Features and labels, passed to the compiled loops as a whole, or in blocks if they are memory-mapped."""

    def __init__(self, features: np.ndarray, labels: np.ndarray):
        self._features, self._labels = features, labels.astype(np.int32)
        self._whole: Any = None

    def __len__(self) -> int:
        return len(self._labels)

    def blocks(self, order: np.ndarray, batch_size: int) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """Yield blocks of `order`: features, labels, and the indices of the examples of each batch.

        The indices are int32 (batches, batch_size), and -1 in the padding of the last batch.
        """
        padded = np.append(order, np.full(-len(order) % batch_size, -1)).astype(np.int32).reshape(-1, batch_size)
        if not isinstance(self._features, np.memmap):
            self._whole = tf.constant(self._features) if self._whole is None else self._whole
            yield self._whole, self._labels, padded
            return
        size = max(1, BLOCK_BYTES // (batch_size * self._features[0].nbytes))
        for start in range(0, len(padded), size):
            block = padded[start : start + size]
            indices = np.where(block < 0, -1, np.arange(block.size, dtype=np.int32).reshape(block.shape))
            yield tf.constant(self._features[block.ravel()]), self._labels[block.ravel()], indices


class _BatchedHeads:
    """All heads during training. Column h * units + u of every variable belongs to unit u of head h."""

    def __init__(
        self,
        heads: Sequence[HeadConfig],
        config: TrainConfig,
        num_classes: int,
        initial: Callable[[int], tuple[np.ndarray, np.ndarray]],
        class_counts: np.ndarray,
        xla: bool,
    ):
        self._config, self._num_heads, self._num_classes = config, len(heads), num_classes
        starts = {seed: initial(seed) for seed in {head.seed for head in heads}}
        self._num_units = next(iter(starts.values()))[1].size
        self._variables = [
            keras.Variable(np.concatenate([starts[head.seed][index] for head in heads], axis=-1), dtype="float32", name=name)
            for index, name in enumerate(("kernel", "bias"))
        ]
        self._averages = [tf.Variable(variable.value) for variable in self._variables] if config.ema else []
        self._decayed = [config.decay_biases or has_weight_decay(variable) for variable in self._variables]
        self._optimizer = build_optimizer(config)
        self._optimizer.build(self._variables)
        counts = {label: int(count) for label, count in enumerate(class_counts) if count}
        # Targets are smoothed before the loss, for each head by its own fraction.
        self._loss = build_loss(dataclasses.replace(config, label_smoothing=0.0), counts, num_classes)
        self._settings = {name: np.array([getattr(head, name) for head in heads], np.float64) for name in HEAD_SETTINGS}
        self._schedules = [Schedule(config, 1) for _ in heads]
        self._train = tf.function(self._train_batches, jit_compile=xla or None, reduce_retracing=True)
        # Compiled, it reads and writes each variable and slot once. Operation by operation it takes up to twice as long on a CPU.
        self._update = tf.function(self._update_all, jit_compile=True)
        self._validate = tf.function(self._validate_batches, jit_compile=xla or None, reduce_retracing=True)

    def train(self, split: _Split, order: np.ndarray, epoch: int) -> tuple[list[float], list[float], list[float]]:
        """Train an epoch. Return the mean loss, the accuracy and the last learning rate of each head."""
        size = self._config.batch_size * self._config.accumulate_steps  # a linear model needs no accumulation
        updates = math.ceil(len(order) / size)
        learning_rates = self._learning_rates(epoch, updates)
        totals, first = np.zeros((2, self._num_heads)), epoch * updates
        for features, labels, indices in split.blocks(order, size):
            done = range(first - epoch * updates, first - epoch * updates + len(indices))
            ema_decays = [min(self._config.ema, (1 + first + step) / (10 + first + step)) for step in range(len(indices))]
            column_lrs = np.repeat(learning_rates[done.start : done.stop], self._num_units, axis=1)
            totals += self._train(features, labels, indices, column_lrs, np.array(ema_decays, np.float32)).numpy()
            first += len(indices)
        losses, accuracies = (totals / len(order)).tolist()
        return losses, accuracies, learning_rates[-1].tolist()

    def _learning_rates(self, epoch: int, updates: int) -> np.ndarray:
        """Return the learning rate of each update of an epoch and each head, float32 (updates, heads)."""
        schedule = Schedule(self._config, updates)
        factors = np.array([schedule.factor(epoch * updates + step) for step in range(updates)])
        plateau_factors = np.array([schedule.state["factor"] for schedule in self._schedules])
        return (factors[:, None] * plateau_factors * self._settings["learning_rate"]).astype(np.float32)

    def validate(self, split: _Split) -> tuple[list[float], list[float]]:
        """Return the mean cross-entropy and the accuracy of each head, as `evaluation.compute_metrics` does."""
        blocks = split.blocks(np.arange(len(split)), EVALUATION_BATCH)
        losses, accuracies = (sum(self._validate(*block).numpy() for block in blocks) / len(split)).tolist()
        return losses, accuracies

    def on_validation_losses(self, losses: Sequence[float]) -> None:
        """Update the schedule of each head with its validation loss."""
        for schedule, loss in zip(self._schedules, losses, strict=True):
            schedule.on_validation_loss(loss)

    def weights(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of the validated weights of a head: kernel (f, units) and bias (units,)."""
        columns = slice(index * self._num_units, (index + 1) * self._num_units)
        kernel, bias = (variable[..., columns].numpy() for variable in self._validated())
        return kernel, bias

    def _validated(self) -> list[Any]:
        return self._averages or [variable.value for variable in self._variables]

    def _train_batches(self, features: Any, labels: Any, indices: Any, column_lrs: Any, ema_decays: Any) -> tf.Tensor:
        totals = tf.zeros((2, self._num_heads), tf.float64)
        for step in tf.range(tf.shape(indices)[0]):
            totals += self._step(*_batch(features, labels, indices[step]), column_lrs[step], ema_decays[step])
        return totals

    def _validate_batches(self, features: Any, labels: Any, indices: Any) -> tf.Tensor:
        totals = tf.zeros((2, self._num_heads), tf.float64)
        for step in tf.range(tf.shape(indices)[0]):
            inputs, classes, is_real = _batch(features, labels, indices[step])
            logits = self._logits(inputs, *self._validated())
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.repeat(classes[:, None], self._num_heads, axis=1), logits)
            totals += self._sums(losses, logits, classes, is_real)
        return totals

    def _logits(self, inputs: Any, kernel: Any, bias: Any) -> tf.Tensor:
        """Return the logits of all heads, float32 (b, heads, classes)."""
        logits = tf.reshape(inputs @ kernel + bias, (-1, self._num_heads, self._num_units))
        return logits if self._num_units == self._num_classes else tf.pad(logits, ((0, 0), (0, 0), (1, 0)))

    def _sums(self, losses: Any, logits: Any, classes: Any, is_real: Any) -> tf.Tensor:
        """Return the summed loss and the number of correct predictions of each head, float64 (2, heads)."""
        correct = tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32) == classes[:, None], tf.float32)
        return tf.cast(tf.reduce_sum(tf.stack([losses, correct]) * is_real[:, None], axis=1), tf.float64)

    def _step(self, inputs: Any, classes: Any, is_real: Any, column_lrs: Any, ema_decay: Any) -> tf.Tensor:
        targets = self._smoothed(tf.one_hot(classes, self._num_classes)[:, None])
        sources = [variable.value for variable in self._variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            logits = self._logits(inputs, *sources)
            losses = self._loss(targets, logits)
            objective = tf.reduce_sum(losses * is_real[:, None]) / tf.reduce_sum(is_real)
        sums = self._sums(losses, logits, classes, is_real)
        self._update(self._clipped(tape.gradient(objective, sources)), column_lrs)
        for average, source in zip(self._averages, sources, strict=bool(self._averages)):
            average.assign_sub((1.0 - ema_decay) * (average - source))
        return sums

    def _smoothed(self, targets: Any) -> Any:
        smoothing = self._settings["label_smoothing"].astype(np.float32)[:, None]
        return (1 - smoothing) * targets + smoothing / self._num_classes if smoothing.any() else targets

    def _clipped(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """Return the gradients, with that of each head scaled down to `clip_norm`."""
        limit = self._config.clip_norm
        if not limit:
            return gradients
        squares = sum(tf.reduce_sum(tf.reshape(gradient**2, (-1, self._num_heads, self._num_units)), axis=(0, 2)) for gradient in gradients)
        factors = tf.repeat(tf.minimum(limit / (tf.sqrt(squares) + CLIP_EPSILON), 1.0), self._num_units)
        return [gradient * factors for gradient in gradients]

    def _update_all(self, gradients: Sequence[Any], column_lrs: Any) -> None:
        """Do what `update_step` of the optimizer does, with a learning rate, an L2 and a decay for each column."""
        l2, decay = (np.repeat(self._settings[name], self._num_units).astype(np.float32) for name in ("l2", "weight_decay"))
        for index, (variable, gradient, decayed) in enumerate(zip(self._variables, gradients, self._decayed, strict=True)):
            if decayed and decay.any():
                variable.assign_sub(variable * (column_lrs * decay))
            if decayed and l2.any():
                gradient = gradient + variable * l2
            variable.assign_sub(column_lrs * self._optimizer.compute_update(index, gradient))


def _batch(features: tf.Tensor, labels: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return features float32 (b, f) and labels (b,) at `indices`, and float32 (b,) that is 0 for an index of -1, else 1."""
    positions = tf.maximum(indices, 0)
    return tf.cast(tf.gather(features, positions), tf.float32), tf.gather(labels, positions), tf.cast(indices >= 0, tf.float32)
