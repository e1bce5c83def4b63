"""Learning-rate schedules: known values, warm-up, and the state to resume."""

import math

import pytest

from tl_keras.config import TrainConfig
from tl_keras.training.schedules import Schedule
from tl_keras.utils.lr_schedules import SCHEDULES


def factors(name: str, warmup_epochs: float = 0.0) -> list[float]:
    schedule = Schedule(name, steps_per_epoch=10, epochs=6, warmup_epochs=warmup_epochs)
    return [schedule.factor(step) for step in range(60)]


def test_schedules_have_their_known_values():
    assert set(factors("constant")) == {1.0}
    assert factors("cosine")[0] == 1.0 and factors("cosine")[30] == pytest.approx(0.5)
    assert factors("cosine")[59] == pytest.approx(0.5 * (1 + math.cos(math.pi * 59 / 60)))
    assert [factors("step")[step] for step in (0, 19, 20, 39, 40, 59)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_can_be_configured(name):
    assert len(factors(TrainConfig(schedule=name).schedule)) == 60


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_warmup_rises_to_the_peak(name):
    """one_cycle peaks at the last step of the warm-up, as in torch, and the others after it."""
    peak = 9 if name == "one_cycle" else 10
    rising = factors(name, warmup_epochs=1)[: peak + 1]
    assert rising == sorted(rising) and 0 < rising[0] < 0.1 and max(rising[:peak]) < rising[peak] == 1.0


def transcribed_one_cycle(num_steps: int, pct_start: float) -> list[float]:
    """Return torch's OneCycleLR with max_lr 1, transcribed from its documentation: cosine annealing, div 25, final div 1e4."""

    def anneal(start: float, end: float, fraction: float) -> float:
        return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))

    rise = pct_start * num_steps - 1
    return [
        anneal(1 / 25, 1.0, step / rise) if step <= rise else anneal(1.0, 1 / 25e4, (step - rise) / (num_steps - 1 - rise))
        for step in range(num_steps)
    ]


@pytest.mark.parametrize(("warmup_epochs", "pct_start"), [(0.0, 0.3), (3.0, 0.5)])
def test_one_cycle_equals_the_transcribed_schedule_of_torch(warmup_epochs, pct_start):
    assert factors("one_cycle", warmup_epochs) == pytest.approx(transcribed_one_cycle(60, pct_start))
    assert factors("one_cycle", warmup_epochs)[-1] == pytest.approx(4e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("epochs", [1, 2])
def test_the_factor_of_short_runs_is_positive_and_at_most_one(name, epochs):
    schedule = Schedule(name, steps_per_epoch=1, epochs=epochs)
    assert all(0 < schedule.factor(step) <= 1 for step in range(epochs))


def test_plateau_waits_five_epochs_and_resumes():
    schedule = Schedule("plateau", steps_per_epoch=1, epochs=20)
    for loss in [1.0, 0.9, *[0.95] * 5]:
        schedule.on_validation_loss(loss)
    assert schedule.factor(7) == 1.0
    resumed = Schedule("plateau", steps_per_epoch=1, epochs=20)
    resumed.state |= schedule.state
    resumed.on_validation_loss(0.95)
    assert resumed.factor(8) == pytest.approx(0.1)
