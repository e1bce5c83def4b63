"""Carved splits of folders: every class on both sides, copies and groups on one, and little movement when files change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tl_keras import data
from tl_keras.config import DataConfig, RunConfig
from tl_keras.data.carve import carve
from tl_keras.data.examples import Examples, ImageStore
from tl_keras.data.groups import connect_groups, group_names
from tl_keras.errors import ConfigError
from tl_keras.runs.run import run


def examples(labels, groups=None, contents=None):
    """Return examples of a folder, whose images have the contents 0, 1, ..."""
    labels = np.asarray(labels, np.int64)
    contents = range(len(labels)) if contents is None else contents
    digests = [int(content).to_bytes(8, "little") for content in contents]
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    store = ImageStore(
        np.zeros((len(labels), 1, 1, 3), np.uint8), paths=[str(index) for index in range(len(labels))], digests=digests, groups=groups
    )
    return Examples(store, np.arange(len(labels)), labels)


COUNTS = st.lists(st.integers(1, 30), min_size=2, max_size=8)


@settings(deadline=None, max_examples=60)
@given(COUNTS, st.integers(0, 1000), st.floats(0.05, 0.5))
def test_a_class_of_two_images_is_on_both_sides_and_one_of_one_in_the_rest(counts, seed, fraction):
    labels = np.repeat(np.arange(len(counts)), counts)
    taken, rest = carve(examples(labels), max(1, round(fraction * len(labels))), seed)
    assert sorted([*taken, *rest]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        assert (labels[rest] == label).any() and (labels[taken] == label).any() == (count > 1)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 12), min_size=4, max_size=60), st.integers(0, 1000))
def test_a_group_is_on_one_side(groups, seed):
    labels = [group % 3 for group in groups]
    taken, rest = carve(examples(labels, groups), max(1, len(groups) // 5), seed)
    assert not {groups[index] for index in taken} & {groups[index] for index in rest}


def test_a_class_that_is_one_group_stays_in_the_rest():
    taken, rest = carve(examples([0] * 6 + [1] * 6, [0, 0, 1, 1, 2, 2, *[3] * 6]), 4, seed=0)
    assert all(index < 6 for index in taken) and {6, 7, 8, 9, 10, 11} <= set(rest.tolist())


@settings(deadline=None, max_examples=40)
@given(COUNTS, st.integers(0, 1000))
def test_one_image_more_moves_at_most_one_of_its_class_out_of_a_split(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    before = set(carve(examples(labels), max(1, round(0.2 * len(labels))), seed)[0].tolist())
    after = set(carve(examples([*labels, 0]), max(1, round(0.2 * (len(labels) + 1))), seed)[0].tolist())
    for label in range(len(counts)):
        members = set(np.flatnonzero(labels == label).tolist())
        assert len(before & members - after) <= 1


def test_the_order_of_the_files_does_not_matter():
    labels, permutation = np.tile([0, 1, 2], 20), np.random.default_rng(0).permutation(60)
    before = carve(examples(labels), 12, seed=3)[0]
    after = carve(examples(labels[permutation], contents=permutation), 12, seed=3)[0]
    assert set(before.tolist()) == set(permutation[after].tolist())


def test_keys_and_copies_connect_images():
    paths = ["p1_a.png", "p1_b.png", "p2_a.png", "p3_a.png"]
    digests = [b"a", b"b", b"a", b"c"]
    assert len(set(connect_groups(digests, group_names(paths)).tolist())) == 3
    groups = connect_groups(digests, group_names(paths, r"^(p\d)")).tolist()
    assert groups[0] == groups[1] == groups[2] != groups[3]
    with pytest.raises(ConfigError, match=r"2 of 4 paths do not match: p2_a.png, p3_a.png"):
        group_names(paths, r"p(1)")


def test_a_column_of_groups_connects_images_and_an_empty_cell_none():
    digests = [b"a", b"b", b"a", b"c", b"d", b"e"]
    groups = connect_groups(digests, group_names([""] * 6, column=["x", "y", "", "y", "", ""])).tolist()
    assert groups[0] == groups[2] and groups[1] == groups[3] and len(set(groups)) == 4


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)).save(path)


def load(root, **settings):
    config = DataConfig(dataset=f"folder:{root}", **settings)
    source = data.load_source(config)
    return source, data.make_splits(source, config, seed=0)


def fill(root, counts):
    for label, (name, count) in enumerate(counts.items()):
        for index in range(count):
            write_image(root / name / f"{index}.png", seed=1000 * label + index)


def test_rare_classes_are_tested_or_named(tmp_path):
    fill(tmp_path, {"common": 200, "rare": 3, "two": 2, "single": 1})
    source, splits = load(tmp_path)
    names = source.class_names
    for examples, expected in ((splits.train, {*names}), (splits.validation, {"common", "rare"}), (splits.test, {"common", "rare", "two"})):
        assert {names[label] for label in examples.class_counts} == expected
    (note,) = data.untested_classes(splits.test, names)
    assert note.startswith("1 of 4 classes have no test image") and note.endswith("single")


def test_untested_classes_are_named_on_the_terminal_and_in_the_result(tmp_path, capsys):
    fill(tmp_path / "photos", {"common": 20, "single": 1})
    config = RunConfig().replace(dataset=f"folder:{tmp_path / 'photos'}", backbone="tiny", weights="none", epochs=1, precision="float32")
    result = run(config, tmp_path / "run", verbose=2)
    note = "1 of 2 classes have no test image, so balanced accuracy is over the others: single"
    assert f"note      {note}\n" in capsys.readouterr().out and note in result["data"]["notes"]


def test_copies_stay_on_one_side_whatever_their_container(tmp_path):
    fill(tmp_path, {"cat": 40, "dog": 40})
    for path in list(tmp_path.glob("*/*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
    source, splits = load(tmp_path)
    contents = [
        {examples.image(index).tobytes() for index in range(len(examples))} for examples in (splits.train, splits.validation, splits.test)
    ]
    assert not contents[0] & contents[1] and not contents[0] & contents[2] and not contents[1] & contents[2]
    assert "80 images are copies of others; a carved split keeps copies together" in source.notes


def test_one_picture_under_two_labels_is_named(tmp_path):
    fill(tmp_path, {"cat": 10, "dog": 10})
    write_image(tmp_path / "dog" / "cat.png", seed=0)
    source, _ = load(tmp_path)
    assert "2 images are of one picture under two labels: 0.png, cat.png" in source.notes


def test_pictures_of_one_patient_stay_on_one_side(tmp_path):
    for patient in range(12):
        for index in range(5):
            write_image(tmp_path / ("ill", "well")[patient % 2] / f"patient{patient:02}_{index}.png", seed=100 * patient + index)
    _, splits = load(tmp_path, group_by=r"patient(\d+)", validation_fraction=0.2)
    patients = [
        {examples.images.paths[index].split("patient")[1][:2] for index in examples.indices}
        for examples in (splits.train, splits.validation, splits.test)
    ]
    assert sum(map(len, patients)) == 12 == len(set.union(*patients)) and all(patients)


@pytest.mark.parametrize("settings, message", [({"group_by": "("}, "a regular expression"), ({"group_by": "x"}, "has no file names")])
def test_impossible_groups_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        data.load_source(DataConfig(dataset="digits", **settings))
