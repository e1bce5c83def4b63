"""TFDS sets: read without a network, refused with a reason, never read in part."""

import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tl_keras import data
from tl_keras.config import DataConfig
from tl_keras.errors import ConfigError, DamagedError, MissingError

FEATURES = "tensorflow_datasets.core.features."
IMAGE = FEATURES + "image_feature.Image"
LABEL = FEATURES + "class_label_feature.ClassLabel"
TEXT = FEATURES + "text_feature.Text"


def pixels(index: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)


def record(index: int, size: tuple[int, int], label: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(index, size)).save(buffer, "PNG")
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[buffer.getvalue()])),
        "mask": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"never decoded"])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "kind": tf.train.Feature(int64_list=tf.train.Int64List(value=[index % 2])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_set(root, *, name="toy_set", version="1.0.0", splits=None, sides=(4, 5), size=(4, 5), labels=lambda index: index % 3):
    """Write a prepared directory as TFDS does. `sides` is the image size in features.json, `size` the real one."""
    directory = root / name / version
    directory.mkdir(parents=True)
    described = []
    for split, num in (splits or {"train": 9, "test": 6}).items():
        with tf.io.TFRecordWriter(str(directory / f"{name}-{split}.tfrecord-00000-of-00001")) as writer:
            for index in range(num):
                writer.write(record(index, size, labels(index)))
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        described.append({"name": split, "shardLengths": [str(num)], "numBytes": "1", "filepathTemplate": template})
    info = {"name": name, "version": version, "fileFormat": "tfrecord", "splits": described}
    (directory / "dataset_info.json").write_text(json.dumps(info))
    dimensions = [str(side) for side in (*sides, 3)]
    features = {
        "image": {"pythonClassName": IMAGE, "image": {"dtype": "uint8", "shape": {"dimensions": dimensions}, "encodingFormat": "png"}},
        "mask": {
            "pythonClassName": IMAGE,
            "image": {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "1"]}, "encodingFormat": "png"},
        },
        "label": {"pythonClassName": LABEL, "classLabel": {"numClasses": "3"}},
        "kind": {"pythonClassName": LABEL, "classLabel": {"numClasses": "2"}},
    }
    write_features(directory, features)
    (directory / "label.labels.txt").write_text("ant\nbee\ncat\n")
    (directory / "kind.labels.txt").write_text("even\nodd\n")
    return directory


def write_features(directory, features):
    content = {"pythonClassName": FEATURES + "features_dict.FeaturesDict", "featuresDict": {"features": features}}
    (directory / "features.json").write_text(json.dumps(content))


def load(root, **settings):
    return data.load_source(DataConfig(**{"dataset": "toy_set", "data_dir": str(root), **settings}))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr("tl_keras.utils.connectivity.is_reachable", lambda url, timeout=10.0: False)


def test_images_labels_and_class_names_are_read(tmp_path):
    write_set(tmp_path)
    source = load(tmp_path)
    assert source.class_names == ("ant", "bee", "cat") and source.notes == () and not source.embedded
    assert source.train.size == (4, 5) and (len(source.train), len(source.test)) == (9, 6)
    assert source.train.labels.tolist() == [index % 3 for index in range(9)]
    for examples in (source.train, source.test):
        for index in range(len(examples)):
            np.testing.assert_array_equal(examples.image(index), pixels(index, (4, 5)))


def test_another_label_gives_another_task_and_fingerprint(tmp_path):
    write_set(tmp_path)
    breeds, kinds = load(tmp_path), load(tmp_path, label="kind")
    assert kinds.class_names == ("even", "odd") and kinds.train.labels.tolist() == [index % 2 for index in range(9)]
    assert kinds.fingerprint != breeds.fingerprint


def test_images_may_differ_in_size(tmp_path):
    write_set(tmp_path, sides=(-1, -1))
    assert load(tmp_path).train.size is None


def test_the_newest_version_is_read(tmp_path):
    write_set(tmp_path, version="9.0.0")
    write_set(tmp_path, version="10.0.0", splits={"train": 12, "test": 3})
    (tmp_path / "toy_set" / "incomplete.5GHX").mkdir()
    assert len(load(tmp_path).train) == 12


def test_the_fingerprint_covers_the_content_and_not_the_path(tmp_path):
    write_set(tmp_path / "one")
    write_set(tmp_path / "two")
    write_set(tmp_path / "three", labels=lambda index: (index + 1) % 3)
    one, two, three = (load(tmp_path / name).fingerprint for name in ("one", "two", "three"))
    assert one == two != three


