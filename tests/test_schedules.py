"""Learning-rate schedules: known values and those of torch, warm-up, the interval, the grammar, and the state to resume."""

import math
import subprocess
import sys

import pytest

from tl_keras.config import TrainConfig
from tl_keras.errors import ConfigError
from tl_keras.training.schedules import Schedule
from tl_keras.utils.lr_schedules import SCHEDULES

EPOCHS, UPDATES = 6, 10


def factors(schedule: str, warmup_epochs: float = 0.0, interval: str = "step", epochs: int = EPOCHS) -> list[float]:
    config = TrainConfig(schedule=schedule, warmup_epochs=warmup_epochs, schedule_interval=interval, epochs=epochs)
    return [Schedule(config, UPDATES).factor(update) for update in range(UPDATES * epochs)]


def test_schedules_have_their_known_values():
    assert set(factors("constant")) == {1.0}
    assert factors("cosine")[0] == 1.0 and factors("cosine")[30] == pytest.approx(0.5)
    assert factors("cosine")[59] == pytest.approx(0.5 * (1 + math.cos(math.pi * 59 / 60)))
    assert [factors("step")[step] for step in (0, 19, 20, 39, 40, 59)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert factors("step:factor=0.5")[40] == 0.25


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_step_equals_steplr_of_torch(interval):
    """StepLR has the factor gamma ** (epoch // step_size). With a warm-up it starts after it, as in torch's SequentialLR."""
    for every in (1, 2, 4, 7):
        expected = [0.3 ** (update // UPDATES // every) for update in range(60)]
        assert factors(f"step:every={every},factor=0.3", interval=interval) == pytest.approx(expected)
    assert factors("step:every=7", epochs=10)[69:71] == pytest.approx([1, 0.1])
    assert factors("step:every=2", 1.0, interval)[10:] == pytest.approx([1] * 20 + [0.1] * 20 + [0.01] * 10)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup_epochs", [0.0, 2.0])
def test_an_epoch_counts_as_one_update_with_the_interval_epoch(name, warmup_epochs):
    """The factor is constant within an epoch, and that of an epoch of one update; the last epoch of the warm-up has w / (w + 1)."""
    by_epoch = factors(name, warmup_epochs, "epoch")
    config = TrainConfig(schedule=name, warmup_epochs=warmup_epochs, epochs=EPOCHS)
    assert by_epoch == [Schedule(config, 1).factor(epoch) for epoch in range(EPOCHS) for _ in range(UPDATES)]
    if warmup_epochs and name != "one_cycle":
        assert by_epoch[::UPDATES][:3] == pytest.approx([1 / 3, 2 / 3, 1])


def test_cosine_by_epoch_equals_cosineannealinglr_of_torch():
    assert factors("cosine", interval="epoch")[::UPDATES] == pytest.approx(
        [0.5 * (1 + math.cos(math.pi * epoch / EPOCHS)) for epoch in range(EPOCHS)]
    )


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
    by_epoch = factors("one_cycle", 2 * warmup_epochs, "epoch", epochs=12)[::UPDATES]
    assert by_epoch == pytest.approx(transcribed_one_cycle(12, pct_start))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("epochs", [1, 2])
def test_the_factor_of_short_runs_is_positive_and_at_most_one(name, epochs):
    schedule = Schedule(TrainConfig(schedule=name, epochs=epochs), updates_per_epoch=1)
    assert all(0 < schedule.factor(update) <= 1 for update in range(epochs))


def plateau_factors(text: str, losses: list[float]) -> list[float]:
    """Return the factor after each of `losses`."""
    schedule = Schedule(TrainConfig(schedule=text, epochs=20), updates_per_epoch=1)
    after = []
    for epoch, loss in enumerate(losses):
        schedule.on_validation_loss(loss)
        after.append(schedule.factor(epoch))
    return after


def test_plateau_waits_for_its_patience():
    assert plateau_factors("plateau", [1.0, 0.9, *[0.95] * 6]) == pytest.approx([1.0] * 7 + [0.1])
    assert plateau_factors("plateau:patience=1,factor=0.5", [1.0] * 6) == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.25])
    assert plateau_factors("plateau:patience=0", [1.0, 1.0, 0.5]) == pytest.approx([1, 0.1, 0.1])


def test_the_threshold_of_plateau_is_a_fraction_of_the_lowest_loss():
    """A loss that falls by less does not count, and does not become the lowest: many small falls add up."""
    assert plateau_factors("plateau:patience=0", [100.0, 99.995, 99.98]) == pytest.approx([1, 0.1, 0.1])
    assert plateau_factors("plateau:patience=0,threshold=0", [100.0, 99.995, 99.98]) == [1, 1, 1]
    assert plateau_factors("plateau:patience=0,threshold=0.1", [1.0, 0.91, 0.89]) == pytest.approx([1, 0.1, 0.1])


def test_plateau_resumes():
    schedule = Schedule(TrainConfig(schedule="plateau", epochs=20), updates_per_epoch=1)
    for loss in [1.0, 0.9, *[0.95] * 5]:
        schedule.on_validation_loss(loss)
    assert schedule.factor(7) == 1.0
    resumed = Schedule(TrainConfig(schedule="plateau", epochs=20), updates_per_epoch=1)
    resumed.state |= schedule.state
    resumed.on_validation_loss(0.95)
    assert resumed.factor(8) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stp", "Did you mean 'step'"),
        ("cosine:every=2", "cosine without an argument"),
        ("step:", "name=value pairs"),
        ("step:7", "name=value pairs"),
        ("step:every=7,every=8", "different name=value pairs"),
        ("step:patience=7", "the arguments every, factor, not patience"),
        ("step:every=0", "at least 1, e.g. every=7"),
        ("step:every=1.5", "at least 1, e.g. every=7"),
        ("step:factor=1", "a factor in (0, 1)"),
        ("step:factor=tenth", "a factor in (0, 1)"),
        ("plateau:patience=-1", "e.g. patience=5"),
        ("plateau:threshold=1", "a fraction in [0, 1)"),
        ("plateau:threshold=nan", "a fraction in [0, 1)"),
    ],
)
def test_the_error_of_a_schedule_states_the_cause(text, words):
    with pytest.raises(ConfigError) as caught:
        TrainConfig(schedule=text)
    assert words in str(caught.value) and str(caught.value).startswith(f"`schedule={text}`: ")


def test_a_fraction_of_an_epoch_as_warmup_needs_the_interval_step():
    assert factors("constant", 0.5)[5] == 1.0
    with pytest.raises(ConfigError, match="whole number with `schedule_interval=epoch`"):
        TrainConfig(warmup_epochs=0.5, schedule_interval="epoch")


def test_schedules_are_parsed_without_tensorflow():
    code = (
        "import sys; from tl_keras.config import RunConfig; RunConfig().replace(schedule='step:every=7'); "
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
