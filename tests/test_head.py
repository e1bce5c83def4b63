"""Heads: one logit for two classes against PyTorch's binary cross-entropy, and dropout before the logits."""

import keras
import numpy as np
import pytest
from plain_config import PLAIN

from tl_keras.backbones import HEAD, LOGITS, build_classifier, feature_extractor, macs, stage_layers
from tl_keras.errors import ConfigError
from tl_keras.exports import export_run
from tl_keras.results.predictions import read_predictions
from tl_keras.results.run_directory import read_history
from tl_keras.runs import setup
from tl_keras.runs.evaluate import evaluate_run
from tl_keras.runs.explain import explain
from tl_keras.runs.resolve import check_available, resolve
from tl_keras.runs.run import run
from tl_keras.strategies import grid, lora

PARITY = PLAIN.replace(
    dataset="digits", label="parity", backbone="tiny", weights="none", head="one_logit", strategy="head", epochs=2, batch_size=32,
    learning_rate=0.1, limit_train=96, limit_test=64, validation_fraction=0.05, precision="float32", cache="off",
)  # fmt: skip


def one_logit(**settings):
    return build_classifier("tiny", 2, head="one_logit", **settings)


def pixels(num=5, side=16):
    return np.random.default_rng(0).uniform(0, 255, (num, side, side, 3)).astype("float32")


def bce_with_logits(z, y):
    """Return torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none")."""
    return np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_the_logits_are_zero_and_that_of_the_dense_layer():
    model, images = one_logit(), pixels()
    kernel, bias = model.get_layer(LOGITS).get_weights()
    assert kernel.shape[1] == 1 and bias.shape == (1,) and model.output.shape == (None, 2)
    logits = np.asarray(model(images))
    np.testing.assert_array_equal(logits[:, 0], 0)
    z = np.asarray(feature_extractor(model)(images)) @ kernel + bias
    np.testing.assert_allclose(logits[:, 1:], z, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(keras.ops.softmax(logits))[:, 1:], sigmoid(z), rtol=1e-5)


def test_its_initial_weights_are_those_of_torchs_linear_layer():
    """Uniform in +-1/sqrt(features), for one unit as for several."""
    keras.utils.set_random_seed(0)
    draws = [np.concatenate([part.ravel() for part in one_logit().get_layer(LOGITS).get_weights()]) for _ in range(20)]
    limit = 1 / np.sqrt(len(draws[0]) - 1)
    assert 0.95 * limit < np.abs(draws).max() <= limit and np.std(draws) == pytest.approx(limit / np.sqrt(3), rel=0.05)


def test_it_is_one_stage_with_the_parameters_and_the_cost_of_one_unit():
    model, linear = one_logit(), build_classifier("tiny", 2)
    stages = stage_layers(model, "tiny")
    assert sorted(layer.name for part in stages.values() for layer in part) == sorted(layer.name for layer in model.layers)
    assert [layer.name for layer in stages[HEAD] if layer.weights] == [LOGITS]
    width = model.get_layer(LOGITS).kernel.shape[0]
    assert linear.count_params() - model.count_params() == width + 1
    costs = [macs.count_macs(network, "tiny")[HEAD] for network in (model, linear)]
    assert [cost.macs for cost in costs] == [width, 2 * width] and costs[0].shape == (2,)


def test_the_logits_are_float32_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")  # restored by conftest.py
    model = one_logit(head_dropout=0.5)
    assert keras.backend.standardize_dtype(model(pixels()).dtype) == "float32"
    assert model.get_layer(LOGITS).compute_dtype == "float32" and model.get_layer("head_dropout").compute_dtype == "bfloat16"


