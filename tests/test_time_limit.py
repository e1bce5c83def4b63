"""The setting `time_limit`: a training ends in time with its best epoch, also after an interruption, and the result says so."""

import pytest

from tl_keras.errors import ConfigError
from tl_keras.results.run_directory import read_history
from tl_keras.runs.run import run
from tl_keras.training import time_limit, trainer
from tl_keras.training.time_limit import TimeLimit


class Clock:
    """A clock that tests set."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time_limit.time, "perf_counter", lambda: self.now)


def num_epochs(limit, clock, seconds):
    """Return the number of epochs of `seconds` each that a training trains; it has as many as there are entries."""
    for epoch, duration in enumerate(seconds):
        limit.on_epoch_begin(epoch)
        clock.now += duration
        if limit.is_over_after_epoch():
            return epoch + 1
    return len(seconds)


@pytest.mark.parametrize(
    ("limit", "used", "seconds", "expected"),
    [
        (0, 0, [10] * 5, 5),  # no limit
        (50, 0, [10] * 9, 5),  # the sixth would end at 60
        (49, 0, [10] * 9, 4),
        (50, 25, [10] * 9, 2),  # used before an interruption
        (50, 90, [10] * 9, 1),  # one epoch is always trained
        (60, 0, [30, 5, 5, 5, 5, 5, 5, 5, 5], 7),  # a slow first epoch does not count for long: after 7, 60 s
        (60, 0, [5, 5, 20, 20, 20], 4),  # after 3, 30 s: one more of 20 s fits; after 4, 50 s
    ],
)
def test_no_epoch_begins_that_would_not_fit(limit, used, seconds, expected, monkeypatch):
    clock = Clock(monkeypatch)
    assert num_epochs(TimeLimit(limit, used), clock, seconds) == expected


def test_a_run_ends_in_time_and_says_so(tiny_config, tmp_path):
    config = tiny_config.replace(time_limit=1e-6)
    result = run(config, tmp_path)
    assert len(read_history(tmp_path)) == 1 and result["phases"][0]["epochs"] == 1
    assert "`time_limit=1e-06` ended the training after 1 of 3 epochs" in result["data"]["notes"]
    assert result["selection"]["epoch"] == 1
    assert run(config, tmp_path) == result


def test_a_run_within_its_limit_is_a_run_without(tiny_config, finished_run, tmp_path):
    result = run(tiny_config.replace(time_limit=1000), tmp_path)
    assert result["metrics"] == finished_run.result["metrics"]
    assert not any("time_limit" in note for note in result["data"]["notes"])


def test_a_grid_of_heads_ends_in_time(tiny_config, tmp_path):
    config = tiny_config.replace(strategy="head", grid="learning_rate=0.01|0.1", time_limit=1e-6)
    result = run(config, tmp_path)
    assert result["phases"][0]["epochs"] == len(read_history(tmp_path)) == 1
    assert any("after 1 of 3 epochs" in note for note in result["data"]["notes"])


class Interrupted(Exception):
    pass


def test_a_resumed_run_counts_the_time_before(tiny_config, tmp_path, monkeypatch):
    """The first process is interrupted in epoch 2. The second one has no time left for epoch 3."""
    import keras

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise Interrupted

    before = []
    monkeypatch.setattr(trainer, "TimeLimit", lambda limit, used: before.append(used) or TimeLimit(limit, used and 1e6))
    config = tiny_config.replace(time_limit=1e4)
    with pytest.raises(Interrupted):
        run(config, tmp_path, callbacks=[Stop()])
    result = run(config, tmp_path)
    assert before[0] == 0 and before[1] > 0
    assert len(read_history(tmp_path)) == 2 and any("after 2 of 3 epochs" in note for note in result["data"]["notes"])


def test_a_negative_limit_is_refused(tiny_config):
    with pytest.raises(ConfigError, match=r"`time_limit=-1.0`: expected a number of seconds"):
        tiny_config.replace(time_limit=-1)
