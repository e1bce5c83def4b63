"""The last batch of an epoch: merged into the one before if it is too small for BatchNorm, with the same examples in the same order."""

import contextlib
import io

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_config import PLAIN

from tl_keras.backbones import stage_layers
from tl_keras.data.sampling import batch_sizes
from tl_keras.results import run_directory
from tl_keras.runs.explain import explain
from tl_keras.runs.resolve import resolve
from tl_keras.runs.run import run
from tl_keras.runs.setup import build_model
from tl_keras.training.last_batch import describe_merged, min_last_batch
from tl_keras.training.train_step import enumerate_batches

# Maps of 2 x 2 at the last BatchNorm: a last batch needs 16 images. An epoch has 3 batches of 16 and 2 images.
MERGED = PLAIN.replace(
    dataset="digits", backbone="tiny", weights="none", image_size=8, limit_train=50, limit_test=40, validation_fraction=0.05, batch_size=16,
    epochs=4, learning_rate=0.02, precision="float32", cache="off", save_model=False,
)  # fmt: skip
NOTE = (
    "the last 2 images of each epoch are trained in the batch before, of 18 instead of 16 images: alone, BatchNorm would have fewer than "
    "64 values of a channel for its statistics (`last_batch=merge`)"
)


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 4), st.integers(1, 20))
def test_sizes_add_up_and_only_the_last_differs(groups, per_replica, replicas, min_last):
    num_examples, batch_size = groups * replicas, per_replica * replicas
    sizes = batch_sizes(num_examples, batch_size, min_last * replicas)
    assert sum(sizes) == num_examples and set(sizes[:-1]) <= {batch_size}
    assert all(size % replicas == 0 for size in sizes)
    assert num_examples < batch_size or min(sizes) >= min(min_last * replicas, batch_size)
    assert len(sizes) in (num_examples // batch_size, -(-num_examples // batch_size))
    assert sizes == (num_examples,) or sizes[-1] < batch_size + min_last * replicas


@given(st.integers(1, 300), st.integers(1, 40))
def test_without_a_bound_the_remainder_is_a_batch(num_examples, batch_size):
    expected = tuple(len(part) for part in np.split(np.arange(num_examples), np.arange(batch_size, num_examples, batch_size)))
    assert batch_sizes(num_examples, batch_size) == expected


def test_a_remainder_below_the_bound_is_merged():
    assert batch_sizes(130, 32, 16) == (32, 32, 32, 34)
    assert batch_sizes(144, 32, 16) == (32, 32, 32, 32, 16)
    assert batch_sizes(128, 32, 16) == (32, 32, 32, 32)
    assert batch_sizes(34, 32, 16) == (34,)
    assert batch_sizes(2, 32, 16) == (2,)


@pytest.mark.parametrize(
    ("settings", "replicas", "expected"),
    [
        ({"image_size": 4}, 1, 64),
        ({"image_size": 8}, 1, 16),
        ({"image_size": 8}, 2, 32),
        ({"image_size": 12}, 1, 8),
        ({"image_size": 16}, 1, 4),
        ({"image_size": 32}, 1, 1),
        ({"image_size": 4, "last_batch": "keep"}, 2, 2),
        ({"image_size": 4, "strategy": "head"}, 1, 1),
        ({"image_size": 4, "strategy": "head", "frozen_mode": "training"}, 1, 64),
        ({"image_size": 4, "batch_norm": "inference"}, 1, 1),
        ({"image_size": 4, "eval_mode_after": 0}, 1, 1),
        ({"image_size": 4, "eval_mode_after": 2}, 1, 64),
        ({"image_size": 4, "strategy": "gradual"}, 1, 64),
        ({"image_size": 4, "strategy": "train:stem"}, 1, 16),
        ({"backbone": "alexnet_narrow", "image_size": 64}, 1, 1),
    ],
    ids=str,
)
def test_the_smallest_map_with_statistics_of_the_batch_decides(settings, replicas, expected):
    resolved = resolve(MERGED.replace(**settings))
    stages = stage_layers(build_model(resolved, 10), resolved.backbone.name)
    assert min_last_batch(resolved.config.train, stages, resolved.phases, replicas) == expected


def test_batches_know_their_position_and_the_size_of_their_update():
    batches = list(enumerate_batches("abcd", epoch=2, sizes=(8, 8, 8, 10), group=2))
    assert [(batch.num_examples, batch.update_size, batch.update, batch.is_last_batch) for batch in batches] == [
        (8, 16, 4, False), (8, 16, 4, True), (8, 18, 5, False), (10, 18, 5, True),
    ]  # fmt: skip
    assert [batch.update_size for batch in enumerate_batches("abc", epoch=0, sizes=(8, 8, 10), group=2)] == [16, 16, 10]


def test_merging_is_described():
    assert describe_merged((16, 16, 18), 16) == [NOTE]
    assert describe_merged((17,), 16)[0].startswith(
        "the last image of each epoch is trained in the batch before, of 17 instead of 16 images"
    )
    assert describe_merged((16, 16, 2), 16) == describe_merged((2,), 16) == describe_merged((16, 16), 16) == []


class CountSteps(keras.callbacks.Callback):
    """Counts the steps of each epoch and keeps the number that the progress bar expects."""

    def on_epoch_begin(self, epoch, logs=None):
        self.steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1


def outcome(directory):
    """Return the losses of each epoch and the logits of a finished run."""
    with np.load(directory / "predictions.npz") as predictions:
        return [(row["loss"], row["val_loss"], row["learning_rate"]) for row in run_directory.read_history(directory)], predictions[
            "logits"
        ]


@pytest.fixture(scope="module")
def merged_run(tmp_path_factory):
    """The directory and the result of a run with a merged batch, the steps of its last epoch, and what it printed."""
    directory, count, printed = tmp_path_factory.mktemp("merged") / "run", CountSteps(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        result = run(MERGED.replace(schedule="cosine"), directory, verbose=2, callbacks=[count])
    return directory, result, count, printed.getvalue()


def test_steps_and_schedule_follow_from_the_sizes(merged_run):
    directory, result, count, _ = merged_run
    assert count.steps == count.params["steps"] == 3
    learning_rates = [row[2] for row in outcome(directory)[0]]
    last_updates = 3 * np.arange(1, 5) - 1
    np.testing.assert_allclose(learning_rates, 0.01 * (1 + np.cos(np.pi * last_updates / 12)), rtol=1e-5)
    assert result["data"]["notes"] == [NOTE] and result["metrics"]["test"]["num_examples"] == 40


def test_it_is_said_before_the_run_and_when_it_starts(merged_run):
    sentence = f"{NOTE[0].upper()}{NOTE[1:]}."
    assert sentence in explain(MERGED).splitlines()
    assert sentence not in explain(MERGED.replace(last_batch="keep")).splitlines()
    assert f"note      {NOTE}" in merged_run[-1]


class Kill(keras.callbacks.Callback):
    """Ends the run by an exception in its third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_a_resumed_run_with_a_merged_batch_is_bit_identical(merged_run, tmp_path):
    config = MERGED.replace(schedule="cosine")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, callbacks=[Kill()])
    run(config, tmp_path)
    (history, logits), (expected, expected_logits) = outcome(tmp_path), outcome(merged_run[0])
    assert history == expected
    np.testing.assert_array_equal(logits, expected_logits)


def test_keeping_the_last_batch_makes_one_step_more(merged_run, tmp_path):
    count = CountSteps()
    result = run(MERGED.replace(schedule="cosine", last_batch="keep"), tmp_path, callbacks=[count])
    assert count.steps == count.params["steps"] == 4 and result["data"]["notes"] == []
    assert outcome(tmp_path)[0][0][0] != outcome(merged_run[0])[0][0][0]


def test_phases_on_cached_features_have_the_batches_of_the_others(tmp_path):
    config = MERGED.replace(strategy="last:1", accumulate_steps=2)
    for name, cache in (("plain", "off"), ("cached", "memory")):
        result = run(config.replace(cache=cache), tmp_path / name)
        assert result["data"]["notes"] == [NOTE]
    assert result["phases"][0]["cache"]["split_point"] == "stem"
    assert outcome(tmp_path / "cached")[0] == outcome(tmp_path / "plain")[0]
    np.testing.assert_array_equal(outcome(tmp_path / "cached")[1], outcome(tmp_path / "plain")[1])


def test_two_replicas_share_a_merged_batch(tmp_path):
    """Each of two replicas would have 3 images of 2 x 2 positions."""
    count = CountSteps()
    config = MERGED.replace(distribution="mirrored", limit_train=39, epochs=1)
    result = run(config, tmp_path, callbacks=[count])
    assert result["runtime"]["replicas"] == 2 and count.steps == 2
    assert result["data"]["notes"][-1].startswith("the last 6 images of each epoch are trained in the batch before, of 22 instead of 16")


@pytest.mark.slow
def test_a_network_does_not_collapse_on_a_last_batch_of_two_images(tmp_path):
    """BatchNorm of layer4 has maps of 1 x 1 here. With two values of a channel, it divides by the distance of two near numbers."""
    config = PLAIN.replace(
        dataset="digits", backbone="resnet18", weights="none", image_size=32, limit_train=130, limit_test=200, validation_fraction=0.0,
        batch_size=32, epochs=6, selection="last", precision="float32", save_model=False,
    )  # fmt: skip
    losses = {value: run(config.replace(last_batch=value), tmp_path / value)["metrics"]["test"]["loss"] for value in ("merge", "keep")}
    assert losses["merge"] < 5 and losses["keep"] > 50
