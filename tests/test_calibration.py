"""Temperature scaling: its fit, its place in the head, and the figures before and after in a result."""

import json

import keras
import numpy as np
import pytest
import report_builder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, special

from tl_keras import report
from tl_keras.backbones import build_classifier
from tl_keras.report import error_analysis, sections
from tl_keras.results.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, PRIOR_STD, calibrated_metrics, fit_temperature
from tl_keras.results.metrics import log_softmax
from tl_keras.results.predictions import read_predictions
from tl_keras.runs.run import run
from tl_keras.runs.temperature import fold_temperature


def make_calibrated(num=4000, classes=6, seed=0):
    """Return logits whose softmax is the distribution of the labels: their temperature is 1."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(num, classes))
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def cross_entropy(logits, labels, temperature):
    return -log_softmax(logits / temperature)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_the_temperature_that_made_the_logits_is_found(temperature):
    logits, labels = make_calibrated()
    found = fit_temperature((logits * temperature).astype(np.float32), labels)
    assert found == pytest.approx(temperature, rel=0.05)
    best = optimize.minimize_scalar(lambda log: cross_entropy(logits * temperature, labels, np.exp(log)), bounds=(-3, 3), method="bounded")
    assert found == pytest.approx(np.exp(best.x), rel=0.02), "among 4,000 images the additional terms make no difference"


def test_extreme_logits_have_bounded_temperatures():
    one_hot, labels = 1e6 * np.eye(5)[np.arange(1000) % 5], np.arange(1000) % 5
    assert fit_temperature(one_hot, (labels + 1) % 5) == pytest.approx(MAX_TEMPERATURE)
    assert fit_temperature(one_hot / 1e8, labels) == pytest.approx(MIN_TEMPERATURE)
    assert fit_temperature(np.zeros((3, 4)), np.zeros(3, int)) == pytest.approx(1), "logits that say nothing leave it at 1"


@pytest.mark.parametrize("gap", [2, 7, 30])
@pytest.mark.parametrize("num", [5, 50, 500])
def test_without_an_error_confidences_stay_below_those_of_one_more_image(num, gap):
    """A fraction n / (n + 1) is right, of n right predictions and one that is wrong. Cross-entropy alone would go to 1."""
    logits = gap * np.eye(2, dtype=np.float32)[np.arange(num) % 2]
    temperature = fit_temperature(logits, np.arange(num) % 2)
    confidence, before, of_one_more = special.expit(gap / temperature), special.expit(gap), num / (num + 1)
    assert min(before, of_one_more) <= confidence <= max(before, of_one_more)


@pytest.mark.parametrize("logits", [np.zeros((0, 3)), np.array([[np.nan, 0.0]]), np.array([[np.inf, 0.0]])])
def test_impossible_logits_are_refused(logits):
    with pytest.raises(ValueError, match="finite logits of one example or more"):
        fit_temperature(logits, np.zeros(len(logits), int))


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(2, 6)), elements=st.floats(-60, 60, width=32)),
    st.integers(0, 2**31),
)
def test_a_fit_is_bounded_and_the_best_nearby(logits, seed):
    labels = np.random.default_rng(seed).integers(0, logits.shape[1], len(logits))
    temperature = fit_temperature(logits, labels)
    assert MIN_TEMPERATURE * (1 - 1e-12) <= temperature <= MAX_TEMPERATURE * (1 + 1e-12)
    assert temperature == fit_temperature(logits, labels)
    wrong = np.where(np.arange(logits.shape[1]) == labels[:, None], -np.inf, logits).argmax(axis=1)

    def objective(value):
        own, other = (cross_entropy(logits.astype(np.float64), classes, value) for classes in (labels, wrong))
        return own * len(labels) + other + (np.log(value) / PRIOR_STD) ** 2 / 2

    nearby = np.clip([temperature * 0.99, temperature * 1.01], MIN_TEMPERATURE, MAX_TEMPERATURE)
    assert objective(temperature) <= min(map(objective, nearby)) + 1e-9
    assert 0 <= calibrated_metrics(logits, labels, temperature)["ece"] <= 1


@pytest.fixture(scope="module", params=["linear", "one_logit"])
def model(request):
    keras.utils.set_random_seed(0)
    return build_classifier("tiny", 2, image_size=8, head=request.param)


@settings(deadline=None, max_examples=20)
@given(st.floats(MIN_TEMPERATURE, MAX_TEMPERATURE), st.integers(0, 2**31))
def test_a_folded_head_divides_the_logits_and_changes_no_label(model, temperature, seed):
    images = np.random.default_rng(seed).uniform(0, 255, (16, 8, 8, 3)).astype(np.float32)
    logits, folded = (np.asarray(part(images, training=False)) for part in (model, fold_temperature(model, temperature)))
    np.testing.assert_allclose(folded, logits / np.float32(temperature), rtol=1e-4, atol=1e-6)
    clear = abs(logits[:, 0] - logits[:, 1]) > 1e-5  # closer ones are equal to rounding
    np.testing.assert_array_equal(folded.argmax(axis=1)[clear], logits.argmax(axis=1)[clear])


def test_folding_leaves_the_model_and_survives_saving(model, tmp_path):
    before, images = model.get_weights(), np.full((2, 8, 8, 3), 99, np.float32)
    folded = fold_temperature(model, 3.0)
    folded.save(tmp_path / "folded.keras")
    loaded = keras.models.load_model(tmp_path / "folded.keras", compile=False)
    np.testing.assert_array_equal(loaded(images, training=False), folded(images, training=False))
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_has_its_temperature_and_the_figures_of_test(finished_run):
    result = json.loads((finished_run.directory / "result.json").read_text())
    logits, labels = read_predictions(finished_run.directory)
    temperature, test = result["temperature"], result["metrics"]["test"]
    assert MIN_TEMPERATURE < temperature < MAX_TEMPERATURE and temperature != 1
    assert test["calibrated"] == calibrated_metrics(logits, labels, temperature)
    probabilities = special.softmax(logits.astype(np.float64) / temperature, axis=1)
    assert test["calibrated"]["loss"] == pytest.approx(-np.log(probabilities[np.arange(len(labels)), labels]).mean())
    model = keras.models.load_model(finished_run.directory / "model.keras", compile=False)
    assert (model.get_layer("logits").get_weights()[0] != fold_temperature(model, temperature).get_layer("logits").get_weights()[0]).any()


def validation_logits(directory, config):
    """Return logits and labels of the validation split from the saved model and the recorded split."""
    from tl_keras import data
    from tl_keras.data import pipeline
    from tl_keras.data.geometry import Geometry
    from tl_keras.runs.resolve import load_source

    examples = data.make_splits(load_source(config.data), config.data, config.seed).validation
    model = keras.models.load_model(directory / "model.keras", compile=False)
    batches = pipeline.evaluation_batches(examples, Geometry(model.input_shape[1], 1.0), batch_size=64)
    return np.concatenate([model(images, training=False) for images, _, _ in batches]), examples.labels


SETTINGS = {
    "best epoch": {"selection": "best", "learning_rate": 0.3, "epochs": 4},
    "cached features": {"strategy": "head", "cache": "memory"},
    "grid": {"strategy": "head", "grid": "learning_rate=0.01|0.1", "cache": "memory"},
    "adapters": {"strategy": "lora:targets=all,rank=2"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_temperature_is_that_of_the_tested_model_on_validation(name, tiny_config, tmp_path):
    config = tiny_config.replace(**SETTINGS[name])
    result = run(config, tmp_path / "run")
    assert result["temperature"] == pytest.approx(fit_temperature(*validation_logits(tmp_path / "run", config)), rel=1e-3)


def test_without_validation_there_is_none(tiny_config, tmp_path):
    result = run(tiny_config.replace(validation_fraction=0.0, epochs=1), tmp_path / "run")
    assert result["temperature"] is None and "calibrated" not in result["metrics"]["test"]


@pytest.fixture
def experiment(tmp_path, low_resolution):
    """Two rows of two seeds, of which the first has temperatures."""
    rows = [report_builder.make_row("pre-trained", None, label) for label in ("with", "without")]
    report_builder.make_experiment(tmp_path, rows, seeds=(0, 1), num_test=300, accuracies=(0.9, 0.8))
    for seed, temperature in enumerate((2.0, 4.0)):
        path = tmp_path / f"run0-seed{seed}" / "result.json"
        result = json.loads(path.read_text())
        result["temperature"] = temperature
        result["metrics"]["test"]["calibrated"] = {"temperature": temperature, "ece": 0.01 + seed / 50, "loss": 0.25 + seed / 2}
        path.write_text(json.dumps(result))
    return report.load_experiment(tmp_path / report.EXPERIMENT_FILE)


def test_the_report_has_calibration_before_and_after(experiment, tmp_path):
    heading, table, explanation = sections.calibration_blocks(experiment, 2)
    runs = experiment.rows[0].runs
    before = [100 * np.mean([run.test["calibration"]["ece"] for run in runs]), np.mean([run.test["loss"] for run in runs])]
    assert heading.text == "Calibration" and len(table.rows) == 1, "a row without temperature has no line"
    assert table.rows[0] == ["with", "5,000", "3.00", f"{before[0]:.2f}", "2.00", f"{before[1]:.4f}", "0.5000"]
    assert "no label" in explanation.text
    report.write_report(experiment, tmp_path)
    assert "## Calibration" in (tmp_path / "report.md").read_text()


def test_the_reliability_diagram_shows_both(experiment, tmp_path):
    scaled = error_analysis._scaled_bins(experiment.rows[0])
    assert [sum(bins["counts"]) for bins in scaled] == [300, 300] and not error_analysis._scaled_bins(experiment.rows[1])
    logits, labels = read_predictions(experiment.rows[0].runs[1].path)
    assert scaled[1]["ece"] == calibrated_metrics(logits, labels, 4.0)["ece"]
    assert error_analysis.plot_reliability(experiment, tmp_path / "both.png").stat().st_size > 1000
