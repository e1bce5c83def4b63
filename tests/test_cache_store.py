"""Where a network is cut, and the store of rows: budgets to the byte, damage found and mended, rows shared."""

import json
import os

import numpy as np
import pytest

from tl_keras.feature_cache.shards import RowType
from tl_keras.feature_cache.split_point import DISK, MEMORY, Budget, Cut, budget, choose
from tl_keras.feature_cache.store import Store, directory

KIND = RowType((4,), "float32")
ROW_BYTES = 16
KEYS = ["a" * 64, "b" * 64, "c" * 64]
ROOMY = Budget(10**6, 10**6)
STEM, BODY, FEATURES = Cut("stem", (8, 8, 4), 1000, 50), Cut("body", (4, 4, 8), 400, 90), Cut("features", (8,), 16, 90)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Budget(10_000, 0), ("features", MEMORY)),
        (Budget(160, 0), ("features", MEMORY)),
        (Budget(159, 160), ("features", DISK)),
        (Budget(0, 10_000), ("features", DISK)),
        (Budget(159, 159), None),
    ],
)
def test_the_deepest_cut_that_fits_is_chosen_in_memory_before_disk(limits, expected):
    choice = choose([STEM, BODY, FEATURES], 10, limits)
    assert (choice and (choice.cut.name, choice.place)) == expected


def test_a_shallower_cut_is_chosen_where_the_deeper_does_not_fit():
    wide = Cut("body", (16, 16, 64), 4000, 90)
    assert choose([STEM, wide], 10, Budget(10_000, 0)).cut is STEM
    assert choose([STEM, wide], 10, Budget(10_000, 40_000)) == choose([wide], 10, Budget(0, 40_000)), "deeper on disk"
    assert choose([], 10, ROOMY) is None
    assert choose([BODY, Cut("pool", (400,), 400, 90)], 10, ROOMY).cut.name == "pool", "the deepest of equals"
    assert choose([Cut("stem", (1,), 4, 0)], 10, ROOMY) is None, "nothing is saved"


def test_modes_of_the_cache():
    assert budget("off", 3) == Budget(0, 0)
    assert budget("memory", 3) == Budget(3_000_000, 0)
    assert budget("disk", 3) == Budget(0, 30_000_000)
    assert budget("auto", 3) == Budget(3_000_000, 30_000_000)


class Source:
    """Row i is filled with i; what was asked for is kept."""

    def __init__(self):
        self.asked: list[list[int]] = []

    def __call__(self, ids):
        self.asked.append(ids.tolist())
        for start in range(0, len(ids), 3):
            yield rows_of(ids[start : start + 3])


def rows_of(ids, kind=KIND):
    return np.repeat(np.asarray(ids)[:, None], 4, axis=1).astype(kind.numpy_dtype)


def hold(store, ids, source=None, *, key=KEYS[0], kind=KIND, place=MEMORY, limits=ROOMY):
    return store.hold(key, np.array(ids), kind, place, limits, source or Source())


@pytest.mark.parametrize("place", [MEMORY, DISK])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_come_back_in_the_order_asked_for(tmp_path, place, dtype):
    store, kind = Store(tmp_path), RowType((4,), dtype)
    rows, num_computed = store.hold(KEYS[0], np.array([7, 2, 9, 2]), kind, place, ROOMY, lambda ids: iter([rows_of(ids, kind)]))
    taken = rows.take(np.array([9, 2, 2, 7]))
    assert num_computed == 3 and taken.dtype == kind.numpy_dtype
    np.testing.assert_array_equal(taken, rows_of([9, 2, 2, 7], kind))
    with pytest.raises(KeyError, match="8"):
        rows.take(np.array([2, 8]))


@pytest.mark.parametrize("place", [MEMORY, DISK])
def test_only_missing_rows_are_computed(tmp_path, place):
    store, source = Store(tmp_path), Source()
    hold(store, [1, 2, 3], source, place=place)
    rows, num_computed = hold(store, [3, 4, 0], source, place=place)
    assert source.asked == [[1, 2, 3], [0, 4]] and num_computed == 2
    np.testing.assert_array_equal(rows.take(np.array([4, 3, 0])), rows_of([4, 3, 0]))
    assert hold(store, [0, 1, 4], source, place=place)[1] == 0
    hold(store, [1], source, key=KEYS[1], place=place)
    assert source.asked[-1] == [1], "another key, other rows"


def test_memory_stays_within_its_budget_and_what_is_longest_unused_goes_first(tmp_path):
    store, limits = Store(tmp_path), Budget(6 * ROW_BYTES, 0)
    for key in (*KEYS[:2], KEYS[0]):
        store.release()
        hold(store, range(3), key=key, limits=limits)
    store.release()
    hold(store, range(2), key=KEYS[2], limits=limits)
    assert store.memory_bytes == 5 * ROW_BYTES
    assert hold(store, range(3), key=KEYS[0], limits=limits)[1] == 0, "used last"
    source = Source()
    assert hold(store, range(3), source, key=KEYS[1], limits=limits) == (None, 0), "no room beside what is in use"
    assert source.asked == [] and store.memory_bytes == 5 * ROW_BYTES


