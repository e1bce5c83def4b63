"""Collapse detection: its limits, and the trainer's warning and record. The experiment on the collapse: its rows, probe and page."""

import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from plain_config import PLAIN
from test_freezing import tiny_classifier
from test_trainer import make_batches, make_trainer

from experiments import _collapse_probe as probe
from experiments import _collapse_report as page
from experiments.collapse import EXPERIMENT, PROBE_FILE
from tl_keras.config import TrainConfig
from tl_keras.results.run_directory import read_history
from tl_keras.runs.experiment import ExperimentOptions, run_experiment
from tl_keras.runs.resolve import resolve
from tl_keras.runs.run import run
from tl_keras.strategies import build_phases
from tl_keras.training import collapse
from tl_keras.training.checkpoint import SavePolicy
from tl_keras.utils.files import read_json


def rows(losses, val_losses=None, val_accuracies=None) -> list[dict]:
    history = [{"epoch": index + 1, "loss": loss} for index, loss in enumerate(losses)]
    for row, val_loss, val_accuracy in zip(history, val_losses or (), val_accuracies or (), strict=False):
        row |= {"val_loss": val_loss, "val_accuracy": val_accuracy}
    return history


# Name -> history, classes, words of the description. The first is the row of MobileNet of `experiments/collapse.py`, fixed from epoch 2.
COLLAPSED = {
    "fixed statistics": (rows([1.156, 2.470], [1.116, 2.320], [0.648, 0.101]), 10, "fell from 64.8 to 10.1 %"),
    "first epoch": (rows([1.23], [4.69], [0.467]), 37, "4.69, that of guessing 3.61"),
    "validation loss": (rows([2.2, 0.295, 0.766], [0.366, 1.881, 4.801], [0.9, 0.733, 0.617]), 37, "4.80"),
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
    assert "`learning_rate`" in text and "fixed statistics" not in text
    text = collapse.collapse_warning("it fell", 2, TrainConfig(), {}, fixed_statistics=True)
    assert "moved" not in text and "fixed statistics" in text and "`eval_mode_after=-1`" in text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [False]),
        ({"eval_mode_after": 1}, [False, True]),
        ({"batch_norm": "inference"}, [True]),
        ({"strategy": "last:1", "frozen_mode": "inference"}, [False]),
        ({"strategy": "head", "eval_mode_after": 0}, [False]),
    ],
    ids=str,
)
def test_only_trained_stages_count_as_having_fixed_statistics(settings, expected):
    _, stages = tiny_classifier()
    phases = build_phases(("stem", "body"), replace(PLAIN.train, epochs=3, **settings))
    assert [collapse.has_fixed_statistics(stages, phase) for phase in phases] == expected


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
    assert progress.collapse == collapse.NO_COLLAPSE


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


def test_a_collapse_after_the_switch_to_evaluation_mode_belongs_to_the_second_phase(tmp_path, monkeypatch):
    """`eval_mode_after` splits the phase: the history that a collapse is detected in goes on, and the changes are those of the part."""
    seen = []
    monkeypatch.setattr(
        collapse, "detect_collapse", lambda history, num_classes: seen.append(len(history)) or "it fell" * (len(history) == 2)
    )
    config = {"optimizer": "adamw", "learning_rate": 1e-3, "eval_mode_after": 1}
    trainer = make_trainer(phases=build_phases(("stem", "body"), replace(PLAIN.train, epochs=3, **config)), **config)
    first, second = trainer.fit(make_batches(), tmp_path).phases
    assert (first["eval_mode"], second["eval_mode"], seen) == (False, True, [1, 2])
    assert first["collapse"] == "" and second["collapse"].startswith("Training collapsed in epoch 2: it fell.")
    assert "in the first 3 updates of the phase" in second["collapse"] and "fixed statistics" in second["collapse"]


def test_rows_of_the_experiment():
    """AdamW at two learning rates and SGD in three modes, then the checks; batches and updates as in source report D."""
    rows = EXPERIMENT.configure({})
    modes = {"batch statistics": -1, "fixed from epoch 2": 1, "fixed from the start": 0}
    optimizers = {"AdamW": ("adamw", 1e-3), "AdamW 0.003": ("adamw", 3e-3), "SGD": ("sgd", 1e-3)}
    expected = {f"{name} {mode}": (*optimizer, after) for name, optimizer in optimizers.items() for mode, after in modes.items()}
    configs = {row.label: row.config.train for row in rows[:9]}
    assert {label: (train.optimizer, train.learning_rate, train.eval_mode_after) for label, train in configs.items()} == expected
    assert all(row.label.startswith("check: ") for row in rows[9:]) and len(rows) == 14
    assert {row.config.train.batch_norm_momentum for row in rows} == {0.9}
    assert {math.ceil(row.config.data.limit_train / row.config.train.batch_size) for row in rows} == {92}
    assert round(50_000 * rows[0].config.data.validation_fraction) == 736
    trained = {tuple(stage for stage in resolve(row.config).phases[-1].trainable) for row in rows[:9]}
    assert trained == {("block6", "block7", "top", "head")}


@pytest.fixture(scope="module")
def probed_run(tmp_path_factory, tiny_config):
    """Return the configuration, the directory and the result of a run with the probe, on running statistics from epoch 2 on."""
    config, directory = tiny_config.replace(strategy="last:1", eval_mode_after=1), tmp_path_factory.mktemp("probed")
    return config, directory, run(config, directory, callbacks=EXPERIMENT.callbacks(config, directory))


