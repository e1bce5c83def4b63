"""Many classifiers on the same frozen features, trained in one compiled loop and chosen on validation.

Heads that differ in learning rate, decay, label smoothing or seed see the same batches, so one matrix product serves them all:
features (b, f) times kernels (f, heads x classes). All else is of each head by itself, as in a run of its own: optimizer,
schedule, clipping, average, best epoch.
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

BLOCK_BYTES = 1 << 28  # of features that are read from a file at a time
EVALUATION_BATCH = 512


@dataclass(frozen=True)
class GridResult:
    """What training a grid gives.

    Attributes:
        best_index: number of the head that is best on validation, in the order of the grid.
        kernel, bias: its weights at its selected epoch, float32 (f, classes) and (classes,).
        best: epoch, accuracy and loss on validation of its best epoch, as `Progress.best`.
        selected_epoch: the epoch, from 1, that the weights are of.
        history: its rows, one an epoch, as `Progress.history`; seconds are those of all heads together.
        table: a row for each head: its settings, `selected_epoch`, `val_accuracy` and `val_loss` there, `loss` of the last epoch
            (of training), `diverged`: whether a loss was not finite, after which a head is not chosen; a single run would have failed.
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
) -> GridResult:
    """Train all `heads` at once. Each comes out as a single run with its settings would, to rounding.

    Needs memory for float32 heads x f x classes, times 2 and the optimizer's slots (1 of sgd, 2 of Adam) and 1 with `ema`; and for
    the features, in the type they have, but for those in a np.memmap, of which `BLOCK_BYTES` are read at a time.

    Args:
        training, validation: features (n, f), float32, float16 or bfloat16, and labels int (n,).
        config: all settings but those of `HeadConfig`.
        order: epoch, from 0 -> the rows of `training` that it has, in order, as `sampling.epoch_order` gives them.
        initial: seed -> initial kernel (f, classes) and bias (classes,); those of the model that a run with this seed builds.
        xla: whether to compile the loop with XLA.

    Raises:
        ConfigError: there are no validation examples.
        TrainingError: no head kept a finite loss.
    """
    if not len(validation[1]):
        raise ConfigError("A grid of heads is chosen on validation, and there are no validation examples; raise `validation_fraction`.")
    grid = _Grid(heads, config, num_classes, initial, np.bincount(training[1], minlength=num_classes), xla)
    train, validate = _Split(*training), _Split(*validation)
    records = [_Record() for _ in heads]
    for epoch in range(config.epochs):
        started = time.perf_counter()
        losses, accuracies, rates = grid.train(train, order(epoch), epoch)
        seconds = time.perf_counter() - started
        val_losses, val_accuracies = grid.validate(validate)
        for number, record in enumerate(records):
            row = {"epoch": epoch + 1, "phase": "head", "loss": losses[number], "accuracy": accuracies[number]}
            row |= {"val_loss": val_losses[number], "val_accuracy": val_accuracies[number], "learning_rate": rates[number]}
            if record.add(row | {"seconds": seconds}) or config.selection == "last":
                record.weights = grid.weights(number)
        grid.on_validation_losses(val_losses)
    return _result(heads, records, config)


