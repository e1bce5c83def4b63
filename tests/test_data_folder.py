"""Folders of images: found in order, checked file by file, refused with the names of the files."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from tl_keras import data
from tl_keras.config import DataConfig
from tl_keras.errors import ConfigError, DamagedError


def write_image(path, seed=0, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)


def write_classes(root, class_names=("dog", "cat"), num=5, first=0):
    for label, name in enumerate(class_names):
        for index in range(num):
            write_image(root / name / f"{index}.png", seed=first + 100 * label + index)


def load(root, **settings):
    return data.load_source(DataConfig(dataset=f"folder:{root}", **settings))


def test_a_folder_per_class_without_splits_gets_a_test_split(tmp_path):
    write_classes(tmp_path)
    source = load(tmp_path)
    assert source.class_names == ("cat", "dog") and source.train.size == (6, 5) and source.name == f"folder:{tmp_path}"
    assert source.train.class_counts == {0: 4, 1: 4} and source.test.class_counts == {0: 1, 1: 1}
    assert "no test split" in source.notes[0]
    everything = {source.train.image(index).tobytes() for index in range(8)} | {source.test.image(index).tobytes() for index in range(2)}
    assert len(everything) == 10


@pytest.mark.parametrize("validation", ["validation", "val", "valid", None])
def test_folders_of_splits_are_the_splits(tmp_path, validation):
    for number, split in enumerate(filter(None, ("train", validation, "test"))):
        write_classes(tmp_path / split, num=number + 2, first=1000 * number)
    source = load(tmp_path)
    assert len(source.train) == 4 and len(source.test) == (8 if validation else 6) and source.notes == ()
    assert (source.validation and len(source.validation)) == (6 if validation else None)


def test_images_may_differ_in_size_and_format(tmp_path):
    write_classes(tmp_path)
    write_image(tmp_path / "dog" / "wide.jpg", size=(6, 50))
    assert load(tmp_path).train.size is None


# Synology and QNAP (photoview/photoview#430), Windows, macOS, Linux, Jupyter, photo tools
JUNK = (
    ".DS_Store", "dog/.DS_Store", "dog/Thumbs.db", "cat/desktop.ini", "cat/Icon\r", "cat/._0.png", "dog/Picasa.ini", "dog/ehthumbs.db",
    "@eaDir/", "dog/@eaDir/", "@Recently-Snapshot/", "dog/.@__thumb/",
    "#recycle/", "@Recycle/", "$RECYCLE.BIN/", "System Volume Information/", "lost+found/", ".git/", "__MACOSX/",
    "dog/.cache/", ".ipynb_checkpoints/", "dog/.ipynb_checkpoints/",
)  # fmt: skip


@pytest.mark.parametrize("name", JUNK)
def test_hidden_files_and_junk_are_ignored(tmp_path, name):
    write_classes(tmp_path)
    before = load(tmp_path)
    if name.endswith("/"):
        write_image(tmp_path / name / "thumbnail.png", seed=99)
    else:
        (tmp_path / name).write_text("junk")
    after = load(tmp_path)
    assert after.fingerprint == before.fingerprint and after.class_names == ("cat", "dog") and after.notes == before.notes


def test_sidecar_files_are_not_read_and_noted(tmp_path):
    write_classes(tmp_path)
    before = load(tmp_path).fingerprint
    for name in ("dog/0.txt", "dog/1.xmp", "cat/0.json", "cat/1.JSON", "cat/2.png.dvc"):
        (tmp_path / name).write_text("text")
    source = load(tmp_path)
    assert source.fingerprint == before
    assert source.notes[0] == "files beside the images are not read: 1 .dvc, 2 .json, 1 .txt, 1 .xmp"


def test_images_beside_the_class_folders_are_noted(tmp_path):
    write_classes(tmp_path)
    write_image(tmp_path / "forgotten.png")
    assert load(tmp_path).notes[0] == "1 files beside the folders of the classes are not used: forgotten.png"


SPELLINGS = [
    ("Train", "Test"), ("TRAIN", "TEST"), ("training", "testing"), ("Training_Set", "Test_Set"), ("train_images", "test-images"),
    ("trainset", "testset"), ("train split", "tests"),
]  # fmt: skip


@pytest.mark.parametrize("train, test", SPELLINGS)
def test_folders_of_splits_in_usual_spellings(tmp_path, train, test):
    write_classes(tmp_path / train, num=3)
    write_classes(tmp_path / test, num=2, first=1000)
    source = load(tmp_path)
    assert (len(source.train), len(source.test)) == (6, 4) and source.class_names == ("cat", "dog")


@pytest.mark.parametrize("name", ["train", "test", "val", "Training"])
def test_a_class_called_like_a_split_is_a_class(tmp_path, name):
    write_classes(tmp_path, ("bus", name))
    assert set(load(tmp_path).class_names) == {"bus", name}


def test_test_images_without_classes_are_noted_and_not_used(tmp_path):
    """Competitions hand out their test images so (fastai/fastai#1056)."""
    write_classes(tmp_path / "train")
    write_image(tmp_path / "test" / "0.png", seed=99)
    source = load(tmp_path)
    assert source.class_names == ("cat", "dog") and len(source.train) + len(source.test) == 10
    assert source.notes[0] == "test/ holds images without classes, so it is not used"


def test_a_folder_of_annotations_beside_the_splits_is_no_split(tmp_path):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "test", first=1000)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "labels.csv").write_text("a,b")
    assert len(load(tmp_path).train) == 10


