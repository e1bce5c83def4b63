"""The choice of the split point, and the store of features: exact budgets, corrupt files found and replaced, sharing."""

import json
import os

import numpy as np
import pytest

from tl_keras.feature_cache.shards import FeatureSpec
from tl_keras.feature_cache.split_point import DISK, MEMORY, Budget, SplitPoint, cache_budget, choose_split
from tl_keras.feature_cache.store import Store, cache_directory

SPEC = FeatureSpec((4,), "float32")
FEATURE_BYTES = 16
KEYS = ["a" * 64, "b" * 64, "c" * 64]
ROOMY = Budget(10**6, 10**6)
STEM, BODY, FEATURES = SplitPoint("stem", (8, 8, 4), 1000, 50), SplitPoint("body", (4, 4, 8), 400, 90), SplitPoint("features", (8,), 16, 90)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(10_000, 0), ("features", MEMORY)),
        (Budget(160, 0), ("features", MEMORY)),
        (Budget(159, 160), ("features", DISK)),
        (Budget(0, 10_000), ("features", DISK)),
        (Budget(159, 159), None),
    ],
)
def test_the_deepest_split_that_fits_is_chosen_and_memory_comes_before_disk(budget, expected):
    choice = choose_split([STEM, BODY, FEATURES], 10, budget)
    assert (choice and (choice.split_point.name, choice.storage)) == expected


def test_a_shallower_split_is_chosen_if_the_deeper_does_not_fit():
    wide = SplitPoint("body", (16, 16, 64), 4000, 90)
    assert choose_split([STEM, wide], 10, Budget(10_000, 0)).split_point is STEM
    assert choose_split([STEM, wide], 10, Budget(10_000, 40_000)) == choose_split([wide], 10, Budget(0, 40_000)), "deeper on disk"
    assert choose_split([], 10, ROOMY) is None
    assert choose_split([BODY, SplitPoint("pool", (400,), 400, 90)], 10, ROOMY).split_point.name == "pool", "the deepest of equals"
    assert choose_split([SplitPoint("stem", (1,), 4, 0)], 10, ROOMY) is None, "nothing is saved"


def test_budgets_of_the_cache_modes():
    assert cache_budget("off", 3) == Budget(0, 0)
    assert cache_budget("memory", 3) == Budget(3_000_000, 0)
    assert cache_budget("disk", 3) == Budget(0, 30_000_000)
    assert cache_budget("auto", 3) == Budget(3_000_000, 30_000_000)


class Computation:
    """Computes features: that of id i is filled with i. Records the requested ids."""

    def __init__(self):
        self.requested: list[list[int]] = []

    def __call__(self, ids):
        self.requested.append(ids.tolist())
        for start in range(0, len(ids), 3):
            yield features_of(ids[start : start + 3])


def features_of(ids, spec=SPEC):
    return np.repeat(np.asarray(ids)[:, None], 4, axis=1).astype(spec.numpy_dtype)


def request(store, ids, computation=None, *, key=KEYS[0], spec=SPEC, storage=MEMORY, budget=ROOMY):
    return store.get_or_compute(key, np.array(ids), spec, storage, budget, computation or Computation())


@pytest.mark.parametrize("storage", [MEMORY, DISK])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_features_are_returned_in_the_requested_order(tmp_path, storage, dtype):
    store, spec = Store(tmp_path), FeatureSpec((4,), dtype)
    ids = np.array([7, 2, 9, 2])
    features, num_computed = store.get_or_compute(KEYS[0], ids, spec, storage, ROOMY, lambda ids: iter([features_of(ids, spec)]))
    taken = features.take(np.array([9, 2, 2, 7]))
    assert num_computed == 3 and taken.dtype == spec.numpy_dtype
    np.testing.assert_array_equal(taken, features_of([9, 2, 2, 7], spec))
    with pytest.raises(KeyError, match="8"):
        features.take(np.array([2, 8]))


@pytest.mark.parametrize("storage", [MEMORY, DISK])
def test_only_missing_features_are_computed(tmp_path, storage):
    store, computation = Store(tmp_path), Computation()
    request(store, [1, 2, 3], computation, storage=storage)
    features, num_computed = request(store, [3, 4, 0], computation, storage=storage)
    assert computation.requested == [[1, 2, 3], [0, 4]] and num_computed == 2
    np.testing.assert_array_equal(features.take(np.array([4, 3, 0])), features_of([4, 3, 0]))
    assert request(store, [0, 1, 4], computation, storage=storage)[1] == 0
    request(store, [1], computation, key=KEYS[1], storage=storage)
    assert computation.requested[-1] == [1], "another key, other features"


def test_memory_stays_within_its_budget_and_the_least_recently_used_are_evicted_first(tmp_path):
    store, budget = Store(tmp_path), Budget(6 * FEATURE_BYTES, 0)
    for key in (*KEYS[:2], KEYS[0]):
        store.unpin_all()
        request(store, range(3), key=key, budget=budget)
    store.unpin_all()
    request(store, range(2), key=KEYS[2], budget=budget)
    assert store.memory_bytes == 5 * FEATURE_BYTES
    assert request(store, range(3), key=KEYS[0], budget=budget)[1] == 0, "used last"
    computation = Computation()
    assert request(store, range(3), computation, key=KEYS[1], budget=budget) == (None, 0), "nothing fits beside the pinned features"
    assert computation.requested == [] and store.memory_bytes == 5 * FEATURE_BYTES