def test_data_dir_defaults_to_the_directory_of_tfds(tmp_path, monkeypatch):
    write_set(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(load("").train) == 9


@pytest.mark.parametrize(
    "splits, lengths, note",
    [
        ({"train": 9, "validation": 3, "test": 6}, (9, 3, 6), ""),
        ({"train": 9, "validation": 3}, (9, None, 3), "validation split is used for testing"),
        ({"train": 30}, (24, None, 6), "6 of the 30 images carved out"),
    ],
)
def test_a_missing_test_split_is_replaced_and_noted(tmp_path, splits, lengths, note):
    write_set(tmp_path, splits=splits)
    source = load(tmp_path)
    assert (len(source.train), source.validation and len(source.validation), len(source.test)) == lengths
    assert note in "".join(source.notes)


def without_shard(directory):
    (directory / "toy_set-test.tfrecord-00000-of-00001").unlink()


def with_flipped_byte(directory):
    path = directory / "toy_set-train.tfrecord-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def with_truncated_shard(directory):
    path = directory / "toy_set-train.tfrecord-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-10])


def with_corrupt_info(directory):
    (directory / "dataset_info.json").write_text('{"name": "toy_')


def with_corrupt_features(directory):
    (directory / "features.json").write_text("[]")


def with_foreign_shard(directory):
    (directory / "toy_set-train.tfrecord-00000-of-00001").write_bytes(b"<html>" * 50)


DAMAGES = [without_shard, with_flipped_byte, with_truncated_shard, with_corrupt_info, with_corrupt_features, with_foreign_shard]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found_before_training(tmp_path, damage):
    directory = write_set(tmp_path)
    damage(directory)
    with pytest.raises(DamagedError, match="prepare the data set again") as raised:
        load(tmp_path)
    assert str(directory) in str(raised.value)


def test_labels_beyond_the_classes_are_damage(tmp_path):
    write_set(tmp_path, labels=lambda index: index)
    with pytest.raises(DamagedError, match="label 8, beyond its 3 classes"):
        load(tmp_path)


def test_images_of_another_size_than_declared_are_damage(tmp_path):
    write_set(tmp_path, sides=(8, 8))
    with pytest.raises(DamagedError, match="toy_set image 0: expected .8, 8."):
        load(tmp_path).train.image(0)


def test_an_unknown_label_lists_the_known_ones(tmp_path):
    write_set(tmp_path)
    with pytest.raises(ConfigError, match="label=breed`: toy_set has kind, label"):
        load(tmp_path, label="breed")


def test_a_set_without_images_is_refused(tmp_path):
    write_features(write_set(tmp_path), {"text": {"pythonClassName": TEXT, "text": {}}})
    with pytest.raises(ConfigError, match="expected images with a class label; its features are text"):
        load(tmp_path)


def test_a_set_without_a_train_split_is_refused(tmp_path):
    write_set(tmp_path, splits={"test": 6})
    with pytest.raises(ConfigError, match="no split named train, only test"):
        load(tmp_path)


def test_a_missing_set_says_where_it_was_searched_and_how_to_get_it(tmp_path):
    with pytest.raises(MissingError) as raised:
        load(tmp_path, dataset="cifar10")
    for part in (str(tmp_path / "cifar10"), "tfds build cifar10", "data_dir", "dataset=digits", "cs.toronto.edu"):
        assert part in str(raised.value)


def test_a_failed_download_gives_its_reason(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(self, **settings):
        raise OSError("No space left on device")

    monkeypatch.setattr("tl_keras.utils.connectivity.is_reachable", lambda url, timeout=10.0: True)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(MissingError, match="preparing it failed: No space left on device"):
        load(tmp_path, dataset="cifar10")


def test_a_name_unknown_to_tfds_lists_similar_names(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'cifar10'"):
        load(tmp_path, dataset="cifar_10")
    with pytest.raises(ConfigError, match="expected images with a class label"):
        load(tmp_path, dataset="imdb_reviews")


def test_the_real_cifar10(shared):
    config = DataConfig(data_dir=str(shared / "data" / "tfds"), fraction=0.1, limit_test=500)
    source = data.load_source(config)
    splits = data.make_splits(source, config, seed=0)
    assert source.class_names[:2] == ("airplane", "automobile") and source.train.size == (32, 32)
    assert (len(splits.train), len(splits.validation), len(source.test)) == (5000, 5000, 10000)
    assert set(splits.train.class_counts.values()) == {500} and set(splits.test.class_counts.values()) == {50}
    assert splits.train.load_batch(range(100)).shape == (100, 32, 32, 3)


@pytest.mark.parametrize("label, num_classes, present", [("label", 37, 3), ("species", 2, 2)])
def test_the_real_pets(shared, label, num_classes, present):
    config = DataConfig(dataset="oxford_iiit_pet", label=label, data_dir=str(shared / "data" / "tfds"), validation_fraction=0.2)
    source = data.load_source(config)
    splits = data.make_splits(source, config, seed=0)
    assert len(source.class_names) == num_classes and len(splits.train.class_counts) == present
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (240, 60, 298)
    assert min(splits.train.image(0).shape[:2]) == 256


def test_a_damaged_shard_of_a_real_set_is_reported(shared, tmp_path):
    shutil.copytree(shared / "data" / "tfds" / "oxford_iiit_pet", tmp_path / "oxford_iiit_pet")
    shard = next(tmp_path.rglob("*test.tfrecord*"))
    shard.parent.chmod(0o755)
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:100_000])
    with pytest.raises(DamagedError, match="the split test cannot be read"):
        load(tmp_path, dataset="oxford_iiit_pet")