@pytest.mark.parametrize("inner", ["photos", "photos/images"])
def test_a_folder_inside_a_folder_is_passed_through(tmp_path, inner):
    write_classes(tmp_path / inner)
    source = load(tmp_path)
    assert source.class_names == ("cat", "dog") and source.notes[0] == f"the images are those of {inner}/"


def test_a_single_folder_of_train_is_no_wrapper(tmp_path):
    write_classes(tmp_path / "train")
    assert load(tmp_path).notes[0].startswith("no test split")


@pytest.mark.parametrize("name, shown", [(b"caf\xe9.png", "caf\\xe9.png"), ("café.png".encode(), "café.png"), (b"a\nb.png", "a\nb.png")])
def test_names_of_files_may_be_any_bytes(tmp_path, name, shown):
    write_classes(tmp_path)
    before = load(tmp_path).fingerprint
    path = tmp_path / os.fsdecode(b"cat/" + name)
    write_image(path)
    assert load(tmp_path).fingerprint != before
    path.write_bytes(b"bad")
    with pytest.raises(DamagedError) as raised:
        load(tmp_path)
    assert shown in str(raised.value) and str(raised.value).encode()


def test_names_of_classes_may_be_any_bytes(tmp_path):
    write_classes(tmp_path, ("dog", os.fsdecode(b"caf\xe9")))
    assert load(tmp_path).class_names == ("caf\\xe9", "dog")


def test_the_two_normal_forms_of_a_name_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write_classes(tmp_path / "train", ("dog", composed))
    write_classes(tmp_path / "test", ("dog", decomposed), first=1000)
    write_classes(tmp_path / "train", (decomposed,), num=1, first=2000)
    source = load(tmp_path)
    assert (
        source.class_names == (composed, "dog") and source.train.class_counts == {0: 6, 1: 5} and source.test.class_counts == {0: 5, 1: 5}
    )


def test_a_test_split_may_lack_classes(tmp_path):
    write_classes(tmp_path / "train", ("ant", "cat", "dog"))
    write_classes(tmp_path / "test", ("dog",), first=1000)
    (tmp_path / "test" / "cat").mkdir()
    assert load(tmp_path).test.class_counts == {2: 5}


def test_the_fingerprint_changes_with_any_file_and_not_with_the_path(tmp_path):
    write_classes(tmp_path)
    seen = {load(tmp_path).fingerprint}
    write_image(tmp_path / "dog" / "0.png", seed=77)
    seen.add(load(tmp_path).fingerprint)
    (tmp_path / "dog" / "0.png").rename(tmp_path / "cat" / "9.png")
    seen.add(load(tmp_path).fingerprint)
    assert len(seen) == 3
    write_classes(tmp_path / "elsewhere" / "one")
    write_classes(tmp_path / "elsewhere" / "two")
    assert load(tmp_path / "elsewhere" / "one").fingerprint == load(tmp_path / "elsewhere" / "two").fingerprint


def test_all_unreadable_files_are_listed(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "dog" / "notes.jpg").write_text("no image")
    (tmp_path / "cat" / "empty.jpg").write_bytes(b"")
    with pytest.raises(DamagedError, match="2 unreadable files") as raised:
        load(tmp_path)
    assert "notes.jpg" in str(raised.value) and "empty.jpg" in str(raised.value) and "on_corrupt=skip" in str(raised.value)
    skipped = load(tmp_path, on_corrupt="skip")
    assert len(skipped.train) + len(skipped.test) == 10
    assert "2 unreadable" in skipped.notes[0] and "notes.jpg" in skipped.notes[0]
    assert [path for path, _ in skipped.unreadable] == ["cat/empty.jpg", "dog/notes.jpg"]
    assert all(reason and str(tmp_path) not in reason for _, reason in skipped.unreadable)


