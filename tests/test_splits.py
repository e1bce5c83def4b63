"""Splits are stratified, seeded and nested."""

import dataclasses
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_keras.config import DataConfig
from tl_keras.data.examples import DatasetSource, ImageStore, make_examples
from tl_keras.data.splits import assign_splits, make_splits, streaming_split
from tl_keras.data.stratified import stratified_order
from tl_keras.errors import ConfigError

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=150).map(lambda labels: np.array(labels, np.int64))
SEEDS = st.integers(0, 2**31 - 1)


def examples(labels):
    return make_examples(ImageStore(np.zeros((len(labels), 1, 1, 3), np.uint8)), labels)


def source(counts=(60, 30, 10), validation=None):
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple(f"class{label}" for label in range(len(counts)))
    return DatasetSource("toy", names, examples(labels), validation, examples(np.tile(np.arange(len(counts)), 20)), "0")


def indices(examples):
    return set(examples.indices.tolist())


@settings(deadline=None)
@given(LABELS, SEEDS)
def test_every_prefix_has_each_class_to_within_one_example(labels, seed):
    order = stratified_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    for label in np.unique(labels):
        counts = np.cumsum(labels[order] == label)
        ideal = np.arange(1, len(labels) + 1) * np.mean(labels == label)
        assert np.abs(counts - ideal).max() < 1


def test_many_classes_of_one_example_beside_a_large_class():
    labels = np.array([0] * 900 + list(range(1, 101)))
    counts = np.cumsum(labels[stratified_order(labels, 0)] == 0)
    assert np.abs(counts - 0.9 * np.arange(1, 1001)).max() < 1


def test_the_order_depends_on_the_seed_only():
    labels = np.tile(np.arange(10), 30)
    np.testing.assert_array_equal(stratified_order(labels, 3), stratified_order(labels, 3))
    assert not np.array_equal(stratified_order(labels, 3), stratified_order(labels, 4))
    assert len(stratified_order(np.array([], np.int64), 0)) == 0


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.floats(0.1, 0.8), st.floats(0.1, 0.8), st.sampled_from([0.0, 0.1, 0.2]))
def test_fractions_are_nested_and_have_the_same_validation(seed, one, other, validation_fraction):
    small, large = sorted((one, other))
    configs = (DataConfig(fraction=fraction, validation_fraction=validation_fraction) for fraction in (small, large))
    first, second = (make_splits(source(), config, seed) for config in configs)
    assert indices(first.train) <= indices(second.train)
    assert len(first.train) == round(small * 100)
    if validation_fraction:
        assert indices(first.validation) == indices(second.validation)
        assert not indices(first.validation) & indices(second.train)
        assert len(first.validation) == round(validation_fraction * 100)
    else:
        assert first.validation is None


def test_fraction_one_is_everything_except_validation():
    splits = make_splits(source(), DataConfig(fraction=1.0, validation_fraction=0.2), 0)
    assert indices(splits.train) | indices(splits.validation) == set(range(100))
    assert splits.train.class_counts == {0: 48, 1: 24, 2: 8}
    assert splits.validation.class_counts == {0: 12, 1: 6, 2: 2}


def test_an_official_validation_split_is_used_and_none_carved_out():
    official = examples([0, 1, 2])
    splits = make_splits(source(validation=official), DataConfig(fraction=1.0, validation_fraction=0.2), 0)
    assert splits.validation is official
    assert len(splits.train) == 100


