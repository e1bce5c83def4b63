"""The learning-rate range test (Smith 2017, Cyclical Learning Rates for Training Neural Networks).

The learning rate rises exponentially from 1e-7 to 10 over 100 training batches, as in fastai's `lr_find`, until the smoothed
loss is four times its minimum. A good learning rate is one at which the loss falls fastest. Nothing but the curve is kept.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import TrainingError
from tl_keras.results.split_record import SplitRecord
from tl_keras.runs.resolve import ResolvedRun, resolve
from tl_keras.runs.setup import build_setup, make_trainer
from tl_keras.training.runtime import preserve_global_state
from tl_keras.training.trainer import Batches, Trainer
from tl_keras.utils.files import csv_text, write_text
from tl_keras.utils.progress import track

FIRST_LEARNING_RATE, LAST_LEARNING_RATE, NUM_STEPS = 1e-7, 10.0, 100
SMOOTHING = 0.9  # weight of the running average; fastai's 0.98 would lag by four decades within 100 steps
DIVERGENCE_FACTOR = 4.0  # of the smallest smoothed loss
WARMUP_STEPS = 10  # before the running average means anything


@dataclass(frozen=True)
class LRCurve:
    """One entry per step: the learning rate, the loss of the batch before the update, and the smoothed loss, in nats."""

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]

    def minimum(self) -> float:
        """Return a tenth of the learning rate at the smallest smoothed loss: safe, far from divergence."""
        return self.learning_rates[self._argmin()] / 10

    def steep(self) -> float:
        """Return the learning rate, below that of the minimum, at which the smoothed loss falls fastest over its logarithm."""
        end = self._argmin() + 1
        slopes = np.gradient(self.smoothed, np.log(self.learning_rates))[:end]
        start = min(WARMUP_STEPS, end - 1)
        return self.learning_rates[start + int(np.argmin(slopes[start:]))]

    def _argmin(self) -> int:
        start = min(WARMUP_STEPS, len(self.smoothed) - 1)
        return start + int(np.argmin(self.smoothed[start:]))


def learning_rates() -> list[float]:
    """Return the learning rates of the test, in geometric progression."""
    return np.geomspace(FIRST_LEARNING_RATE, LAST_LEARNING_RATE, NUM_STEPS).tolist()


def range_test(step: Callable[[float, Any], float], batches: Iterable[Any]) -> LRCurve:
    """Raise the learning rate over `batches` until the loss diverges.

    Args:
        step: (learning rate, batch) -> mean loss of the batch, before the update that it makes at this learning rate.

    Raises:
        TrainingError: The loss was not finite within the first two steps.
    """
    steps: list[tuple[float, float, float]] = []
    average, lowest, loss, learning_rate = 0.0, math.inf, math.nan, math.nan
    pairs = track(zip(learning_rates(), batches, strict=False), "range test of learning rates", NUM_STEPS, "batches")
    for number, (learning_rate, batch) in enumerate(pairs, start=1):
        loss = step(learning_rate, batch)
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed = average / (1 - SMOOTHING**number)
        lowest = min(lowest, smoothed) if number > WARMUP_STEPS else lowest
        if not math.isfinite(loss) or smoothed > DIVERGENCE_FACTOR * lowest:
            break
        steps.append((learning_rate, loss, smoothed))
    if len(steps) < 2:
        raise TrainingError(
            f"The loss was {loss} at learning rate {learning_rate:.2g}, the lowest of the test. Check the data, or use `precision=float32`."
        )
    return LRCurve(*zip(*steps, strict=True))


def run_lr_find(resolved: ResolvedRun, given: SplitRecord | None = None) -> LRCurve:
    """Run the range test of the first phase, with its optimizer, loss, augmentation and batches.

    The settings of the learning rate and its schedule have no effect.

    Args:
        given: fixed splits of the data set; None: its own.

    Raises:
        UserError: As `runs.run.run`, before the test.
    """
    resolved = resolve(resolved.config.replace(accumulate_steps=1, ema=0.0))
    with preserve_global_state():
        setup = build_setup(resolved, given=given)
        trainer = make_trainer(setup)
        with trainer.phase_step(setup.phases[0]) as step:
            return range_test(_step_at(trainer, step), _endless(trainer, setup.batches))


def _endless(trainer: Trainer, batches: Batches) -> Iterator[Any]:
    return itertools.chain.from_iterable(trainer.batches(batches, epoch) for epoch in itertools.count())


def _step_at(trainer: Trainer, step: Callable[..., Any]) -> Callable[[float, Any], float]:
    def step_at(learning_rate: float, batch: Any) -> float:
        trainer.optimizer.learning_rate = learning_rate
        return float(trainer.take_step(step, batch)[0]) / batch.num_examples

    return step_at


def write_lr_curve(curve: LRCurve, directory: Path) -> list[Path]:
    """Write lr_find.csv and lr_find.png to `directory`, and return their paths."""
    rows = zip(curve.learning_rates, curve.losses, curve.smoothed, strict=True)
    write_text(directory / "lr_find.csv", csv_text(["learning_rate", "loss", "smoothed"], rows))
    return [directory / "lr_find.csv", plot_lr_curve(curve, directory / "lr_find.png")]


def plot_lr_curve(curve: LRCurve, path: Path) -> Path:
    """Plot the loss against the learning rate, with the suggestions."""
    from matplotlib.figure import Figure

    from tl_keras.report import style

    with style.plot_style():
        figure = Figure(figsize=(6.6, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(curve.learning_rates, curve.losses, ".", color=style.GREY, markersize=3, alpha=0.5, label="loss of a batch")
        axes.plot(curve.learning_rates, curve.smoothed, color=style.PALETTE[0], label="smoothed")
        for index, (name, learning_rate) in enumerate(suggestions(curve).items(), start=1):
            axes.axvline(learning_rate, color=style.PALETTE[index], linestyle="--", linewidth=1.2, label=f"{name}: {learning_rate:.1e}")
        axes.set_xscale("log")
        axes.set_ylim(*_loss_limits(curve.smoothed))
        axes.set(xlabel="Learning rate (log scale)", ylabel="Training loss (nats)")
        figure.legend(loc="outside upper center", ncols=2)
        return style.save_figure(figure, path)


def suggestions(curve: LRCurve) -> dict[str, float]:
    """Return the learning rate that each rule suggests."""
    return {"steepest descent": curve.steep(), "a tenth of the minimum's": curve.minimum()}


def _loss_limits(smoothed: Sequence[float]) -> tuple[float, float]:
    """Return axis limits that show the curve down to its minimum, and the beginning of the divergence."""
    low, start = min(smoothed), max(smoothed[: WARMUP_STEPS + 1])
    return max(0.0, low - 0.2 * (start - low)), start + 0.6 * (start - low) + 1e-3