def test_a_long_list_is_shortened(tmp_path):
    write_classes(tmp_path)
    for index in range(25):
        (tmp_path / "dog" / f"bad{index:02}.png").write_bytes(b"bad")
    with pytest.raises(DamagedError, match="25 unreadable files") as raised:
        load(tmp_path)
    assert str(raised.value).count("bad") >= 10 and "and 15 more" in str(raised.value)


def empty_class(root):
    (root / "eel").mkdir()


def single_class(root):
    for path in (root / "dog").iterdir():
        path.unlink()
    (root / "dog").rmdir()


def nested_folder(root):
    write_image(root / "dog" / "puppies" / "0.png")


def link_to_outside(root):
    write_image(root.parent / "outside.png")
    (root / "dog" / "link.png").symlink_to(root.parent / "outside.png")


def folder_link_to_outside(root):
    write_classes(root.parent / "outside", ("fox",))
    (root / "fox").symlink_to(root.parent / "outside" / "fox")


def folder_beside_train(root):
    write_classes(root / "train")


def two_validation_folders(root):
    for name in ("dog", "cat"):
        (root / name).rename(root.parent / name)
    for name in ("train", "val", "validation"):
        write_classes(root / name)


def folder_of_texts(root):
    """A folder of labels, as detectors have it beside their images."""
    (root / "labels").mkdir()
    for index in range(3):
        (root / "labels" / f"{index}.txt").write_text("0 0.5 0.5 1 1")


def different_classes_in_test(root):
    for name in ("dog", "cat"):
        (root / name).rename(root.parent / name)
    write_classes(root / "train")
    write_classes(root / "test", ("dog", "eel"))


def folders_of_classes(root):
    for name in ("dog", "cat"):
        (root / name).rename(root.parent / name)
    write_classes(root / "felidae", ("lion", "lynx"))
    write_classes(root / "canidae", ("wolf", "fox"))


WRONG = {
    empty_class: "class 'eel' is empty",
    folder_of_texts: r"class 'labels' holds no images, only 3 \.txt",
    single_class: "two or more classes, found cat",
    nested_folder: "puppies: expected an image, found a folder",
    link_to_outside: "link.png: a link to outside",
    folder_link_to_outside: "a link to outside",
    folder_beside_train: "beside the training images, expected .* found cat, dog, train",
    two_validation_folders: "beside the training images, expected .* found train, val, validation",
    different_classes_in_test: "it lacks eel",
    folders_of_classes: "found a folder. Put the images .* or make each such folder a class",
}


