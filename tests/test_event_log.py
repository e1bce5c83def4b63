"""Logs for TensorBoard: they hold the history of a run, each epoch once, whatever became of the run in between."""

import keras
import pytest
import tensorflow as tf

from tl_keras.errors import UserError
from tl_keras.results.run_directory import read_history
from tl_keras.runs.event_log import EventLog
from tl_keras.runs.run import run

COLUMNS = ("loss", "accuracy", "learning_rate", "val_loss", "val_accuracy")


def row(epoch, **others):
    return {"epoch": epoch, "phase": "full", "loss": 1 / epoch, "accuracy": 0.5, "learning_rate": 0.1, **others}


def read_events(run_dir):
    """Return (column of the history, epoch) -> value of all logs of a run. No value may occur twice."""
    found = {}
    for path in (run_dir / "tensorboard").glob("*/*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                key = f"{'val_' * (path.parent.name == 'validation')}{value.tag}", event.step
                assert key not in found
                found[key] = float(tf.make_ndarray(value.tensor))
    return found


def as_events(history):
    return {(name, int(row["epoch"])): pytest.approx(row[name], rel=1e-6) for row in history for name in COLUMNS if name in row}


def test_each_epoch_is_written_once_and_at_once(tmp_path):
    log, history = EventLog(tmp_path), [row(1), row(2), row(3)]
    for end in (1, 3):
        log.write(history[:end])
        assert read_events(tmp_path) == as_events(history[:end])


def test_a_new_log_replaces_the_earlier_one_and_leaves_other_files(tmp_path):
    EventLog(tmp_path).write([row(1), row(2), row(3)])
    other = tmp_path / "tensorboard" / "train" / "events.out.tfevents.1.host.1.1.v2"
    other.touch()
    history = [row(1, val_loss=0.5, val_accuracy=0.25)]
    EventLog(tmp_path).write(history)
    assert read_events(tmp_path) == as_events(history) and other.exists()


def test_a_log_that_cannot_be_written_is_an_error_with_advice(tmp_path):
    (tmp_path / "tensorboard").touch()
    with pytest.raises(UserError, match="Cannot write .*tensorboard.*go on without `tensorboard`"):
        EventLog(tmp_path).write([row(1)])


class Interrupt(keras.callbacks.Callback):
    """Ends the process, as it were, in the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_the_logs_of_a_resumed_run_are_its_history(tiny_config, tmp_path):
    config = tiny_config.replace(tensorboard=True, validation_fraction=0.1)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, callbacks=[Interrupt()])
    assert {epoch for _, epoch in read_events(tmp_path)} == {1}
    run(config, tmp_path)
    events = read_events(tmp_path)
    assert {name for name, _ in events} == set(COLUMNS) and {epoch for _, epoch in events} == {1, 2, 3}
    assert events == as_events(read_history(tmp_path))


def test_a_finished_run_gets_its_logs_later_and_stays_the_same_run(tiny_config, tmp_path):
    config = tiny_config.replace(epochs=1)
    result = run(config, tmp_path)
    assert not (tmp_path / "tensorboard").exists()
    assert run(config.replace(tensorboard=True), tmp_path) == result
    assert read_events(tmp_path) == as_events(read_history(tmp_path))


def test_a_grid_has_logs_of_its_best_head(tiny_config, tmp_path):
    config = tiny_config.replace(strategy="head", grid="l2=0|1", validation_fraction=0.1, tensorboard=True, epochs=2, save_model=False)
    run(config, tmp_path)
    assert read_events(tmp_path) == as_events(read_history(tmp_path))
