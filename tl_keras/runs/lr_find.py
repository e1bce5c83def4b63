"""The learning-rate range test (Smith 2017): the rate rises from step to step, and where the loss falls fastest is a good one.

As in fastai's lr_find: exponentially from 1e-7 to 10 over 100 steps on training batches alone, until the smoothed loss is four
times its minimum. Nothing of it is kept but the curve.
"""

import itertools
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.config import RunConfig
from tl_keras.errors import TrainingError
from tl_keras.runs.setup import plan, prepare
from tl_keras.training.trainer import Batches, Trainer
from tl_keras.utils.files import csv_text, write_text

FIRST_RATE, LAST_RATE, NUM_STEPS = 1e-7, 10.0, 100
SMOOTHING = 0.9  # share of the average that a step keeps; at fastai's 0.98 it would lag by four decades of 100 steps
DIVERGED = 4.0  # times the smallest smoothed loss
SETTLED = 10  # steps before the average is one


@dataclass(frozen=True)
class Curve:
    """What a range test saw: a rate, the loss of its batch before the update, and the smoothed loss, for each step."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]

    def minimum_tenth(self) -> float:
        """A tenth of the rate at which the smoothed loss is smallest: safe, and far from where it diverges."""
        return self.rates[self._minimum()] / 10

    def steepest(self) -> float:
        """The rate, below that of the minimum, at which the smoothed loss falls fastest over the logarithm of the rate."""
        end = self._minimum() + 1
        slopes = np.gradient(self.smoothed, np.log(self.rates))[:end]
        return self.rates[min(SETTLED, end - 1) + int(np.argmin(slopes[min(SETTLED, end - 1) :]))]

    def _minimum(self) -> int:
        start = min(SETTLED, len(self.smoothed) - 1)
        return start + int(np.argmin(self.smoothed[start:]))


def rates() -> list[float]:
    """The rates of the test, equal factors apart."""
    return np.geomspace(FIRST_RATE, LAST_RATE, NUM_STEPS).tolist()


def range_test(step: Callable[[float, Any], float], batches: Iterable[Any]) -> Curve:
    """Raise the rate over `batches` until the loss has diverged.

    Args:
        step: (rate, batch) -> mean loss of the batch, before the update that it makes at that rate.

    Raises:
        TrainingError: the loss was not finite before there was a curve.
    """
    seen: list[tuple[float, float, float]] = []
    average, lowest = 0.0, math.inf
    for number, (rate, batch) in enumerate(zip(rates(), batches, strict=False), start=1):
        loss = step(rate, batch)
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed = average / (1 - SMOOTHING**number)
        lowest = min(lowest, smoothed) if number > SETTLED else lowest
        if not math.isfinite(loss) or smoothed > DIVERGED * lowest:
            break
        seen.append((rate, loss, smoothed))
    if len(seen) < 2:
        raise TrainingError(f"The loss was {loss} at rate {rate:.2g}, the lowest of the test. Check the data, or `precision=float32`.")
    return Curve(*zip(*seen, strict=True))


def find(config: RunConfig) -> Curve:
    """The range test of the first phase of `config`, with its optimizer, loss, augmentation and batches; no other flag of the rate.

    Raises:
        UserError: as `run.run`, before the test.
    """
    config = config.replace(accumulate_steps=1, ema=0.0)
    ready = prepare(config, plan(config))
    with tempfile.TemporaryDirectory() as directory:
        phases, network = ready.plan.phases, ready.seeing(ready.model)
        trainer = Trainer(ready.model, ready.stages, phases, config.train, ready.machine, Path(directory), loss=ready.loss, forward=network)
        with trainer.phase_step(ready.plan.phases[0]) as step:
            return range_test(_step(trainer, step), _endless(trainer, ready.training))


def _endless(trainer: Trainer, batches: Batches) -> Iterator[Any]:
    return itertools.chain.from_iterable(trainer.batches(batches, epoch) for epoch in itertools.count())


def _step(trainer: Trainer, step: Callable[..., Any]) -> Callable[[float, Any], float]:
    def at_rate(rate: float, batch: Any) -> float:
        trainer.optimizer.learning_rate = rate
        return float(trainer.take_step(step, batch)[0]) / batch.num_examples

    return at_rate


def write(curve: Curve, directory: Path) -> list[Path]:
    """Write lr_find.csv and lr_find.png to `directory`."""
    rows = zip(curve.rates, curve.losses, curve.smoothed, strict=True)
    write_text(directory / "lr_find.csv", csv_text(["learning_rate", "loss", "smoothed"], rows))
    return [directory / "lr_find.csv", draw(curve, directory / "lr_find.png")]


def draw(curve: Curve, path: Path) -> Path:
    """Loss against rate, with the suggestions."""
    from matplotlib.figure import Figure

    from tl_keras.report import style

    with style.style():
        figure = Figure(figsize=(6.6, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(curve.rates, curve.losses, ".", color=style.GREY, markersize=3, alpha=0.5, label="loss of a batch")
        axes.plot(curve.rates, curve.smoothed, color=style.PALETTE[0], label="smoothed")
        for index, (name, rate) in enumerate(suggestions(curve).items(), start=1):
            axes.axvline(rate, color=style.PALETTE[index], linestyle="--", linewidth=1.2, label=f"{name}: {rate:.1e}")
        axes.set_xscale("log")
        axes.set_ylim(*_limits(curve.smoothed))
        axes.set(xlabel="Learning rate (log scale)", ylabel="Training loss (nats)")
        figure.legend(loc="outside upper center", ncols=2)
        return style.save(figure, path)


def suggestions(curve: Curve) -> dict[str, float]:
    """What each rule suggests."""
    return {"steepest descent": curve.steepest(), "a tenth of the minimum's": curve.minimum_tenth()}


def _limits(smoothed: Sequence[float]) -> tuple[float, float]:
    """Room for the curve to its minimum and a little of what diverges."""
    low, start = min(smoothed), max(smoothed[: SETTLED + 1])
    return max(0.0, low - 0.2 * (start - low)), start + 0.6 * (start - low) + 1e-3
