"""The recorded split of a run is obeyed whatever happens to the folder, or the run is refused with what has changed."""

import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from plain_config import PLAIN

from tl_keras import data
from tl_keras.config import DataConfig
from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.exports import export_run
from tl_keras.results.split_record import SPLIT, TEST, TRAIN, read_split, write_split
from tl_keras.runs import run_data
from tl_keras.runs.evaluate import evaluate_run
from tl_keras.runs.run import run


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path):
    """80 pictures of noise with random labels, in a flat folder."""
    labels = np.random.default_rng(0).integers(0, 2, 80)
    for index, label in enumerate(labels):
        write_image(tmp_path / "photos" / ("cat", "dog")[label] / f"{index:02}.png", seed=index)
    return tmp_path / "photos"


def load(photos):
    config = DataConfig(dataset=f"folder:{photos}", on_corrupt="skip")
    source = data.load_source(config)
    return source, data.make_splits(source, config, seed=0)


def contents(examples):
    return [examples.image(index).tobytes() for index in range(len(examples))]


def some(photos, name="cat", number=0):
    return sorted((photos / name).iterdir())[number]


def add(photos):
    write_image(photos / "cat" / "000.png", seed=1000)


def rename(photos):
    some(photos).rename(photos / "cat" / "zzz.png")


def rename_the_folder(photos):
    photos.rename(photos.parent / "moved")
    (photos.parent / "moved").rename(photos)


def copy(photos):
    (photos / "dog" / "copy.png").write_bytes(some(photos, "dog").read_bytes())


HARMLESS = {add: "1 added (cat/000.png)", rename: "1 renamed (cat/", copy: "1 added (dog/copy.png)", rename_the_folder: ""}


@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.__name__)
def test_additions_and_new_names_leave_the_split_as_it_was(photos, change):
    source, before = load(photos)
    record, names = run_data.record_split(source, before), ("train", "validation", "test")
    expected = [(contents(getattr(before, name)), getattr(before, name).labels.tolist()) for name in names]
    change(photos)
    source, _ = load(photos)
    after, note = run_data.restore_splits(record, source)
    assert [(contents(getattr(after, name)), getattr(after, name).labels.tolist()) for name in names] == expected
    assert HARMLESS[change] in note and bool(note) == (source.fingerprint != record.fingerprint)


def of_split(photos, split):
    """Return the path of an image of a split."""
    _, splits = load(photos)
    examples = getattr(splits, split)
    return photos / examples.images.paths[int(examples.indices[0])]


def delete(path):
    path.unlink()


def corrupt(path):
    path.write_bytes(b"bad")


def replace(path):
    write_image(path, seed=2000)


def move(path):
    path.rename(path.parents[1] / ("dog" if path.parent.name == "cat" else "cat") / "moved.png")


HARMFUL = {delete: "1 removed", corrupt: "1 removed", replace: "1 added .*1 removed", move: "1 relabelled"}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("change", HARMFUL, ids=lambda change: change.__name__)
def test_images_that_are_gone_are_named(photos, change, split):
    source, splits = load(photos)
    record = run_data.record_split(source, splits)
    tested = contents(splits.test)
    change(of_split(photos, split))
    source, _ = load(photos)
    with pytest.raises(ConfigError, match=f"1 {dict(train='training').get(split, split)} images .*{HARMFUL[change]}"):
        run_data.restore_splits(record, source)
    if split != "test":  # evaluation needs the test images alone
        test = run_data.restore_splits(record, source, needed=(TEST,))[0].test
        assert contents(test) == tested


def test_another_set_of_classes_is_refused(photos):
    source, splits = load(photos)
    record = run_data.record_split(source, splits)
    write_image(photos / "ant" / "0.png", seed=1)
    with pytest.raises(ConfigError, match="The classes of the run are cat, dog; .* has ant, cat, dog"):
        run_data.restore_splits(record, load(photos)[0])


def test_copies_of_a_picture_stay_where_they_were(photos):
    for number in range(8):
        path = some(photos, number=number)
        (photos / "cat" / f"copy{number}.png").write_bytes(path.read_bytes())
    source, before = load(photos)
    after, note = run_data.restore_splits(run_data.record_split(source, before), source)
    assert not note and after.train.indices.tolist() == before.train.indices.tolist()


def test_the_record_is_read_back(photos, tmp_path):
    source, splits = load(photos)
    record = run_data.record_split(source, splits)
    assert read_split(tmp_path) is None
    write_split(tmp_path, record)
    again = read_split(tmp_path)
    assert again.fingerprint == record.fingerprint and again.class_names == record.class_names
    for name in ("digests", "labels", "splits", "paths"):
        np.testing.assert_array_equal(getattr(again, name), getattr(record, name))
    (tmp_path / SPLIT).write_bytes((tmp_path / SPLIT).read_bytes()[:100])
    with pytest.raises(DamagedError, match="cannot be read"):
        read_split(tmp_path)


