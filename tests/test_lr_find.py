"""The learning-rate range test: on a loss with a known curve, and through the command line on the embedded data."""

import math

import numpy as np
import pytest
from plain_config import PLAIN

from tl_keras.cli import verbs
from tl_keras.errors import TrainingError
from tl_keras.runs import lr_find
from tl_keras.runs.experiment import EMBEDDED_SETTINGS
from tl_keras.runs.resolve import resolve


def curve(loss) -> lr_find.LRCurve:
    return lr_find.range_test(lambda learning_rate, batch: loss(math.log10(learning_rate)), range(1000))


def valley(exponent: float) -> float:
    """A loss that is flat to 1e-4, falls to 1e-2, is flat to 1e-1, and diverges."""
    return 2.3 - float(np.clip(exponent + 4, 0, 2)) + max(0.0, 10 * (exponent + 1))


def test_learning_rates_are_in_geometric_progression():
    learning_rates = lr_find.learning_rates()
    assert len(learning_rates) == 100 and learning_rates[0] == pytest.approx(1e-7) and learning_rates[-1] == pytest.approx(10)
    assert np.ptp(np.diff(np.log(learning_rates))) < 1e-9


def test_the_suggestions_are_in_the_range_where_the_loss_falls():
    """The running average lags by ten steps, 0.8 decades."""
    found = curve(valley)
    assert 1e-4 < found.steep() < 10**-1.2
    assert 1e-2 < 10 * found.minimum() < 10**-0.8
    assert len(found.learning_rates) == len(found.losses) == len(found.smoothed) < 100


def test_it_stops_when_the_smoothed_loss_is_four_times_its_minimum():
    found = curve(valley)
    assert found.smoothed[-1] <= 4 * min(found.smoothed[10:])
    following = lr_find.learning_rates()[len(found.learning_rates)]
    smoothed = sum(0.9**age * valley(math.log10(rate)) for age, rate in enumerate([following, *found.learning_rates[::-1]]))
    assert smoothed * 0.1 / (1 - 0.9 ** (len(found.learning_rates) + 1)) > 4 * min(found.smoothed[10:])


def test_it_stops_at_a_loss_that_is_not_finite():
    found = curve(lambda exponent: 1.0 - 0.1 * exponent if exponent < -2 else math.nan)
    assert all(map(math.isfinite, found.smoothed)) and found.learning_rates[-1] < 1e-2
    with pytest.raises(TrainingError, match="lowest of the test"):
        curve(lambda exponent: math.nan)


@pytest.mark.parametrize("strategy", ["full", "head"])
def test_the_verb_leaves_a_plot_and_a_table(strategy, tmp_path, capsys, monkeypatch):
    """It reads training images only."""
    monkeypatch.setattr("tl_keras.runs.lr_find.NUM_STEPS", 30)
    monkeypatch.setattr("tl_keras.data.pipeline.evaluation_batches", lambda *arguments, **settings: None)
    flags = [f"--{name}={value}" for name, value in EMBEDDED_SETTINGS.items() if value != ""]
    output = tmp_path / "lr"
    assert verbs.main(["lr_find", *flags, f"--strategy={strategy}", "--precision=float32", f"--output={output}"]) == 0
    assert {path.name for path in output.iterdir()} == {"lr_find.csv", "lr_find.png"} and list(tmp_path.iterdir()) == [output]
    rows = np.genfromtxt(output / "lr_find.csv", delimiter=",", names=True)
    assert rows.dtype.names == ("learning_rate", "loss", "smoothed") and rows["smoothed"].min() < rows["smoothed"][5]
    assert capsys.readouterr().out.count("--learning_rate=") == 2


def test_every_test_starts_from_the_same_weights():
    config = PLAIN.replace(**{**EMBEDDED_SETTINGS, "strategy": "head", "precision": "float32", "batch_size": 32})
    losses = [lr_find.run_lr_find(resolve(config)).losses[0] for _ in range(2)]
    assert losses[0] == losses[1] > 1.0


def test_an_output_directory_is_required(capsys):
    assert verbs.main(["lr_find", "--dataset=digits"]) == 2
    assert "--output" in capsys.readouterr().err