def test_training_equals_torchs_binary_cross_entropy(tmp_path):
    """Three updates of SGD with Nesterov momentum and L2: the mean loss, the accuracy and the weights."""
    config = PARITY.replace(epochs=1, momentum=0.9, nesterov=True, l2=0.01, selection="last")
    prepared = setup.build_setup(resolve(config))
    extractor, head = prepared.with_resize(feature_extractor(prepared.model)), prepared.model.get_layer(LOGITS)
    weights = [value.astype(np.float64) for value in head.get_weights()]
    moments, losses, correct = [np.zeros_like(value) for value in weights], [], []
    for images, targets in prepared.batches.training(0):
        x, y = np.asarray(extractor(images, training=False), np.float64), np.asarray(targets, np.float64)[:, 1:]
        z = x @ weights[0] + weights[1]
        losses += bce_with_logits(z, y).ravel().tolist()
        correct += ((z > 0) == y).ravel().tolist()
        error = (sigmoid(z) - y) / len(y)
        for index, gradient in enumerate((x.T @ error, error.sum(axis=0))):
            gradient = gradient + config.train.l2 * weights[index]
            moments[index] = 0.9 * moments[index] + gradient
            weights[index] = weights[index] - config.train.learning_rate * (gradient + 0.9 * moments[index])
    (row,) = setup.make_trainer(prepared).fit(prepared.batches, tmp_path).history
    assert len(losses) == 96 and row["loss"] == pytest.approx(np.mean(losses), rel=1e-5) and row["accuracy"] == np.mean(correct)
    for mine, expected in zip(head.get_weights(), weights, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def parity_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "parity"
    return directory, run(PARITY, directory)


def test_metrics_need_no_second_path(parity_run):
    directory, result = parity_run
    logits, labels = read_predictions(directory)
    z = logits[:, 1].astype(np.float64)
    np.testing.assert_array_equal(logits[:, 0], 0)
    test = result["metrics"]["test"]
    assert test["accuracy"] == np.mean((z > 0) == labels) and test["loss"] == pytest.approx(bce_with_logits(z, labels).mean())
    assert test["calibration"]["ece"] <= 1 and len(test["recall"]) == 2
    assert evaluate_run(directory, {}).metrics["loss"] == pytest.approx(test["loss"], rel=1e-5)


def test_cached_features_train_the_same(parity_run, tmp_path):
    result = run(PARITY.replace(cache="memory"), tmp_path / "run")
    assert result["phases"][0]["cache"]["split_point"] == "features"
    assert result["phases"][0]["trainable_parameters"] == parity_run[1]["phases"][0]["trainable_parameters"]
    losses = [[row["loss"] for row in read_history(path)] for path in (tmp_path / "run", parity_run[0])]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_grid_of_one_logit_heads_equals_single_runs(tmp_path):
    config = PARITY.replace(optimizer="adam", clip_norm=0.5, cache="memory", grid="learning_rate=1e-3|3e-2,l2=0|1e-2")
    result = run(config, tmp_path / "grid")
    best = result["phases"][0]["grid"]["best_head"]
    alone = run(config.replace(grid="", learning_rate=best["learning_rate"], l2=best["l2"]), tmp_path / "alone")
    assert result["phases"][0]["trainable_parameters"] == alone["phases"][0]["trainable_parameters"]
    assert result["metrics"]["test"]["accuracy"] == alone["metrics"]["test"]["accuracy"]
    assert result["metrics"]["test"]["loss"] == pytest.approx(alone["metrics"]["test"]["loss"], rel=1e-4)


@pytest.mark.parametrize("format", ["keras", "saved_model"])
def test_it_is_exported_without_this_package(parity_run, tmp_path, format):
    record = export_run(parity_run[0], format, tmp_path / "exported")[format]
    assert record["class_names"] == ["even", "odd"] and record["max_difference"] < 1e-4


@pytest.mark.parametrize("settings", [{}, {"head_dropout": 0.5}], ids=["plain", "dropout"])
def test_adapters_are_added_and_merged(settings):
    model, images = one_logit(**settings), pixels()
    names = lora.match_layers(stage_layers(model, "tiny"), ["all"])
    adapted = lora.add_lora(model, names, rank=2, alpha=2.0, seed=0)
    np.testing.assert_array_equal(adapted(images), model(images))
    for layer in lora.lora_layers(adapted):
        layer.factors[1].assign(np.full(layer.factors[1].shape, 0.1, np.float32))
    merged = lora.merge(adapted)
    assert not np.allclose(adapted(images), model(images))
    np.testing.assert_allclose(merged(images), adapted(images), rtol=1e-4, atol=1e-5)


def test_other_numbers_of_classes_are_refused_before_a_model_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "build_model", lambda *arguments: pytest.fail("a model was built"))
    for config, count in ((PARITY.replace(label="label"), 10), (PARITY.replace(extra_classes=1), 3)):
        message = f"head=one_logit`: one logit tells two classes apart, and there are {count}"
        with pytest.raises(ConfigError, match=message):
            check_available(resolve(config))
        with pytest.raises(ConfigError, match=message):
            run(config, tmp_path / str(count))


@pytest.mark.parametrize("settings, classes", [({}, "2 classes"), ({"head": "linear", "extra_classes": 5}, "15 classes")])
def test_without_data_an_explanation_assumes_a_number_of_classes_that_fits(tmp_path, settings, classes):
    config = PARITY.replace(**{"dataset": "oxford_iiit_pet", "label": "species", "data_dir": str(tmp_path), **settings})
    assert f"oxford_iiit_pet is not available: {classes}" in explain(config)


def test_dropout_scales_or_drops_the_features_in_training_only():
    layer = build_classifier("tiny", 4, head_dropout=0.25).get_layer("head_dropout")
    features = np.random.default_rng(0).uniform(1, 2, (500, layer.input.shape[1])).astype("float32")
    dropped = np.asarray(layer(features, training=True))
    zero, scaled = dropped == 0, np.isclose(dropped, features / 0.75, rtol=1e-5)
    assert (zero | scaled).all() and zero.mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(layer(features, training=False), features)


def test_the_dropout_of_a_head_is_drawn_anew_behind_cached_features(tmp_path):
    """The cache splits before the dropout, at the last stage, so that every epoch drops other features."""
    config = PARITY.replace(head="linear", head_dropout=0.5, cache="memory")
    result, whole = run(config, tmp_path / "cached"), run(config.replace(cache="off"), tmp_path / "whole")
    last_stage = list(stage_layers(build_classifier("tiny", 2), "tiny"))[-2]
    assert result["phases"][0]["cache"]["split_point"] == last_stage
    assert result["metrics"]["test"]["loss"] == pytest.approx(whole["metrics"]["test"]["loss"], rel=1e-4)
    assert evaluate_run(tmp_path / "cached", {}).metrics["loss"] == pytest.approx(result["metrics"]["test"]["loss"], rel=1e-5)


def test_a_grid_refuses_dropout_of_the_head_before_anything_is_loaded():
    with pytest.raises(ConfigError, match="`grid=l2=0|1`: .*it needs `head_dropout=0`"):
        resolve(PARITY.replace(head_dropout=0.5, grid="l2=0|1"))
    assert len(grid.parse("l2=0|1", PARITY)) == 2