def test_rows_of_the_same_key_give_way_to_those_that_are_needed(tmp_path):
    store, limits = Store(tmp_path), Budget(5 * ROW_BYTES, 0)
    hold(store, range(4), limits=limits)
    store.release()
    rows, num_computed = hold(store, [3, 4, 5], limits=limits)
    assert num_computed == 3 and store.memory_bytes == 3 * ROW_BYTES
    np.testing.assert_array_equal(rows.take(np.array([5, 3])), rows_of([5, 3]))


def test_files_stay_within_their_budget(tmp_path):
    limits = Budget(0, 3000)
    store = Store(tmp_path)
    for number, key in enumerate(KEYS):
        store.release()
        hold(store, range(50), key=key, place=DISK, limits=limits)
        os.utime(tmp_path / key, (number, number))
        assert sum(file.stat().st_size for file in tmp_path.rglob("*.*")) <= 3000
    assert hold(Store(tmp_path), range(50), key=KEYS[2], place=DISK, limits=limits)[1] == 0, "used last"
    assert hold(Store(tmp_path), range(50), key=KEYS[0], place=DISK, limits=limits)[1] == 50
    assert hold(Store(tmp_path), range(500), key=KEYS[1], place=DISK, limits=limits) == (None, 0)


def test_another_process_finds_the_files(tmp_path):
    hold(Store(tmp_path), [1, 2], place=DISK)
    source = Source()
    rows, num_computed = hold(Store(tmp_path), [2, 1, 3], source, place=MEMORY)
    assert source.asked == [[3]] and num_computed == 1
    np.testing.assert_array_equal(rows.take(np.array([3, 2, 1])), rows_of([3, 2, 1]))
    assert hold(Store(tmp_path), [1], place=MEMORY, limits=Budget(10**6, 0))[1] == 1, "--cache=memory reads no files"


def files(directory):
    (rows,) = directory.rglob("*.npy")
    return rows, rows.with_suffix(".json")


def truncate(rows, header):
    rows.write_bytes(rows.read_bytes()[:-5])


def flip_a_bit(rows, header):
    content = bytearray(rows.read_bytes())
    content[-3] ^= 1
    rows.write_bytes(content)


def other_ids(rows, header):
    content = json.loads(header.read_text())
    header.write_text(json.dumps(content | {"ids": [2, 1]}))


def of_another_key(rows, header):
    content = json.loads(header.read_text())
    header.write_text(json.dumps(content | {"key": KEYS[1]}))


def no_json(rows, header):
    header.write_text("{")


def no_rows(rows, header):
    rows.write_bytes(b"")


def other_shape(rows, header):
    np.save(rows, np.zeros((2, 3), np.float32))


def no_mapping(rows, header):
    header.write_text("[]")


DAMAGE = [truncate, flip_a_bit, other_ids, of_another_key, no_json, no_rows, other_shape, no_mapping]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_and_stale_files_are_computed_again(tmp_path, damage):
    hold(Store(tmp_path), [1, 2], place=DISK)
    rows_file, header = files(tmp_path)
    damage(rows_file, header)
    store = Store(tmp_path)
    rows, num_computed = hold(store, [1, 2], place=DISK)
    assert num_computed == 2 and store.discarded == 1 and not rows_file.exists() and not header.exists()
    np.testing.assert_array_equal(rows.take(np.array([1, 2])), rows_of([1, 2]))
    assert hold(Store(tmp_path), [1, 2], place=DISK)[1] == 0


def test_a_file_whose_header_is_not_yet_written_is_left_alone(tmp_path):
    hold(Store(tmp_path), [1, 2], place=DISK)
    rows_file, header = files(tmp_path)
    header.unlink()
    assert hold(Store(tmp_path), [1, 2], place=MEMORY)[1] == 2
    assert rows_file.exists()


def test_nothing_is_left_of_rows_that_could_not_be_computed(tmp_path):
    def fail(ids):
        yield rows_of(ids[:1])
        raise RuntimeError

    for place in (MEMORY, DISK):
        store = Store(tmp_path)
        with pytest.raises(RuntimeError):
            hold(store, [1, 2], fail, place=place)
        assert store.memory_bytes == 0 and not list(tmp_path.rglob("*.*"))
        assert hold(store, [1, 2], place=MEMORY)[1] == 2


def test_a_full_disk_is_no_error(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tl_keras.feature_cache.store.write_rows", full)
    assert hold(Store(tmp_path), [1, 2], place=DISK) == (None, 0)
    assert not list(tmp_path.rglob("*.*"))


def test_the_directory_of_files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert directory("") == tmp_path / "tl_keras" / "features"
    assert directory(str(tmp_path / "here")) == tmp_path / "here"
