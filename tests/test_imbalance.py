"""Imbalance: subsampled classes, balanced sampling, superclasses; and a comparison with the split sizes of source report D."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_keras import data
from tl_keras.config import DataConfig, RunConfig
from tl_keras.data.examples import DatasetSource, ImageStore, make_examples
from tl_keras.data.sampling import epoch_order, epoch_size
from tl_keras.data.splits import make_splits, parse_keep
from tl_keras.errors import ConfigError
from tl_keras.runs.resolve import resolve

SEEDS = st.integers(0, 2**31 - 1)


def examples(labels):
    return make_examples(ImageStore(np.zeros((len(labels), 1, 1, 3), np.uint8)), labels)


def source(counts, superclasses=None, names=None):
    labels = np.repeat(np.arange(len(counts)), counts)
    names = names or tuple(f"class{label}" for label in range(len(counts)))
    return DatasetSource(
        "toy", names, examples(labels), None, examples(np.tile(np.arange(len(counts)), 3)), "0", superclasses=superclasses or {}
    )


TOY = source((60, 30, 10), superclasses={"large": (0, 1), "small": (2,)})
# Images of each breed in trainval of Oxford-IIIT Pet, in the order of its labels. One more breed has 99: `pets` says which.
BREEDS = (
    "Abyssinian american_bulldog american_pit_bull_terrier basset_hound beagle Bengal Birman Bombay boxer British_Shorthair chihuahua "
    "Egyptian_Mau english_cocker_spaniel english_setter german_shorthaired great_pyrenees havanese japanese_chin keeshond leonberger "
    "Maine_Coon miniature_pinscher newfoundland Persian pomeranian pug Ragdoll Russian_Blue saint_bernard samoyed scottish_terrier "
    "shiba_inu Siamese Sphynx staffordshire_bull_terrier wheaten_terrier yorkshire_terrier"
).split()
COUNTS = dict.fromkeys(BREEDS, 100) | {"Bombay": 96, "Egyptian_Mau": 93, "english_cocker_spaniel": 96, "newfoundland": 96}
CATS = [name for name in BREEDS if name[0].isupper()]
DOGS = [name for name in BREEDS if name not in CATS]
# The list of cats in the code of source report D: class ids that count from 1, used on labels that count from 0.
SHIFTED_CATS = [BREEDS[BREEDS.index(name) + 1] for name in CATS]
OTHERS = [name for name in BREEDS if name not in SHIFTED_CATS]
BREEDS_OF_99 = ("Siamese", "scottish_terrier")


def pets(breed_of_99):
    counts = COUNTS | {breed_of_99: 99}
    assert sum(counts.values()) == 3680
    labels = {species: tuple(map(BREEDS.index, names)) for species, names in (("cat", CATS), ("dog", DOGS))}
    return source(tuple(counts.values()), superclasses=labels, names=tuple(BREEDS))


def a_quarter(names):
    return ",".join(f"{name}:0.25" for name in names)


def indices(examples):
    return set(examples.indices.tolist())


def test_fractions_refer_to_the_images_without_validation():
    splits = make_splits(TOY, DataConfig(validation_fraction=0.2, keep="class0:0.25,class2:0.5"), 0)
    assert splits.train.class_counts == {0: 12, 1: 24, 2: 4}
    assert splits.validation.class_counts == {0: 12, 1: 6, 2: 2}


def test_every_class_of_a_superclass_is_subsampled_to_its_fraction():
    """As if its classes were named one by one."""
    whole, named = (
        make_splits(TOY, DataConfig(validation_fraction=0.2, keep=keep), 0).train for keep in ("large:0.25", "class0:0.25,class1:0.25")
    )
    assert whole.class_counts == {0: 12, 1: 6, 2: 8}
    np.testing.assert_array_equal(whole.indices, named.indices)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.floats(0.3, 1), st.floats(0.3, 1), st.sampled_from(["large", "class1", "class2"]), st.sampled_from([0.5, 1.0]))
def test_larger_fractions_contain_smaller_ones_and_validation_is_unchanged(seed, one, other, name, fraction):
    small, large = sorted((one, other))
    whole, *kept = (
        make_splits(TOY, DataConfig(validation_fraction=0.2, fraction=fraction, keep=keep), seed)
        for keep in ("", f"{name}:{small}", f"{name}:{large}")
    )
    first, second = (indices(splits.train) for splits in kept)
    assert first <= second <= indices(whole.train)
    assert all(indices(splits.validation) == indices(whole.validation) for splits in kept)


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_a_limit_keeps_the_subsampled_proportions(seed):
    kept, limited = (make_splits(TOY, DataConfig(keep="class0:0.5", limit_train=limit), seed).train for limit in (0, 21))
    assert kept.class_counts == {0: 27, 1: 27, 2: 9} and indices(limited) <= indices(kept)
    assert limited.class_counts == {0: 9, 1: 9, 2: 3}


@pytest.mark.parametrize(
    "keep, message",
    [
        ("class7:0.5", "keep=class7:0.5`: Unknown class or superclass 'class7'.*Known: class0, class1, class2, large, small"),
        ("class0:0", "class0:0: expected different names, each with a fraction in .0, 1."),
        ("class0:1.5", "class0:1.5: expected"),
        ("class0:nan", "class0:nan: expected"),
        ("class0:much", "class0:much: expected"),
        ("class0", "class0: expected"),
        (":0.5", ":0.5: expected"),
        ("class0:0.5,class0:0.5", "class0:0.5: expected different names"),
        ("class0:0.5,large:0.5", "class0 and large both name the class class0"),
        ("small:0.01", "none of 1 of the 3 classes of toy: class2"),
    ],
)
def test_impossible_fractions_are_refused(keep, message):
    with pytest.raises(ConfigError, match=message):
        make_splits(TOY, DataConfig(keep=keep), 0)


def test_a_malformed_keep_is_refused_before_data_is_loaded():
    with pytest.raises(ConfigError, match="keep=cat:2"):
        resolve(RunConfig().replace(keep="cat:2"))


def test_class_names_may_contain_colons():
    assert parse_keep("a:b:0.5, c:1") == {"a:b": 0.5, "c": 1.0}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "breed_of_99, keep, num_train", [("Siamese", "cat:0.25", 2231), ("scottish_terrier", "cat:0.25", 2230), ("Siamese", "dog:0.25", 1448),
                                     ("scottish_terrier", "dog:0.25", 1449), ("Siamese", "", 2944)],
)  # fmt: skip
def test_the_imbalanced_sets_of_source_report_d_as_described(breed_of_99, keep, num_train, seed):
    """20 % of each breed for validation, to the nearest image, and a quarter of the rest of each breed of the species."""
    splits = make_splits(pets(breed_of_99), DataConfig(validation_fraction=0.2, keep=keep), seed)
    assert (len(splits.train), len(splits.validation)) == (num_train, 736)
    thinned = {"cat": CATS, "dog": DOGS, "": []}[keep.partition(":")[0]]
    for label, (name, count) in enumerate((COUNTS | {breed_of_99: 99}).items()):
        num_validation = round(0.2 * count)
        fraction = 0.25 if name in thinned else 1
        assert splits.validation.class_counts[label] == num_validation
        assert splits.train.class_counts[label] == round(fraction * (count - num_validation))


def test_the_shifted_list_of_cats_names_four_cats_and_eight_dogs():
    assert (
        SHIFTED_CATS
        == (
            "american_bulldog Birman Bombay boxer chihuahua english_cocker_spaniel miniature_pinscher pomeranian Russian_Blue "
            "saint_bernard Sphynx staffordshire_bull_terrier"
        ).split()
    )
    assert len(set(SHIFTED_CATS) & set(CATS)) == 4 and len(OTHERS) == 25


@pytest.mark.parametrize(
    "thinned, sizes",
    [
        (SHIFTED_CATS, {"Siamese": (2227, 712), "scottish_terrier": (2227, 712)}),  # published as "dog majority"
        (OTHERS, {"Siamese": (1450, 726), "scottish_terrier": (1450, 726)}),  # published as "cat majority"
        (CATS, {"Siamese": (2230, 713), "scottish_terrier": (2229, 713)}),
        (DOGS, {"Siamese": (1447, 725), "scottish_terrier": (1448, 725)}),
    ],
    ids=["shifted cats", "others", "cats", "dogs"],
)
@pytest.mark.parametrize("breed_of_99", BREEDS_OF_99)
def test_the_streaming_rule_gives_the_published_sizes_with_the_shifted_list_alone(thinned, sizes, breed_of_99):
    config = DataConfig(split="streaming", validation_fraction=0.2, keep=a_quarter(thinned))
    splits = make_splits(pets(breed_of_99), config, 0)
    assert (len(splits.train), len(splits.validation)) == sizes[breed_of_99]
    by_species = {tuple(CATS): "cat:0.25", tuple(DOGS): "dog:0.25"}.get(tuple(thinned))
    if by_species:
        again = make_splits(pets(breed_of_99), DataConfig(split="streaming", validation_fraction=0.2, keep=by_species), 0)
        assert indices(again.train) == indices(splits.train)


@pytest.mark.parametrize("sampling, size", [("natural", 17), ("balanced", 30)])
def test_epoch_size_equals_the_length_of_the_order(sampling, size):
    toy = examples([0] * 10 + [2] * 4 + [5] * 3)
    positions, copies = epoch_order(toy, sampling, seed=0, epoch=0)
    assert len(positions) == len(copies) == epoch_size(toy, sampling) == size


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), SEEDS, st.integers(0, 5))
def test_balanced_epochs_repeat_each_class_up_to_the_largest(labels, seed, epoch):
    toy = examples(np.array(labels))
    positions, copies = epoch_order(toy, "balanced", seed=seed, epoch=epoch)
    largest = max(toy.class_counts.values())
    drawn = np.bincount(positions, minlength=len(labels))
    for label, count in toy.class_counts.items():
        times = drawn[toy.labels == label]
        assert times.sum() == largest and times.min() == largest // count and times.max() <= -(-largest // count)
    assert len(set(zip(positions.tolist(), copies.tolist(), strict=True))) == len(positions) and copies.max() < max(drawn)


def test_balanced_epochs_depend_on_seed_and_epoch_only():
    toy = examples([0] * 10 + [1] * 4)
    first = epoch_order(toy, "balanced", seed=1, epoch=2)
    np.testing.assert_array_equal(first, epoch_order(toy, "balanced", seed=1, epoch=2))
    extra = [tuple(np.bincount(epoch_order(toy, "balanced", seed=seed, epoch=epoch)[0])[10:]) for seed in range(3) for epoch in range(3)]
    assert len(set(extra)) > 2  # the remainder of the smaller class differs
    np.testing.assert_array_equal(epoch_order(toy, "natural", seed=1, epoch=2)[0], np.random.default_rng((1, 2)).permutation(14))


def test_parity_is_a_superclass_and_a_task_of_digits():
    digits, parity = (data.load_source(DataConfig(dataset="digits", label=label)) for label in ("label", "parity"))
    assert digits.superclasses == {"even": (0, 2, 4, 6, 8), "odd": (1, 3, 5, 7, 9)}
    assert parity.class_names == ("even", "odd") and parity.superclasses == {} and parity.fingerprint != digits.fingerprint
    np.testing.assert_array_equal(parity.train.labels, digits.train.labels % 2)
    kept = [make_splits(toy, DataConfig(dataset="digits", keep="even:0.25"), 0).train for toy in (digits, parity)]
    for train, label in zip(kept, (lambda labels: labels % 2, lambda labels: labels), strict=True):
        even, odd = np.bincount(label(train.labels))
        assert even / odd == pytest.approx(0.25, abs=0.01)


def test_species_is_a_superclass_and_a_task_of_real_pets(shared):
    settings = {"dataset": "oxford_iiit_pet", "data_dir": str(shared / "data" / "tfds"), "validation_fraction": 0.2, "keep": "cat:0.25"}
    breeds, species = (data.load_source(DataConfig(label=label, **settings)) for label in ("label", "species"))
    assert {name: [breeds.class_names[label] for label in labels] for name, labels in breeds.superclasses.items()} == {
        "cat": ["Abyssinian", "Bengal"],
        "dog": ["american_bulldog"],
    }
    assert species.superclasses == {"cat": (0,), "dog": (1,)} and species.class_names == ("Cat", "Dog")
    assert make_splits(breeds, DataConfig(**settings), 0).train.class_counts == {0: 20, 1: 80, 5: 20}
    for keep in ("cat:0.25", "Cat:0.25"):
        config = dataclasses.replace(DataConfig(label="species", **settings), keep=keep)
        assert make_splits(species, config, 0).train.class_counts == {0: 40, 1: 80}