class _Record:
    """What became of one head: its rows, the best of them, and the weights that are kept."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, float] = {"epoch": 0, "accuracy": -1.0, "loss": math.inf}
        self.diverged = False
        self.weights: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, row: dict[str, Any]) -> bool:
        """Take the row of an epoch; whether it is the best so far on validation."""
        self.history.append(row)
        self.diverged |= not math.isfinite(row["loss"] + row["val_loss"])
        if self.diverged or (row["val_accuracy"], -row["val_loss"]) <= (self.best["accuracy"], -self.best["loss"]):
            return False
        self.best = {"epoch": row["epoch"], "accuracy": row["val_accuracy"], "loss": row["val_loss"]}
        return True

    def selected(self, config: TrainConfig) -> dict[str, Any]:
        """The row of the epoch whose weights are kept; the last one of a head that has diverged before any was."""
        return self.history[int(self.best["epoch"]) - 1 if config.selection == "best" else -1]


def _result(heads: Sequence[HeadConfig], records: Sequence[_Record], config: TrainConfig) -> GridResult:
    selected = [record.selected(config) for record in records]
    alive = [number for number, record in enumerate(records) if not record.diverged]
    if not alive:
        raise TrainingError("The loss of every head of the grid became infinite or not a number. Try lower learning rates in `grid`.")
    best_index = max(alive, key=lambda number: (selected[number]["val_accuracy"], -selected[number]["val_loss"]))
    table = [
        {
            **dataclasses.asdict(head),
            "selected_epoch": row["epoch"],
            "val_accuracy": row["val_accuracy"],
            "val_loss": row["val_loss"],
            "loss": record.history[-1]["loss"],
            "diverged": record.diverged,
        }
        for head, record, row in zip(heads, records, selected, strict=True)
    ]
    kernel, bias = records[best_index].weights
    return GridResult(best_index, kernel, bias, records[best_index].best, selected[best_index]["epoch"], records[best_index].history, table)


class _Split:
    """Features and labels, handed to the compiled loops whole, or a block at a time where they lie in a file."""

    def __init__(self, features: np.ndarray, labels: np.ndarray):
        self._features, self._labels = features, labels.astype(np.int32)
        self._whole: Any = None

    def __len__(self) -> int:
        return len(self._labels)

    def blocks(self, order: np.ndarray, batch_size: int) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """(features, labels, rows int32 (batches, batch_size)); the rows of a batch, -1 where the last one has no more."""
        padded = np.append(order, np.full(-len(order) % batch_size, -1)).astype(np.int32).reshape(-1, batch_size)
        if not isinstance(self._features, np.memmap):
            self._whole = tf.constant(self._features) if self._whole is None else self._whole
            yield self._whole, self._labels, padded
            return
        size = max(1, BLOCK_BYTES // (batch_size * self._features[0].nbytes))
        for start in range(0, len(padded), size):
            rows = padded[start : start + size]
            places = np.where(rows < 0, -1, np.arange(rows.size, dtype=np.int32).reshape(rows.shape))
            yield tf.constant(self._features[rows.ravel()]), self._labels[rows.ravel()], places


class _Grid:
    """The heads while they train: column h * classes + c of every variable belongs to class c of head h."""

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
        self._variables = [
            keras.Variable(np.concatenate([starts[head.seed][index] for head in heads], axis=-1), dtype="float32", name=name)
            for index, name in enumerate(("kernel", "bias"))
        ]
        self._averages = [tf.Variable(variable.value) for variable in self._variables] if config.ema else []
        self._decayed = [config.decay_biases or has_weight_decay(variable) for variable in self._variables]
        self._optimizer = build_optimizer(config)
        self._optimizer.build(self._variables)
        counts = {label: int(count) for label, count in enumerate(class_counts) if count}
        # Targets are smoothed before they come to the loss, for each head by its share.
        self._loss = build_loss(dataclasses.replace(config, label_smoothing=0.0), counts, num_classes)
        self._settings = {name: np.array([getattr(head, name) for head in heads], np.float64) for name in HEAD_SETTINGS}
        self._schedules = [_schedule(config, 1) for _ in heads]
        self._train = tf.function(self._train_batches, jit_compile=xla or None, reduce_retracing=True)
        # By itself it reads and writes each variable and slot once; operation by operation it takes up to twice as long on a CPU.
        self._update = tf.function(self._update_all, jit_compile=True)
        self._validate = tf.function(self._validate_batches, jit_compile=xla or None, reduce_retracing=True)

    def train(self, split: _Split, order: np.ndarray, epoch: int) -> tuple[list[float], list[float], list[float]]:
        """Train an epoch; of each head the mean loss, the accuracy and the last learning rate."""
        size = self._config.batch_size * self._config.accumulate_steps  # what is linear up to the loss needs not gather gradients
        updates = math.ceil(len(order) / size)
        rates = self._rates(epoch, updates)
        totals, first = np.zeros((2, self._num_heads)), epoch * updates
        for features, labels, rows in split.blocks(order, size):
            done = range(first - epoch * updates, first - epoch * updates + len(rows))
            kept = [min(self._config.ema, (1 + first + step) / (10 + first + step)) for step in range(len(rows))]
            columns = np.repeat(rates[done.start : done.stop], self._num_classes, axis=1)
            totals += self._train(features, labels, rows, columns, np.array(kept, np.float32)).numpy()
            first += len(rows)
        losses, accuracies = (totals / len(order)).tolist()
        return losses, accuracies, rates[-1].tolist()

    def _rates(self, epoch: int, updates: int) -> np.ndarray:
        """The learning rate of each update of an epoch and each head, float32 (updates, heads)."""
        curve = _schedule(self._config, updates)
        shape = np.array([curve.factor(epoch * updates + step) for step in range(updates)])
        own = np.array([schedule.state["factor"] for schedule in self._schedules])
        return (shape[:, None] * own * self._settings["learning_rate"]).astype(np.float32)

    def validate(self, split: _Split) -> tuple[list[float], list[float]]:
        """Of each head the mean cross-entropy and the accuracy, as `evaluation.compute_metrics` has them."""
        num = len(split)
        blocks = split.blocks(np.arange(num), EVALUATION_BATCH)
        losses, accuracies = (sum(self._validate(*block).numpy() for block in blocks) / num).tolist()
        return losses, accuracies

    def on_validation_losses(self, losses: Sequence[float]) -> None:
        """Tell the schedule of each head its validation loss."""
        for schedule, loss in zip(self._schedules, losses, strict=True):
            schedule.on_validation_loss(loss)

    def weights(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Copies of what is validated of a head: kernel (f, classes) and bias (classes,)."""
        columns = slice(number * self._num_classes, (number + 1) * self._num_classes)
        kernel, bias = (variable[..., columns].numpy() for variable in self._validated())
        return kernel, bias

    def _validated(self) -> list[Any]:
        return self._averages or [variable.value for variable in self._variables]

    def _train_batches(self, features: Any, labels: Any, rows: Any, rates: Any, kept: Any) -> Any:
        totals = tf.zeros((2, self._num_heads), tf.float64)
        for step in tf.range(tf.shape(rows)[0]):
            totals += self._step(*_batch(features, labels, rows[step]), rates[step], kept[step])
        return totals

    def _validate_batches(self, features: Any, labels: Any, rows: Any) -> Any:
        totals = tf.zeros((2, self._num_heads), tf.float64)
        for step in tf.range(tf.shape(rows)[0]):
            images, classes, real = _batch(features, labels, rows[step])
            logits = self._logits(images, *self._validated())
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.repeat(classes[:, None], self._num_heads, axis=1), logits)
            totals += self._sums(losses, logits, classes, real)
        return totals

    def _logits(self, images: Any, kernel: Any, bias: Any) -> Any:
        """float32 (b, heads, classes)."""
        return tf.reshape(images @ kernel + bias, (-1, self._num_heads, self._num_classes))

    def _sums(self, losses: Any, logits: Any, classes: Any, real: Any) -> Any:
        """The summed loss and the number right of each head, float64 (2, heads)."""
        right = tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32) == classes[:, None], tf.float32)
        return tf.cast(tf.reduce_sum(tf.stack([losses, right]) * real[:, None], axis=1), tf.float64)

    def _step(self, images: Any, classes: Any, real: Any, rate: Any, kept: Any) -> Any:
        targets = self._smoothed(tf.one_hot(classes, self._num_classes)[:, None])
        sources = [variable.value for variable in self._variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            logits = self._logits(images, *sources)
            losses = self._loss(targets, logits)
            objective = tf.reduce_sum(losses * real[:, None]) / tf.reduce_sum(real)
        sums = self._sums(losses, logits, classes, real)
        self._update(self._clipped(tape.gradient(objective, sources)), rate)
        for average, source in zip(self._averages, sources, strict=bool(self._averages)):
            average.assign_sub((1.0 - kept) * (average - source))
        return sums

    def _smoothed(self, targets: Any) -> Any:
        share = self._settings["label_smoothing"].astype(np.float32)[:, None]
        return (1 - share) * targets + share / self._num_classes if share.any() else targets

    def _clipped(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """The gradient of each head scaled down to `clip_norm`."""
        limit = self._config.clip_norm
        if not limit:
            return gradients
        squares = sum(
            tf.reduce_sum(tf.reshape(gradient**2, (-1, self._num_heads, self._num_classes)), axis=(0, 2)) for gradient in gradients
        )
        factors = tf.repeat(tf.minimum(limit / (tf.sqrt(squares) + CLIP_EPSILON), 1.0), self._num_classes)
        return [gradient * factors for gradient in gradients]

    def _update_all(self, gradients: Sequence[Any], rate: Any) -> None:
        """What the optimizer's `update_step` does, with a rate, an L2 and a decay for each column."""
        l2, decay = (np.repeat(self._settings[name], self._num_classes).astype(np.float32) for name in ("l2", "weight_decay"))
        for index, (variable, gradient, decayed) in enumerate(zip(self._variables, gradients, self._decayed, strict=True)):
            if decayed and decay.any():
                variable.assign_sub(variable * (rate * decay))
            if decayed and l2.any():
                gradient = gradient + variable * l2
            variable.assign_sub(rate * self._optimizer.compute_update(index, gradient))


def _schedule(config: TrainConfig, updates: int) -> Schedule:
    return Schedule(config.schedule, steps_per_epoch=updates, epochs=config.epochs, warmup_epochs=config.warmup_epochs)


def _batch(features: "tf.Tensor", labels: "tf.Tensor", rows: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor, tf.Tensor]":
    """Features float32 (b, f) and labels (b,) at `rows`, and which are real: 0 where a row is -1, else 1, float32 (b,)."""
    places = tf.maximum(rows, 0)
    return tf.cast(tf.gather(features, places), tf.float32), tf.gather(labels, places), tf.cast(rows >= 0, tf.float32)
