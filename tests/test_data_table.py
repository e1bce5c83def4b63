"""Tables of image files: read whatever program wrote them, checked row by row, with whole groups in one split, and stored by content."""

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plain_config import PLAIN

from tl_keras import data
from tl_keras.cli import main
from tl_keras.config import DataConfig, RunConfig, unused_settings
from tl_keras.data import table_file
from tl_keras.data.table_file import Table, write_table
from tl_keras.errors import ConfigError, DamagedError, MissingError, UserError
from tl_keras.results.split_record import TEST, read_split
from tl_keras.runs.evaluate import evaluate_run
from tl_keras.runs.run import run


def write_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A directory with 0.png to 59.png, all different. Nothing may write to it."""
    directory = tmp_path_factory.mktemp("photos")
    for index in range(60):
        write_image(directory / f"{index}.png", seed=index)
    return directory


def rows(photos, labels=("cat", "dog"), num=20):
    """Return (path, label) of the first images, with alternating labels."""
    return [(f"{photos}/{index}.png", labels[index % len(labels)]) for index in range(num)]


def write(path, lines, header="image,label", delimiter=","):
    path.write_text("\n".join([header, *(delimiter.join(line) for line in lines)]) + "\n", encoding="utf-8")
    return path


def load(path, *, for_scoring=False, **settings):
    return data.load_source(DataConfig(dataset=f"csv:{path}", **settings), for_scoring=for_scoring)


def files_of(examples):
    return {examples.images.records[index].name for index in examples.indices.tolist()}


def test_a_table_is_split_like_a_folder(photos, tmp_path):
    source = load(write(tmp_path / "a.csv", rows(photos)))
    assert source.class_names == ("cat", "dog") and source.train.class_counts == {0: 8, 1: 8} and source.test.class_counts == {0: 2, 1: 2}
    assert "no test split: 4 of the 20 images" in source.notes[0] and not source.has_groups
    for examples in (source.train, source.test):
        for position in range(len(examples)):
            path = examples.images.records[examples.indices[position]]
            np.testing.assert_array_equal(examples.image(position), np.asarray(Image.open(path)))
            assert examples.labels[position] == int(path.stem) % 2


def text_table(photos, delimiter=",", end="\n", quote=""):
    cells = [("image", "label"), *rows(photos)]
    return end.join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) for line in cells) + end


SPELLINGS = {
    "plain": lambda photos: text_table(photos).encode(),
    "byte-order mark": lambda photos: text_table(photos).encode("utf-8-sig"),
    "semicolons": lambda photos: text_table(photos, ";").encode(),
    "tabs": lambda photos: text_table(photos, "\t").encode(),
    "lines of Windows": lambda photos: text_table(photos, end="\r\n").encode(),
    "lines of an old Macintosh": lambda photos: text_table(photos, end="\r").encode(),
    "quotes": lambda photos: text_table(photos, quote='"').encode(),
    "spaces": lambda photos: text_table(photos, " , ").encode(),
    "spaces before quotes": lambda photos: text_table(photos, ", ", quote='"').encode(),
    "empty lines": lambda photos: ("\n" + text_table(photos, end="\n\n") + ",\n\n").encode(),
    "no end of the last line": lambda photos: text_table(photos).rstrip().encode(),
    "an index of pandas": lambda photos: "\n".join(f"{i}," + line for i, line in enumerate(text_table(photos).splitlines())).encode(),
    "an empty last column": lambda photos: "\n".join(line + "," * (line != "image,label") for line in text_table(photos).split()).encode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_tables_of_any_program_are_the_same_data(photos, tmp_path, spelling):
    plain = load(write(tmp_path / "plain.csv", rows(photos)))
    (tmp_path / "other.csv").write_bytes(SPELLINGS[spelling](photos))
    other = load(tmp_path / "other.csv")
    assert (other.fingerprint, other.class_names, other.notes) == (plain.fingerprint, plain.class_names, plain.notes)


def test_cells_with_delimiters_and_accents(tmp_path):
    for index, name in enumerate(("a, b.png", "c;d.png", 'the "best".png', "é.png")):
        write_image(tmp_path / name, seed=index)
    text = 'image,label\n"a, b.png","x, y"\nc;d.png,"x, y"\n"the ""best"".png",é\né.png,é\n'
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    source = load(tmp_path / "a.csv")
    assert source.class_names == ("x, y", "é") and len(source.train) + len(source.test) == 4


def test_the_order_of_rows_and_the_way_of_writing_a_path_do_not_matter(photos, tmp_path, monkeypatch):
    first = load(write(tmp_path / "a.csv", rows(photos)))
    second = load(write(tmp_path / "b.csv", rows(photos)[::-1]))
    relative = load(write(tmp_path / "c.csv", [(os.path.relpath(path, tmp_path), label) for path, label in rows(photos)]))
    monkeypatch.setenv("HOME", str(photos))
    home = load(write(tmp_path / "d.csv", [(f"~/{Path(path).name}", label) for path, label in rows(photos)]))
    assert len({source.fingerprint for source in (first, second, relative, home)}) == 1
    assert files_of(first.test) == files_of(second.test) == files_of(relative.test) == files_of(home.test)


def test_the_fingerprint_changes_with_every_cell(photos, tmp_path):
    lines = [(path, label, "g", "train" if index < 10 else "test") for index, (path, label) in enumerate(rows(photos))]
    changes = [lines[0][:1] + ("dog", "g", "train"), lines[0][:2] + ("h", "train"), lines[0][:3] + ("test",), None]
    seen = set()
    for first in (lines[0], *changes):
        table = write(tmp_path / "a.csv", [*([first] if first else []), *lines[1:]], "image,label,group,split")
        seen.add(load(table, group_column="group", split_column="split").fingerprint)
    assert len(seen) == 5


def test_classes_are_known_by_name_and_sorted_as_text(photos, tmp_path):
    source = load(write(tmp_path / "a.csv", rows(photos, ("2", "10", "1"), 30)))
    assert source.class_names == ("1", "10", "2")
    for examples in (source.train, source.test):
        names = [source.class_names[label] for label in examples.labels]
        assert names == [("2", "10", "1")[int(examples.images.records[index].stem) % 3] for index in examples.indices]


def test_columns_have_any_names(photos, tmp_path):
    lines = [
        (label, path, f"p{index // 2}", ("Training", "val_set", "TEST")[index % 5 // 2]) for index, (path, label) in enumerate(rows(photos))
    ]
    table = write(tmp_path / "a.csv", lines, "diagnosis;file;patient;use", ";")
    source = load(table, image_column="file", label_column="diagnosis", group_column="patient", split_column="use")
    assert (len(source.train), len(source.validation), len(source.test)) == (8, 8, 4) and source.has_groups
    assert source.notes == ("6 groups have images in several given splits: p2, p3, p4, p7, p8, p9",)


BROKEN = {
    "no label column": (
        "image,lable\na.png,x\n",
        r"`label_column=label`: Unknown column 'label'. Did you mean 'lable'\? Known: image, lable",
    ),
    "no image column": ("file,label\na.png,x\n", r"`image_column=image`: Unknown column 'image'.* Known: file, label"),
    "no header": ("a.png,cat\nb.png,dog\n", "Known: a.png, cat. The first line names the columns"),
    "two columns of one name": ("image,label,label\na.png,x,y\n", "`label_column=label`: the table has two columns of this name"),
    "no rows": ("image,label\n", "has no rows"),
    "nothing": ("", "expected a first line"),
    "a missing label": ("image,label\na.png,x\nb.png,\nc.png\n", "2 rows of the table have no label: line 3, line 4"),
    "an empty path": ("image,label\na.png,x\n ,x\n", "1 rows of the table have no path: line 3"),
    "too many cells": ("image,label\na, b.png,x\n", "line 2 has 3 cells, the first line 2. Quote cells"),
    "a quote that is not closed": ('image,label\n"a.png,x\nb.png,y\n', "line 3 is not one of a table"),
    "two labels": ("image,label\na.png,x\nb.png,y\n./a.png,y\n", r"1 rows list a file again .*a.png \(x train; y train\)"),
    "a huge cell": ("image,label\n" + "a" * 200_000 + ",x\n", "line 2 is not one of a table .*field larger"),
    "NUL bytes": ("image,label\na\0.png,x\n", "found NUL bytes"),
    "no file": ("image,label\na.png,x\nb.png,y\n", "2 of the 2 files of the table do not exist: a.png, b.png. Expected absolute paths, or"),
    "paths of Windows": ("image,label\nx\\a.png,x\nx\\b.png,y\n", r"Write / instead of \\"),
    "a long path": ("image,label\n" + "a" * 5000 + ",x\nb.png,y\n", "2 of the 2 files"),
    "one class": ("image,label\na.png,x\nb.png,x\n", "has one class, x"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_tables_that_are_none_are_refused(tmp_path, case):
    text, message = BROKEN[case]
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.csv")


@pytest.mark.parametrize("content, message", [("é".encode("latin-1"), "line 3 is not UTF-8"), ("é".encode("utf-16"), "found NUL bytes")])
def test_other_encodings_are_refused(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(b"image,label\na.png,x\nb.png," + content + b"\n")
    with pytest.raises(DamagedError, match=message):
        load(tmp_path / "a.csv")


def test_a_table_may_not_be_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(table_file, "MAX_BYTES", 20)
    with pytest.raises(DamagedError, match="a table may have at most 20"):
        load(write(tmp_path / "a.csv", [("a.png", "x"), ("b.png", "y")]))


@pytest.mark.parametrize("name", ["", "none.csv", "x" * 5000])
def test_what_is_no_file_is_no_table(tmp_path, name):
    with pytest.raises(ConfigError, match="expected a CSV file"):
        load(tmp_path / name)


def test_a_table_without_its_prefix_is_explained(photos, tmp_path, monkeypatch):
    write(tmp_path / "a.csv", rows(photos))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="it is a file here. If it is a table, write `dataset=csv:a.csv`"):
        data.load_source(DataConfig(dataset="a.csv"))
    assert len({DataConfig(dataset=f"csv:{way}") for way in ("a.csv", "./a.csv", "~/a.csv", tmp_path / "a.csv")}) == 1


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"group_column": "patiens"},
            r"`group_column=patiens`: Unknown column .*Did you mean 'patient'\? .* Leave it empty if there is none",
        ),
        ({"split_column": "use"}, "`split_column=use`: Unknown column 'use'"),
        ({"split_column": "patient"}, "20 rows of the table have an unknown split: 'a' in line 2, .*Expected one of train, training"),
        ({"group_column": "ward"}, "`group_column=ward`: the column is empty. Leave it out"),
        ({"group_column": "label"}, "`group_column=label`: `label_column` is the same column"),
        ({"label_column": ""}, "`label_column=`: expected the name of a column"),
        ({"label": "species"}, "The column of the labels is `label_column`"),
        ({"test_fraction": 1.0}, r"`test_fraction=1.0`: expected a fraction in \(0, 1\)"),
    ],
)
def test_impossible_columns_are_refused(photos, tmp_path, settings, message):
    table = write(tmp_path / "a.csv", [(*row, "a", " ") for row in rows(photos)], "image,label,patient,ward")
    with pytest.raises(ConfigError, match=message):
        load(table, **settings)


@pytest.mark.parametrize(
    "dataset, settings, message",
    [
        ("folder:{}", {"group_column": "patient"}, "has no columns. Use `group_by`, a pattern .*, or a table"),
        ("folder:{}", {"split_column": "split"}, "has no columns. Leave it out, or use a table"),
        ("digits", {"group_column": "patient"}, "digits has no columns. Leave it out"),
        ("digits", {"label_column": "name"}, "`label_column=name`: digits has no columns"),
        ("table:0123456789abcdef", {"group_column": "patient"}, "has the columns that it was made with"),
    ],
)
def test_columns_of_other_data_sets_are_refused(tmp_path, dataset, settings, message):
    config = DataConfig(dataset=dataset.format(tmp_path), **settings)
    with pytest.raises(ConfigError, match=message):
        data.find_dataset(config)
    assert data.find_dataset(DataConfig(**{**vars(config), **unused_settings(config.dataset)})).name == config.dataset


def test_rows_that_repeat_are_used_once(photos, tmp_path):
    source = load(write(tmp_path / "a.csv", [*rows(photos), *rows(photos)[:3]]))
    assert len(source.train) + len(source.test) == 20 and source.notes[0] == "3 rows repeat others and are used once"


def test_copies_and_links_are_kept_together(photos, tmp_path):
    """Two names of one file are two rows, whose equal content makes them a group."""
    for index in range(20):
        (tmp_path / f"link{index}.png").symlink_to(photos / f"{index}.png")
    lines = rows(photos) + [(f"link{index}.png", label) for index, (_, label) in enumerate(rows(photos))]
    source = load(write(tmp_path / "a.csv", lines))
    assert "20 images are copies of others; a carved split keeps copies together" in source.notes
    tested = {name.removeprefix("link") for name in files_of(source.test)}
    assert len(source.test) == 2 * len(tested) and not tested & {name.removeprefix("link") for name in files_of(source.train)}


def test_missing_and_unreadable_files(photos, tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    table = write(tmp_path / "a.csv", [*rows(photos), ("gone.png", "cat"), ("bad.png", "dog")])
    with pytest.raises(DamagedError, match="1 of the 22 files of the table do not exist: gone.png. .* `on_corrupt=skip`"):
        load(table)
    source = load(table, on_corrupt="skip")
    assert len(source.train) + len(source.test) == 20
    assert "skipped: 1 of the 22 files of the table do not exist: gone.png" in source.notes
    assert any("1 unreadable files" in note and "bad.png" in note for note in source.notes)
    write(table, [*rows(photos), ("bad.png", "dog")])
    with pytest.raises(DamagedError, match="1 unreadable files:\n.*bad.png"):
        load(table)


@pytest.mark.parametrize("hostile", ["/dev/zero", "/proc/self/mem", "."])
def test_paths_that_are_no_images_are_refused(photos, tmp_path, hostile):
    with pytest.raises(DamagedError, match="1 unreadable files"):
        load(write(tmp_path / "a.csv", [*rows(photos), (hostile, "cat")]))


def grouped(photos, size=4):
    """Return (path, label, group) of all images, where the images of a group have one label."""
    return [(f"{photos}/{index}.png", ("ill", "well")[index // size % 2], f"patient {index // size}") for index in range(60)]


def groups_of(examples, groups):
    return {groups[int(Path(examples.images.records[index]).stem)] for index in examples.indices.tolist()}


@pytest.mark.parametrize("way", ["column", "pattern", "both"])
def test_no_group_is_in_two_splits_for_any_seed(photos, tmp_path, way):
    lines = grouped(photos)
    groups = [group for *_, group in lines]
    config = DataConfig(
        dataset=f"csv:{write(tmp_path / 'a.csv', lines, 'image,label,patient')}",
        group_column="" if way == "pattern" else "patient",
        group_by="" if way == "column" else r"([0-5]?)\d\.png$",  # the images of a group of ten
        validation_fraction=0.2,
    )
    source = data.load_source(config)
    connected = groups if way == "column" else [f"{index // 10}" for index in range(60)]
    sides = set()
    for seed in range(20):
        splits = data.make_splits(source, config, seed)
        found = [groups_of(examples, groups if way == "both" else connected) for examples in (splits.train, splits.validation, splits.test)]
        assert all(found) and sum(map(len, found)) == len(set.union(*found)), f"seed {seed}"
        sides.add(frozenset(found[1]))
    assert len(sides) > 1, "the seed moves the validation split"


def test_an_image_without_a_group_is_a_group_of_its_own(photos, tmp_path):
    lines = [(path, label, "" if index < 5 else group) for index, (path, label, group) in enumerate(grouped(photos))]
    source = load(write(tmp_path / "a.csv", lines, "image,label,patient"), group_column="patient")
    assert "5 images without a group are groups of their own" in source.notes
    groups = source.train.images.groups
    assert len(set(groups.tolist())) == 5 + 14 and source.has_groups


def test_given_splits_are_used_and_groups_across_them_are_named(photos, tmp_path):
    lines = [(*row, "test" if index % 3 == 0 else "train") for index, row in enumerate(grouped(photos, size=3))]
    table = write(tmp_path / "a.csv", lines, "image,label,patient,split")
    source = load(table, group_column="patient", split_column="split")
    assert files_of(source.test) == {f"{index}.png" for index in range(0, 60, 3)} and len(source.train) == 40
    assert source.notes[0].startswith("20 groups have images in several given splits: patient 0, patient 1, patient 10,")
    assert load(table, split_column="split").notes == ()


def test_a_class_that_is_only_tested_is_refused_but_can_be_scored(photos, tmp_path):
    lines = [(path, label, "train") for path, label in rows(photos)] + [(f"{photos}/40.png", "fox", "test")]
    table = write(tmp_path / "a.csv", lines, "image,label,split")
    with pytest.raises(ConfigError, match="no readable image to train on in the classes fox"):
        load(table, split_column="split")
    assert len(load(table, split_column="split", for_scoring=True).test) == 1
    assert len(load(table, for_scoring=True).test) == 21


def test_the_fraction_for_testing(photos, tmp_path):
    table = write(tmp_path / "a.csv", rows(photos, num=60))
    assert [len(load(table, test_fraction=fraction).test) for fraction in (0.1, 0.2, 0.5, 0.99)] == [6, 12, 30, 58]
    assert files_of(load(table, test_fraction=0.1).test) < files_of(load(table, test_fraction=0.2).test)
    given = write(tmp_path / "b.csv", [(*row, "test" if i < 7 else "train") for i, row in enumerate(rows(photos))], "image,label,split")
    assert len(load(given, split_column="split", test_fraction=0.5).test) == 7
    assert PLAIN.replace(test_fraction=0.3).config_id() != PLAIN.config_id()


class PandasFrame:
    """The part of a data frame of pandas that is used: columns by name, and `columns`, an array of names."""

    def __init__(self, columns):
        self._columns, self.columns = columns, np.array([*columns, 7], object)

    def __getitem__(self, name):
        return self._columns[name]


class PolarsFrame(PandasFrame):
    """Columns are sequences without `__iter__`, and their names are a list."""

    def __init__(self, columns):
        super().__init__(columns)
        self.columns = list(columns)

    def __getitem__(self, name):
        cells = self._columns[name]
        return type("Series", (), {"__getitem__": lambda self, index: cells[index], "__len__": lambda self: len(cells)})()


NA = type("NAType", (), {"__eq__": lambda self, other: NotImplemented, "__bool__": lambda self: [][0]})()


@pytest.mark.parametrize("kind", [dict, PandasFrame, PolarsFrame])
def test_anything_with_columns_is_a_table(photos, tmp_path, kind):
    frame = kind(
        {
            "image": [photos / "0.png", str(photos / "1.png"), np.str_("2.png"), b"3.png", "./4.png", "5.png"],
            "label": np.array([10, 2, 10, 2, 10, 2]),
            "patient": [1.0, 1, np.float32(2), None, float("nan"), NA],
            "split": np.array(["train", "train", "train", "train", "test", "test"]),
        }
    )
    table = Table.from_columns(frame, group_column="patient", split_column="split", directory=photos)
    assert table.class_names == ("10", "2") and table.notes == ("3 images without a group are groups of their own",)
    assert {file.path.name: (table.class_names[file.label], file.group, file.split) for file in table.files} == {
        "0.png": ("10", "1", "train"), "1.png": ("2", "1", "train"), "2.png": ("10", "2", "train"), "3.png": ("2", "", "train"),
        "4.png": ("10", "", "test"), "5.png": ("2", "", "test"),
    }  # fmt: skip
    assert all(file.path.parent == photos for file in table.files)
    source = data.load_source(DataConfig(dataset=write_table(tmp_path, table), data_dir=str(tmp_path)))
    assert source.class_names == table.class_names and files_of(source.test) == {"4.png", "5.png"}


@pytest.mark.parametrize(
    "frame, message",
    [
        ({"image": ["a"], "lable": ["x"]}, "`label_column=label`: Unknown column 'label'. Did you mean 'lable'"),
        ({"image": ["a", "b"], "label": ["x"]}, "different lengths: image 2, label 1"),
        ({"image": ["a", "b"], "label": ["x", None]}, "1 rows of the table have no label: row 2"),
        ({"image": [], "label": []}, "has no rows"),
        ({"image": "a.png", "label": ["x"]}, "The column image is one text"),
        ({"image": ["a"], "label": [0.25]}, "The column label has 0.25. Expected text or whole numbers"),
        ({"image": ["a"], "label": [float("inf")]}, "The column label has inf"),
        ({"image": [np.zeros((2, 2, 3))], "label": ["x"]}, "The column image has array"),
        ({"image": ["a\0b"], "label": ["x"]}, "The column image has 'a.x00b', which is no text"),
        ({"image": ["a\ud800b"], "label": ["x"]}, "which is no text"),
    ],
)
def test_columns_that_are_no_table_are_refused(frame, message):
    with pytest.raises(ConfigError, match=message):
        Table.from_columns(frame)


def test_class_names_in_a_given_order_are_kept(photos, tmp_path):
    frame = {"image": [f"{photos}/{index}.png" for index in range(20)], "label": [(2, 10, 1)[index % 3] for index in range(20)]}
    table = Table.from_columns(frame, class_names=["10", "1", "2"])
    source = data.load_source(DataConfig(dataset=write_table(tmp_path, table), data_dir=str(tmp_path)))
    assert source.class_names == table.class_names == ("10", "1", "2") and table.name != Table.from_columns(frame).name
    for examples in (source.train, source.test):
        assert all(source.class_names[label] == str((2, 10, 1)[int(path.stem) % 3]) for label, path in labelled(examples))
    for names, message in (
        (["10", "1"], "Unknown class '2'"),
        (["1", "10", "2", "3"], "no image of the classes 3"),
        (["1", "1"], "different"),
    ):
        with pytest.raises(ConfigError, match=message):
            Table.from_columns(frame, class_names=names)


def labelled(examples):
    return zip(examples.labels.tolist(), (examples.images.records[index] for index in examples.indices), strict=True)


def test_a_stored_table_is_known_by_its_content_wherever_it_is(photos, tmp_path):
    table = Table.from_csv(write(tmp_path / "a.csv", rows(photos)))
    name = write_table(tmp_path / "one", table)
    assert re.fullmatch("table:[0-9a-f]{16}", name) and write_table(tmp_path / "one", table) == name == table.name
    assert Table.read(tmp_path / "one", name) == table
    (tmp_path / "one").rename(tmp_path / "two")
    (tmp_path / "a.csv").unlink()
    config = DataConfig(dataset=name, data_dir=str(tmp_path / "two"))
    assert len(data.load_source(config).train) == 16
    with pytest.raises(MissingError, match=f"{name} is not in .*one/data.csv. Point `data_dir`"):
        data.load_source(DataConfig(dataset=name, data_dir=str(tmp_path / "one")))
    with pytest.raises(ConfigError, match="data.csv is another table"):
        write_table(tmp_path / "two", Table.from_columns({"image": ["a"], "label": ["x"]}))
    content = (tmp_path / "two" / "data.csv").read_text().replace("dog", "cat", 1)
    (tmp_path / "two" / "data.csv").write_text(content)
    with pytest.raises(DamagedError, match=f"expected {name}, found table:"):
        data.load_source(config)


def test_names_of_files_may_be_any_bytes(tmp_path):
    names = [os.fsdecode(name) for name in (b"caf\xe9.png", b"a\nb.png", b"a\rb.png", b' a",b ;.png', "é.png".encode())]
    for index, name in enumerate(names):
        write_image(tmp_path / name, seed=index)
    frame = {
        "image": [tmp_path / name for name in names],
        "label": ["x", "y", "x", "y", "x"],
        "group": [os.fsdecode(b"\xe9"), "a\rb", "", " ", "c"],
    }
    table = Table.from_columns(frame, group_column="group")
    assert Table.read(tmp_path, write_table(tmp_path, table)).files == table.files
    source = data.load_source(DataConfig(dataset=table.name, data_dir=str(tmp_path)))
    assert files_of(source.train) | files_of(source.test) == set(names)


def test_a_long_table_is_read_fast(tmp_path):
    lines = [(f"images/{index:06}.png", f"class {index % 100}", f"patient {index % 5000}") for index in range(20_000)]
    table = write(tmp_path / "a.csv", lines, "image,label,patient")
    started = time.process_time()
    found = Table.from_csv(table, group_column="patient")
    assert len(found.files) == 20_000 and time.process_time() - started < 5


@pytest.fixture
def config(photos, tmp_path):
    lines = [(*row, f"p{index // 4}") for index, row in enumerate(rows(photos, num=40))]
    for index in (3, 5):
        write_image(tmp_path / f"own{index}.png", seed=100 + index)
        lines[index] = (f"own{index}.png", *lines[index][1:])
    table = write(tmp_path / "a.csv", lines, "image,label,patient")
    return PLAIN.replace(
        dataset=f"csv:{table}", backbone="tiny", weights="none", epochs=1, batch_size=16, learning_rate=0.02, strategy="head",
        precision="float32", group_column="patient", validation_fraction=0.2, test_fraction=0.3,
    )  # fmt: skip


def test_a_run_on_a_table_knows_its_data(photos, config, tmp_path):
    result, record = run(config, tmp_path / "run"), read_split(tmp_path / "run")
    assert result["data"]["num_test"] == 12 and len(record.splits) == 40
    patients = [
        {int(Path(path).stem.removeprefix("own")) // 4 for path in record.paths[record.splits == split].tolist()} for split in range(3)
    ]
    assert sum(map(len, patients)) == 10 and all(patients)
    assert run(config, tmp_path / "run") == result, "the finished run is read back"
    scored = record.paths[record.splits == TEST].tolist()
    write_image(tmp_path / "own3.png", seed=77)
    with pytest.raises(ConfigError, match=r"has changed since it began: 1 added \(own3.png\); 1 removed \(own3.png\)"):
        run(config, tmp_path / "run")
    if "own3.png" not in scored:
        assert evaluate_run(tmp_path / "run", {}).metrics["num_examples"] == 12
    table = Path(config.data.dataset.removeprefix("csv:"))
    table.write_text(table.read_text().replace("own5.png,dog", "own5.png,cat"))
    with pytest.raises(ConfigError, match=r"1 relabelled \(own5.png\)|1 training images of it are not there"):
        run(config, tmp_path / "run")


def test_the_command_line_trains_and_scores_tables(photos, config, tmp_path, capsys):
    directory = tmp_path / "run"
    given = {name: value for name, value in config.to_dict().items() if value != RunConfig().to_dict()[name]}
    command = ["train", f"--run_dir={directory}", *(f"--{name}={value}" for name, value in given.items())]
    assert main(command) == 0 and main(command) == 0
    assert read_split(directory).groups is not None
    new = write(tmp_path / "new.csv", [(f"{photos}/{index}.png", "dog", "p") for index in range(40, 60)], "image,label,patient")
    folder = tmp_path / "folder"
    write_image(folder / "cat" / "new.png", seed=500)
    for dataset, words in {f"csv:{new}": ["n = 20", "1 of 2 classes have no test image"], f"folder:{folder}": ["n = 1"]}.items():
        capsys.readouterr()
        assert main(["evaluate", f"--run_dir={directory}", f"--dataset={dataset}"]) == 0
        printed = capsys.readouterr().out
        assert all(word in printed for word in words), printed
    assert main(["evaluate", f"--run_dir={directory}", f"--dataset=folder:{folder}", "--group_column=patient"]) == 2
    assert "--group_column=patient: " in capsys.readouterr().err
    write(new, [(f"{photos}/{index}.png", "dog") for index in range(40, 60)])
    assert main(["evaluate", f"--run_dir={directory}", f"--dataset=csv:{new}"]) == 2
    assert "Leave it empty if there is none" in capsys.readouterr().err
    assert main(["evaluate", f"--run_dir={directory}", f"--dataset=csv:{new}", "--group_column="]) == 0