def test_limits_keep_stratified_prefixes():
    full = make_splits(source(), DataConfig(), 0)
    limited = make_splits(source(), DataConfig(limit_train=20, limit_test=9), 0)
    assert indices(limited.train) <= indices(full.train)
    assert limited.train.class_counts == {0: 12, 1: 6, 2: 2}
    assert limited.test.class_counts == {0: 3, 1: 3, 2: 3}
    np.testing.assert_array_equal(full.test.indices, np.arange(60))
    assert len(make_splits(source(), DataConfig(limit_train=1000, limit_test=1000), 0).train) == len(full.train)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"fraction": 0.001}, "fraction=0.001.*100 images"),
        ({"validation_fraction": 0.001}, "validation_fraction=0.001.*100 images"),
        ({"limit_train": 2}, "The 2 images.*none of 2 of the 3 classes.*class1, class2"),
    ],
)
def test_empty_splits_are_refused_with_their_sizes(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_splits(source(), DataConfig(**settings), 0)


def streamed_by_hand(labels, train_fractions, validation_fraction):
    """Return the roles of the images as the rule says, with exact fractions of the decimal numbers."""
    counts, roles = {label: Counter() for label in labels}, []
    for label in labels:
        count = counts[label]
        seen = count.total()
        if seen == 0 or Fraction(count["train"], seen) < train_fractions[label]:
            role = "train"
        else:
            role = "validation" if Fraction(count["validation"], seen) < validation_fraction else "dropped"
        count[role] += 1
        roles.append(role)
    return roles


@settings(deadline=None)
@given(LABELS, st.lists(st.integers(1, 100), min_size=7, max_size=7), st.integers(1, 99))
def test_streaming_follows_the_rule(labels, percents, validation_percent):
    """For hundredths, whose binary fractions are not exact: 1 - 0.9 is less than 0.1."""
    roles = streamed_by_hand(labels.tolist(), [Fraction(percent, 100) for percent in percents], Fraction(validation_percent, 100))
    train, validation = streaming_split(labels, np.array(percents) / 100, validation_percent / 100)
    assert train.tolist() == [position for position, role in enumerate(roles) if role == "train"]
    assert validation.tolist() == [position for position, role in enumerate(roles) if role == "validation"]


def test_streaming_drops_an_image_of_a_class_that_is_not_subsampled():
    train, validation = streaming_split(np.array([0, 0, 0, 1, 0, 0, 0]), np.array([0.8, 0.2]), 0.2)
    assert train.tolist() == [0, 2, 3, 4, 5] and validation.tolist() == [1]  # the last image of class 0 is dropped


def test_streaming_takes_the_order_of_the_data_set_whatever_the_seed():
    streaming = DataConfig(split="streaming", validation_fraction=0.2, keep="class0:0.25")
    first, other = (make_splits(source(), streaming, seed) for seed in (0, 1))
    np.testing.assert_array_equal(first.train.indices, other.train.indices)
    assert first.train.class_counts == {0: 12, 1: 24, 2: 8} and first.validation.class_counts == {0: 12, 1: 5, 2: 1}
    reduced = [make_splits(source(), dataclasses.replace(streaming, limit_train=11), seed) for seed in (0, 1)]
    for splits in reduced:
        assert splits.train.class_counts == {0: 3, 1: 6, 2: 2} and indices(splits.train) < indices(first.train)
        assert indices(splits.validation) == indices(first.validation)
    assert indices(reduced[0].train) != indices(reduced[1].train)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"fraction": 0.5}, "`fraction=0.5`: expected 1 with `split=streaming`; `limit_train` takes a part"),
        ({"validation_fraction": 0.0}, "`validation_fraction=0.0`: expected a fraction above 0 with `split=streaming`"),
    ],
)
def test_settings_that_exclude_streaming_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(split="streaming", **settings)


def test_sources_that_exclude_streaming_are_refused():
    config = DataConfig(split="streaming", validation_fraction=0.2)
    with pytest.raises(ConfigError, match="`split=streaming`: toy has a validation split of its own. Use `split=stratified`"):
        make_splits(source(validation=examples([0, 1, 2])), config, 0)
    with pytest.raises(ConfigError, match="`split=streaming`: no class of toy has a second image"):
        make_splits(source((1, 1)), config, 0)


def test_a_class_without_images_in_the_source_is_no_error():
    lacking = dataclasses.replace(source(), class_names=("class0", "class1", "class2", "nowhere"))
    assert len(make_splits(lacking, DataConfig(validation_fraction=0.0), 0).train) == 100


def test_assign_splits_finds_a_test_split_or_makes_one():
    train, other, third = examples(np.repeat([0, 1], 50)), examples([0, 1]), examples([1, 0])
    unlabelled = examples([-1, -1])
    splits, notes = assign_splits({"train": train, "validation": other, "test": third}, 0.2)
    assert (splits.train, splits.validation, splits.test, notes) == (train, other, third, ())
    for found in ({"train": train, "validation": other}, {"train": train, "validation": other, "test": unlabelled}):
        splits, notes = assign_splits(found, 0.2)
        assert splits.test is other and splits.validation is None and "validation split" in notes[0]
    splits, notes = assign_splits({"train": train}, 0.2)
    assert splits.test.class_counts == {0: 10, 1: 10} and splits.train.class_counts == {0: 40, 1: 40}
    assert "20 of the 100 images" in notes[0]
    assert [len(assign_splits({"train": train}, fraction)[0].test) for fraction in (0.001, 0.3, 0.999)] == [1, 30, 99]
    with pytest.raises(ConfigError, match="no labelled images"):
        assign_splits({"train": unlabelled}, 0.2)