def test_features_of_the_same_key_are_evicted_for_the_requested_ones(tmp_path):
    store, budget = Store(tmp_path), Budget(5 * FEATURE_BYTES, 0)
    request(store, range(4), budget=budget)
    store.unpin_all()
    features, num_computed = request(store, [3, 4, 5], budget=budget)
    assert num_computed == 3 and store.memory_bytes == 3 * FEATURE_BYTES
    np.testing.assert_array_equal(features.take(np.array([5, 3])), features_of([5, 3]))


def test_files_stay_within_their_budget(tmp_path):
    budget = Budget(0, 3000)
    store = Store(tmp_path)
    for number, key in enumerate(KEYS):
        store.unpin_all()
        request(store, range(50), key=key, storage=DISK, budget=budget)
        os.utime(tmp_path / key, (number, number))
        assert sum(file.stat().st_size for file in tmp_path.rglob("*.*")) <= 3000
    assert request(Store(tmp_path), range(50), key=KEYS[2], storage=DISK, budget=budget)[1] == 0, "used last"
    assert request(Store(tmp_path), range(50), key=KEYS[0], storage=DISK, budget=budget)[1] == 50
    assert request(Store(tmp_path), range(500), key=KEYS[1], storage=DISK, budget=budget) == (None, 0)


def test_another_process_finds_the_files(tmp_path):
    request(Store(tmp_path), [1, 2], storage=DISK)
    computation = Computation()
    features, num_computed = request(Store(tmp_path), [2, 1, 3], computation, storage=MEMORY)
    assert computation.requested == [[3]] and num_computed == 1
    np.testing.assert_array_equal(features.take(np.array([3, 2, 1])), features_of([3, 2, 1]))
    assert request(Store(tmp_path), [1], storage=MEMORY, budget=Budget(10**6, 0))[1] == 1, "`cache=memory` reads no files"


def files(directory):
    (features,) = directory.rglob("*.npy")
    return features, features.with_suffix(".json")


def truncate(features, header):
    features.write_bytes(features.read_bytes()[:-5])


def flip_a_bit(features, header):
    content = bytearray(features.read_bytes())
    content[-3] ^= 1
    features.write_bytes(content)


def other_ids(features, header):
    content = json.loads(header.read_text())
    header.write_text(json.dumps(content | {"ids": [2, 1]}))


def of_another_key(features, header):
    content = json.loads(header.read_text())
    header.write_text(json.dumps(content | {"key": KEYS[1]}))


def no_json(features, header):
    header.write_text("{")


def no_features(features, header):
    features.write_bytes(b"")


def other_shape(features, header):
    np.save(features, np.zeros((2, 3), np.float32))


def no_mapping(features, header):
    header.write_text("[]")


DAMAGE = [truncate, flip_a_bit, other_ids, of_another_key, no_json, no_features, other_shape, no_mapping]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_and_stale_files_are_computed_again(tmp_path, damage):
    request(Store(tmp_path), [1, 2], storage=DISK)
    features_file, header = files(tmp_path)
    damage(features_file, header)
    store = Store(tmp_path)
    features, num_computed = request(store, [1, 2], storage=DISK)
    assert num_computed == 2 and store.num_corrupt == 1 and not features_file.exists() and not header.exists()
    np.testing.assert_array_equal(features.take(np.array([1, 2])), features_of([1, 2]))
    assert request(Store(tmp_path), [1, 2], storage=DISK)[1] == 0


def test_a_file_without_its_header_yet_is_left_alone(tmp_path):
    request(Store(tmp_path), [1, 2], storage=DISK)
    features_file, header = files(tmp_path)
    header.unlink()
    assert request(Store(tmp_path), [1, 2], storage=MEMORY)[1] == 2
    assert features_file.exists()


def test_a_failed_computation_leaves_nothing(tmp_path):
    def fail(ids):
        yield features_of(ids[:1])
        raise RuntimeError

    for storage in (MEMORY, DISK):
        store = Store(tmp_path)
        with pytest.raises(RuntimeError):
            request(store, [1, 2], fail, storage=storage)
        assert store.memory_bytes == 0 and not list(tmp_path.rglob("*.*"))
        assert request(store, [1, 2], storage=MEMORY)[1] == 2


def test_a_full_disk_is_not_an_error(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tl_keras.feature_cache.store.write_features", full)
    assert request(Store(tmp_path), [1, 2], storage=DISK) == (None, 0)
    assert not list(tmp_path.rglob("*.*"))


def test_the_default_and_the_given_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory("") == tmp_path / "tl_keras" / "features"
    assert cache_directory(str(tmp_path / "here")) == tmp_path / "here"