def test_the_probe_scores_running_statistics_as_the_run_does_and_keeps_the_loss_of_each_update(probed_run):
    config, directory, result = probed_run
    first, *records = read_json(directory / PROBE_FILE)
    assert first["epoch"] == 0 and [record["epoch"] for record in records] == [1, 2, 3]
    num_train, batch_size = result["data"]["num_train"], config.train.batch_size
    sizes = np.diff([*range(0, num_train, batch_size), num_train])
    assert len(sizes) > 2 and sizes[-1] < batch_size
    for record, row in zip(records, read_history(directory), strict=True):
        assert record["running"]["loss"] == pytest.approx(row["val_loss"], abs=1e-5)
        assert record["running"]["accuracy"] == pytest.approx(row["val_accuracy"])
        assert abs(record["batch"]["loss"] - row["val_loss"]) > 1e-3
        assert np.average(record["losses"], weights=sizes) == pytest.approx(row["loss"], abs=1e-5)
        assert 0 < record["kernel_change"] < 1


def test_the_probe_changes_nothing(probed_run, tmp_path):
    config, _, result = probed_run
    assert run(config, tmp_path)["metrics"] == result["metrics"]


@pytest.fixture
def observed():
    """Return a model, its BatchNorm layers, a function that observes them on statistics of the batch or on running ones, and images."""
    keras.utils.set_random_seed(0)
    model, _ = tiny_classifier()
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    extractor = keras.Model(model.input, [model.output, *(norm.input for norm in norms)])
    images = [np.random.default_rng(0).uniform(0, 255, (16, 8, 8, 3)).astype("float32")]

    def observe(on_batch_statistics: bool) -> probe.Observation:
        with probe.batch_norm_mode(model.layers, norms if on_batch_statistics else ()):
            return probe.observe(probe.make_observer(extractor), images)

    return model, norms, observe


def test_both_modes_agree_when_the_running_statistics_are_those_of_the_batch(observed):
    """The distance is 0 then. Twice the kernel before a BatchNorm has twice the mean and four times the variance."""
    model, norms, observe = observed
    for norm in norms:
        norm.epsilon = 1e-7
    seen = observe(True)
    assert min(probe.distances(norms, seen).values()) > 0.1
    for norm, mean, variance in zip(norms, seen.means, seen.variances, strict=True):
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance)
    for on_batch_statistics in (True, False):
        np.testing.assert_allclose(observe(on_batch_statistics).logits, observe(True).logits, atol=1e-5)
        assert max(probe.distances(norms, observe(on_batch_statistics)).values()) < 1e-4
    kernel = model.get_layer("stem_conv").kernel
    kernel.assign(2 * kernel)
    on_batch, on_running = (probe.distances(norms, observe(mode)) for mode in (True, False))
    assert on_batch["variance_distance"] == pytest.approx(math.log(4) / 2, abs=1e-3)  # the next layer does not see the scale
    assert on_running["variance_distance"] > 1.5 * on_batch["variance_distance"]  # it does


def test_observing_restores_modes_and_running_statistics(observed):
    model, norms, observe = observed
    norms[0].trainable = False
    before = [variable.numpy() for variable in model.variables]
    observe(True)
    assert [norm.trainable for norm in norms] == [False, True] and model.get_layer("stem_out").rate == 0.5
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_kernel_changes_are_medians_of_relative_norms():
    kernels = [keras.Variable([3.0, 4.0]), keras.Variable([0.3, 0.6])]
    before = [np.array([3.0, 3.0]), np.array([0.3, 0.6])]
    changes = probe.kernel_changes(kernels, before)
    assert changes == {"kernel_change": pytest.approx(0.5 / math.sqrt(18)), "kernel_growth": pytest.approx((1 + 5 / math.sqrt(18)) / 2)}


def probe_records(num_epochs: int, loss: float) -> list[dict]:
    scores = {mode: {"loss": loss, "accuracy": 0.25, "mean_distance": 0.5, "variance_distance": 1.5} for mode in ("running", "batch")}
    epochs = [
        {"epoch": epoch, "losses": [loss + epoch] * 30, "kernel_change": 0.1, "kernel_growth": 1.0} for epoch in range(1, num_epochs + 1)
    ]
    return [{"epoch": 0, **scores}, *(scores | epoch for epoch in epochs)]


def test_cells_of_the_page_are_means_over_seeds_with_intervals_and_empty_for_short_runs():
    probes = {"long": [probe_records(2, 1.0), probe_records(2, 3.0)], "one seed": [probe_records(2, 1.0)], "short": [probe_records(1, 1.0)]}
    table = page._table(page.TABLES["Training loss"], probes)
    cells = {row[0]: dict(zip(table.headings, row, strict=True)) for row in table.rows}
    assert cells["long"]["epoch 2: update 1"] == "4.00 ± 12.71" and cells["one seed"]["epoch 2"] == "3.00"
    assert cells["short"]["epoch 1"] == "2.00" and cells["short"]["epoch 2"] == page.EMPTY_CELL


def test_the_experiment_writes_its_page_and_plot(tmp_path, tiny_config, low_resolution):
    settings = {name: getattr(tiny_config.data, name) for name in ("dataset", "fraction", "limit_test")}
    overrides = settings | {"validation_fraction": 0.2, "limit_train": 64, "backbone": "tiny", "weights": "none", "strategy": "last:1"}
    label = "AdamW fixed from epoch 2"
    options = ExperimentOptions(
        tmp_path,
        {**overrides, "image_size": 28, "epochs": 2, "schedule": "constant"},
        labels=[label],
        seeds=(0, 1),
        log=lambda message: None,
    )
    written = EXPERIMENT.write_files(run_experiment(EXPERIMENT, options))
    assert [path.name for path in written] == [page.PAGE, page.PLOT] and all(path.stat().st_size > 1000 for path in written)
    text = written[0].read_text()
    assert text.count(f"| {label} | ") == len(page.TABLES) and text.count("±") > 20