def test_data_sets_without_files_are_recorded_by_content(tiny_config):
    config = tiny_config.data
    source = data.load_source(config)
    splits = data.make_splits(source, config, seed=0)
    record = run_data.record_split(source, splits)
    restored, note = run_data.restore_splits(record, source)
    assert not note and len(record.splits) == sum(len(part) for part in (splits.train, splits.validation, splits.test))
    assert contents(restored.test) == contents(splits.test)


@pytest.fixture
def config(photos):
    return PLAIN.replace(
        dataset=f"folder:{photos}", backbone="tiny", weights="none", epochs=2, batch_size=16, learning_rate=0.02, strategy="head",
        precision="float32", on_corrupt="skip",
    )  # fmt: skip


def recorded_contents(run_dir):
    """Return the contents of the images that a run has tested, and of those that it was trained on."""
    record = read_split(run_dir)
    return tuple(set(record.digests[record.splits == split].tolist()) for split in (TEST, TRAIN))


def test_a_finished_run_is_scored_on_its_own_test_images(photos, config, tmp_path):
    directory = tmp_path / "run"
    result = run(config, directory)
    tested, trained = recorded_contents(directory)
    assert not tested & trained and len(tested) == 16
    add(photos)
    scored = evaluate_run(directory, {})
    assert scored.metrics["accuracy"] == result["metrics"]["test"]["accuracy"] and scored.metrics["num_examples"] == 16
    assert "1 added (cat/000.png)" in scored.notes[-1]
    with pytest.raises(ConfigError, match=r"finished run, and .* has changed since it began: 1 added \(cat/000.png\)"):
        run(config, directory)


def test_evaluation_refuses_a_test_split_with_a_changed_image(photos, config, tmp_path):
    run(config, tmp_path / "run")
    delete(of_split(photos, "test"))
    with pytest.raises(ConfigError, match="1 test images of it are not there any more: 1 removed"):
        evaluate_run(tmp_path / "run", {})


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("change", [add, rename, delete])
def test_an_interrupted_run_goes_on_with_its_split_or_not_at_all(photos, config, tmp_path, change):
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(config, directory, callbacks=[Stop()])
    before = read_split(directory)
    if change is delete:
        delete(of_split(photos, "train"))
        with pytest.raises(ConfigError, match="1 training images of it are not there any more"):
            run(config, directory)
        return
    change(photos)
    result = run(config, directory)
    np.testing.assert_array_equal(read_split(directory).digests, before.digests)
    assert result["data"]["fingerprint"] == before.fingerprint and "has changed since the run began" in result["data"]["notes"][-1]


def test_a_failed_start_leaves_the_directory_free(config, tmp_path):
    with pytest.raises(MissingError):
        run(config.replace(weights=str(tmp_path / "none.npz")), tmp_path / "run")
    assert run(config, tmp_path / "run")["data"]["num_test"] == 16


def test_weights_given_by_a_path_are_known_by_content(config, finished_run, tmp_path):
    shutil.copy(finished_run.directory / "model.keras", tmp_path / "weights.keras")
    config = config.replace(weights=str(tmp_path / "weights.keras"), epochs=1)
    run(config, tmp_path / "run")
    keras.models.load_model(tmp_path / "weights.keras", compile=False).save(tmp_path / "weights.keras")
    with pytest.raises(ConfigError, match="another content of `weights"):
        run(config, tmp_path / "run")


def test_an_export_needs_no_training_pictures(photos, config, tmp_path):
    run(config, tmp_path / "run")
    photos.rename(tmp_path / "elsewhere")
    record = export_run(tmp_path / "run", "keras", tmp_path / "exported")["keras"]
    assert record["num_images"] == 16
    other = export_run(tmp_path / "run", "keras", tmp_path / "again", data_settings={"dataset": f"folder:{tmp_path / 'elsewhere'}"})[
        "keras"
    ]
    assert other["num_images"] == 80


def new_pictures(folder, counts):
    for name, count in counts.items():
        for index in range(count):
            write_image(folder / name / f"{index}.png", seed=5000 + index + 100 * sum(map(ord, name)))
    return {"dataset": f"folder:{folder}"}


def test_every_picture_of_a_new_folder_is_scored(config, tmp_path):
    run(config, tmp_path / "run")
    flat = evaluate_run(tmp_path / "run", new_pictures(tmp_path / "new", {"cat": 30, "dog": 20}))
    assert flat.metrics["num_examples"] == 50 and flat.notes == []
    one = evaluate_run(tmp_path / "run", new_pictures(tmp_path / "dogs", {"dog": 7}))
    assert one.metrics["num_examples"] == 7 and one.notes[0].startswith("1 of 2 classes have no test image")
    split = evaluate_run(
        tmp_path / "run", new_pictures(tmp_path / "split" / "test", {"dog": 4}) | {"dataset": f"folder:{tmp_path / 'split'}"}
    )
    assert split.metrics["num_examples"] == 4
    with pytest.raises(ConfigError, match="also has fox"):
        evaluate_run(tmp_path / "run", new_pictures(tmp_path / "foxes", {"dog": 2, "fox": 2}))