@pytest.mark.parametrize("change, message", WRONG.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_wrong_layouts_are_refused(tmp_path, change, message):
    root = tmp_path / "images"
    write_classes(root)
    change(root)
    with pytest.raises(ConfigError, match=message):
        load(root)


def test_a_link_within_the_folder_is_an_image(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "dog" / "again.png").symlink_to(tmp_path / "dog" / "0.png")
    source = load(tmp_path)
    assert len(source.train) + len(source.test) == 11


@pytest.mark.parametrize("target", ["nothing.png", "gone.png"], ids=["to nothing", "to itself"])
def test_a_broken_link_is_an_unreadable_file(tmp_path, target):
    write_classes(tmp_path)
    (tmp_path / "dog" / "gone.png").symlink_to(tmp_path / "dog" / target)
    with pytest.raises(DamagedError, match="gone.png"):
        load(tmp_path)
    assert "1 unreadable" in load(tmp_path, on_corrupt="skip").notes[0]


@pytest.mark.parametrize("change", [link_to_outside, folder_link_to_outside])
def test_links_to_anywhere_can_be_allowed(tmp_path, change):
    root = tmp_path / "images"
    write_classes(root)
    change(root)
    source = load(root, links="anywhere")
    assert len(source.train) + len(source.test) in (11, 15)


def test_a_folder_is_one_data_set_however_its_path_is_written(tmp_path, monkeypatch):
    write_classes(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    ways = ("photos", "photos/", "./photos", "~/photos", str(tmp_path / "photos"))
    assert len({DataConfig(dataset=f"folder:{way}") for way in ways}) == 1


def test_a_folder_without_its_prefix_is_explained(tmp_path, monkeypatch):
    write_classes(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "photos/", str(tmp_path / "photos")):
        with pytest.raises(ConfigError, match=f"dataset=folder:{name}`"):
            data.load_source(DataConfig(dataset=name))


def test_a_class_without_a_readable_image_is_refused(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "eel").mkdir()
    (tmp_path / "eel" / "0.png").write_bytes(b"bad")
    with pytest.raises(ConfigError, match="no readable image to train on in the classes eel"):
        load(tmp_path, on_corrupt="skip")


def test_copies_of_training_images_in_the_test_split_are_noted(tmp_path):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "test", first=1000)
    write_image(tmp_path / "test" / "cat" / "leak.png", seed=0)
    assert "1 images outside train are copies of training images: leak.png" in load(tmp_path).notes[0]


def test_copies_of_validation_images_in_the_test_split_are_noted(tmp_path):
    """The epoch to test is chosen on them (ArnabKumarRoy02/ResEmoteNet#44)."""
    for number, split in enumerate(("train", "validation", "test")):
        write_classes(tmp_path / split, first=1000 * number)
    (tmp_path / "test" / "dog" / "copy.png").write_bytes((tmp_path / "validation" / "dog" / "0.png").read_bytes())
    assert load(tmp_path).notes == ("1 test images are copies of validation images: copy.png",)


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar.gz"])
def test_an_archive_is_to_be_unpacked(tmp_path, name):
    write_classes(tmp_path / "photos")
    shutil.make_archive(str(tmp_path / "photos"), {"photos.zip": "zip"}.get(name, "gztar"), tmp_path / "photos")
    with pytest.raises(ConfigError, match="is not a folder. Unpack it first"):
        load(tmp_path / name)


def test_pixels_equal_those_of_the_files(tmp_path):
    write_classes(tmp_path / "train")
    source = load(tmp_path)
    loaded = {examples.image(index).tobytes() for examples in (source.train, source.test) for index in range(len(examples))}
    assert np.asarray(Image.open(tmp_path / "train" / "cat" / "0.png")).tobytes() in loaded


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are read."""
    names = []

    def read_bytes(path):
        names.append(path.name)
        return path.read_bytes()

    monkeypatch.setattr("tl_keras.data.file_checks.read_bytes", read_bytes)
    return names


def test_files_are_read_again_only_if_they_may_have_changed(tmp_path, read):
    write_classes(tmp_path)
    first = load(tmp_path)
    assert len(read) == 10
    read.clear()
    assert load(tmp_path).fingerprint == first.fingerprint and not read
    write_image(tmp_path / "dog" / "new.png", seed=99)
    load(tmp_path)
    assert read == ["new.png"]
    read.clear()
    load(tmp_path, rehash=True)
    assert len(read) == 11


def test_a_file_replaced_by_one_of_equal_size_and_age_is_read_again(tmp_path, read):
    """Bitmaps of one shape have one size, and `cp --preserve` and `rsync -t` keep the time of modification."""
    write_classes(tmp_path)
    for path, seed in ((tmp_path / "dog" / "9.bmp", 1), (tmp_path / "other.bmp", 2)):
        write_image(path, seed=seed)
    before = load(tmp_path).fingerprint
    target, other = tmp_path / "dog" / "9.bmp", tmp_path / "other.bmp"
    status = target.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    content = other.read_bytes()
    assert len(content) == status.st_size
    read.clear()
    target.write_bytes(content)  # in place: even the inode is the same
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load(tmp_path).fingerprint != before and read == ["9.bmp"]


DAMAGES = {
    "empty": None,
    "no version": (lambda arrays: arrays, {}),
    "another version": (lambda arrays: arrays, {"version": [1, "x"], "notes": [""]}),
    "no digests": (lambda arrays: {name: array for name, array in arrays.items() if name != "digests"}, None),
    "too few digests": (lambda arrays: arrays | {"digests": arrays["digests"][1:]}, None),
    "keys of another type": (lambda arrays: arrays | {"keys": arrays["keys"].astype(np.int64)}, None),
    "an absent note": (lambda arrays: arrays | {"note_of": arrays["note_of"] + 1}, None),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_kept_checks_are_ignored(tmp_path, damage, read):
    from tl_keras.data import file_checks
    from tl_keras.utils.files import read_npz, write_npz

    write_classes(tmp_path)
    first = load(tmp_path).fingerprint
    path = file_checks._cache_file(tmp_path)
    if DAMAGES[damage] is None:
        path.write_bytes(b"")
    else:
        change, meta = DAMAGES[damage]
        arrays, own = read_npz(path)
        write_npz(path, change(arrays), meta=own if meta is None else meta)
    read.clear()
    assert load(tmp_path).fingerprint == first and len(read) == 10


def test_remarks_on_files_are_kept(tmp_path, read):
    write_classes(tmp_path)
    for name in ("a.png", "b.png"):
        Image.new("I;16", (4, 4), 700).save(tmp_path / "dog" / name)
    first = load(tmp_path).notes
    read.clear()
    assert load(tmp_path).notes == first and not read and any("a.png, b.png" in note for note in first)
