"""Collapse detection: its limits, and the trainer's warning and record."""

import numpy as np
import pytest
from test_trainer import make_batches, make_trainer

from tl_keras.config import TrainConfig
from tl_keras.training import collapse
from tl_keras.training.checkpoint import SavePolicy


def rows(losses, val_losses=None, val_accuracies=None) -> list[dict]:
    history = [{"epoch": index + 1, "loss": loss} for index, loss in enumerate(losses)]
    for row, val_loss, val_accuracy in zip(history, val_losses or (), val_accuracies or (), strict=False):
        row |= {"val_loss": val_loss, "val_accuracy": val_accuracy}
    return history


# Name -> history, classes, words of the description. The first two were measured in the setting of tools/adamw_collapse.py.
COLLAPSED = {
    "adamw": (rows([1.23], [4.69], [0.467]), 37, "4.69, that of guessing 3.61"),
    "adamw after warm-up": (rows([2.2, 0.295, 0.766], [0.366, 1.881, 4.801], [0.9, 0.733, 0.617]), 37, "4.80"),
    "accuracy": (rows([1.0, 0.5, 0.6], [0.4, 0.3, 2.0], [0.8, 0.91, 0.402]), 10, "fell from 91.0 to 40.2 %"),
    "without validation": (rows([0.9, 0.5, 2.4]), 10, "rose from 0.50 to 2.40"),
}

HEALTHY = {
    "from scratch, hardly learning": (rows([2.3024, 2.2999, 2.2823], [2.303, 2.302, 2.31], [0.1044, 0.1266, 0.1182]), 10),
    "from scratch, guessing with noise": (rows([2.35, 2.31, 2.30], [2.9, 2.8, 2.9], [0.15, 0.1, 0.09]), 10),
    "overfitting": (rows([0.9, 0.1, 0.01, 0.001], [1.5, 2.2, 2.9, 3.4], [0.5, 0.55, 0.54, 0.53]), 10),
    "fine-tuning": (rows([1.14, 0.39, 0.22], [0.5, 0.42, 0.45], [0.83, 0.87, 0.86]), 10),
    "a bump": (rows([0.5, 0.3, 0.4], [0.3, 0.3, 0.7], [0.91, 0.92, 0.80]), 10),
    "a small validation split": (rows([1.1, 1.1], [1.1, 1.12], [0.5, 0.38]), 3),
    "without validation": (rows([2.3, 2.0, 1.9]), 10),
}


@pytest.mark.parametrize("name", COLLAPSED)
def test_a_collapse_is_detected_in_its_epoch_and_not_before(name):
    history, num_classes, words = COLLAPSED[name]
    assert words in collapse.detect_collapse(history, num_classes)
    assert not any(collapse.detect_collapse(history[:end], num_classes) for end in range(1, len(history)))


@pytest.mark.parametrize("name", HEALTHY)
def test_slow_noisy_or_overfitting_training_is_not_a_collapse(name):
    history, num_classes = HEALTHY[name]
    assert not any(collapse.detect_collapse(history[:end], num_classes) for end in range(1, len(history) + 1))


def test_the_largest_change_is_relative_to_the_norm():
    before = {"a": np.array([3.0, 4.0]), "b": np.array([0.3, 0.4]), "zero": np.zeros(2)}
    after = {"a": np.array([3.0, 3.0]), "b": np.array([0.3, 0.2]), "zero": np.ones(2)}
    assert collapse.largest_relative_change(before, after) == {"path": "b", "fraction": pytest.approx(0.4)}
    assert collapse.largest_relative_change({}, {}) == {}


def test_the_warning_names_the_cause_and_what_helps():
    largest_change = {"path": "conv/kernel", "fraction": 0.34, "updates": 15}
    text = collapse.collapse_warning("it fell", 2, TrainConfig(optimizer="adamw", learning_rate=1e-3), largest_change)
    assert text.startswith(
        "Training collapsed in epoch 2: it fell. adamw at rate 0.001 moved conv/kernel by 34 % of its norm in the first 15"
    )
    assert "`learning_rate`" in text and "layer_decay" in text
    assert "moved" not in collapse.collapse_warning("it fell", 2, TrainConfig(), {})


def test_the_warning_is_printed_once_per_phase_and_recorded(tmp_path, capsys, monkeypatch):
    """The collapse in epochs 2 and 3 is simulated, the largest change is measured."""
    monkeypatch.setattr(collapse, "detect_collapse", lambda history, num_classes: "it fell" if len(history) > 1 else "")
    trainer = make_trainer(optimizer="adamw", learning_rate=1e-3)
    kernel = trainer.model.get_layer("stem_conv").kernel
    before = np.linalg.norm(kernel.numpy())
    progress = trainer.fit(make_batches(), tmp_path, verbose=2)
    warning = progress.phases[0]["collapse"]
    assert capsys.readouterr().out.count("Training collapsed") == 1 and warning.startswith("Training collapsed in epoch 2: it fell.")
    assert "_conv/kernel by" in warning and "in the first 3 updates" in warning and before > 0
    assert progress.collapse == {"largest_change": {}, "warning": ""}


class Killed(Exception):
    pass


def test_a_resumed_run_keeps_the_warning_and_does_not_print_it_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(SavePolicy, "is_due", True)
    monkeypatch.setattr(collapse, "detect_collapse", lambda history, num_classes: "it fell" if len(history) > 1 else "")

    def kill(progress):
        if progress.epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        make_trainer().fit(make_batches(), tmp_path, on_epoch=kill, verbose=2)
    assert capsys.readouterr().out.count("Training collapsed in epoch 2") == 1
    progress = make_trainer().fit(make_batches(), tmp_path, verbose=2)
    warning = progress.phases[0]["collapse"]
    assert warning.startswith("Training collapsed in epoch 2: it fell.") and "in the first 3 updates" in warning
    assert "collapsed" not in capsys.readouterr().out and len(progress.history) == 3


def test_healthy_training_records_no_warning(tmp_path, capsys):
    progress = make_trainer().fit(make_batches(), tmp_path, verbose=2)
    assert progress.phases[0]["collapse"] == "" and "collapsed" not in capsys.readouterr().out
