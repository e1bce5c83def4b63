"""Batches: exact evaluation, epochs that depend only on (seed, epoch), and one geometry."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tl_keras.data import pipeline
from tl_keras.data.augmentation import AUGMENTATIONS
from tl_keras.data.examples import ImageStore, make_examples
from tl_keras.data.geometry import Geometry
from tl_keras.data.sampling import TrainingOrder, batch_sizes

NUM = 23
RANDOM = np.random.default_rng(0)
SQUARE = RANDOM.integers(0, 256, (NUM, 8, 8, 3), np.uint8)
MIXED = [RANDOM.integers(0, 256, (5 + index % 4, 9 - index % 3, 3), np.uint8) for index in range(NUM)]
SIZES = {"one size": SQUARE, "mixed sizes": MIXED}
GEOMETRY = Geometry(12, 1.0)
MIXERS = tuple(name for name, row in AUGMENTATIONS.items() if row.mixer)
RESIZED = "resized_crop_flip_rotate20_jitter"


def examples(pixels):
    images = ImageStore(pixels) if isinstance(pixels, np.ndarray) else ImageStore(list(pixels))
    return make_examples(images, np.arange(NUM) % 5)


def collect(batches):
    return [np.concatenate(column) for column in zip(*batches.as_numpy_iterator(), strict=True)]


def training(pixels, geometry=GEOMETRY, seed=0, replicas=1, **settings):
    order = TrainingOrder(examples(pixels), seed, replicas=replicas)
    settings = {"num_classes": 6, "augmentation": "none", "sizes": batch_sizes(order.num_examples, 8), "epoch": 0, **settings}
    return pipeline.training_batches(order, geometry, **settings)


@pytest.mark.parametrize("pixels", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("batch_size", [2, 8, 64])
def test_evaluation_scores_every_example_once_in_order(pixels, replicas, batch_size):
    batches = pipeline.evaluation_batches(examples(pixels), GEOMETRY, batch_size=batch_size, replicas=replicas)
    images, labels, weights = collect(batches)
    assert images.dtype == np.float32 and labels.dtype == np.int32 and weights.dtype == np.float32
    np.testing.assert_array_equal(labels[weights == 1], np.arange(NUM) % 5)
    assert len(weights) == NUM + NUM % replicas
    assert all(len(batch[0]) % replicas == 0 for batch in batches)
    expected = np.concatenate([GEOMETRY.resize(tf.constant(image[None])) for image in pixels])
    np.testing.assert_allclose(images[weights == 1], expected, atol=1e-3)


@pytest.mark.parametrize("augmentation, interpolation", [("none", "bilinear"), ("crop_flip", "bilinear"), ("mixup", "bicubic")])
def test_the_device_resizes_as_the_pipeline_does(augmentation, interpolation):
    geometry = Geometry(12, 0.9, interpolation, source_size=(8, 8))
    resized, targets = collect(training(SQUARE, geometry.in_pipeline(), augmentation=augmentation))
    unresized, same_targets = collect(training(SQUARE, geometry, augmentation=augmentation))
    assert unresized.shape == (NUM, 8, 8, 3) and (unresized.dtype == np.uint8 or augmentation == "mixup")
    np.testing.assert_allclose(geometry.device_resize()(tf.constant(unresized)), resized, atol=0 if interpolation == "bilinear" else 5e-3)
    np.testing.assert_array_equal(same_targets, targets)


@pytest.mark.parametrize("sizes", SIZES)
def test_an_augmentation_that_resizes_is_the_only_resize(sizes):
    """`resize` gives the rounded images of evaluation: the centre is not cropped twice."""
    geometry = Geometry(12, 0.8)
    images, _ = collect(training(SIZES[sizes], geometry, augmentation="resize"))
    order = TrainingOrder(examples(SIZES[sizes]), 0).epoch(0).positions
    expected = np.concatenate([geometry.resize(tf.constant(SIZES[sizes][position][None])) for position in order])
    assert images.dtype == np.float32 and (images == np.round(images)).all()
    np.testing.assert_allclose(images, expected, atol=0.501)


@pytest.mark.parametrize("sizes", SIZES)
def test_views_are_those_of_the_epochs_that_train_on_them(sizes):
    data = examples(SIZES[sizes])
    epoch = TrainingOrder(data, 7).epoch(2)
    settings = {"augmentation": "random_resized_crop+flip", "batch_size": 4, "seed": 7}
    (views,) = collect(pipeline.view_batches(data.subset(epoch.positions), np.full(NUM, 2), GEOMETRY, **settings))
    trained, _ = collect(training(SIZES[sizes], seed=7, augmentation="random_resized_crop+flip", epoch=2))
    np.testing.assert_array_equal(views, trained)


@pytest.mark.parametrize("pixels", SIZES.values(), ids=SIZES)
def test_an_epoch_has_every_example_once_and_is_trimmed_to_the_replicas(pixels):
    images, targets = collect(training(pixels))
    assert images.shape == (NUM, 12, 12, 3) and images.dtype == np.float32
    assert targets.shape == (NUM, 6) and targets.dtype == np.float32
    assert set(np.unique(targets)) == {0, 1} and targets.sum(axis=0).tolist() == [5, 5, 5, 4, 4, 0]
    assert [len(batch[1]) for batch in training(pixels, replicas=2)] == [8, 8, 6]
    assert [len(batch[1]) for batch in training(pixels)] == [8, 8, 7]


SLOW_TO_TRACE = {"augmix", "randaugment"}  # the case of mixed sizes below has randaugment, and test_augmentation.py both
IMAGE_WISE = [
    pytest.param("one size", name, marks=pytest.mark.slow if name in SLOW_TO_TRACE else ()) for name in AUGMENTATIONS if name not in MIXERS
]


@pytest.mark.parametrize(
    "sizes, augmentation", [*IMAGE_WISE, ("mixed sizes", "none"), ("mixed sizes", "crop_flip+randaugment"), ("mixed sizes", RESIZED)]
)
def test_epochs_depend_only_on_seed_and_epoch(sizes, augmentation):
    pixels = SIZES[sizes]
    first, again, wide = (collect(training(pixels, augmentation=augmentation, epoch=3, sizes=batch_sizes(NUM, size))) for size in (8, 8, 5))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(first, wide, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    for changed in ({"epoch": 4}, {"epoch": 3, "seed": 1}):
        assert not np.array_equal(first[1], collect(training(pixels, augmentation=augmentation, **changed))[1])


@pytest.mark.parametrize("pixels", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("augmentation", [*MIXERS, "crop_flip+mixup", "random_resized_crop+mixup"])
def test_mixtures_depend_on_seed_epoch_and_batch(pixels, augmentation):
    first, again, wide = (collect(training(pixels, augmentation=augmentation, epoch=3, sizes=batch_sizes(NUM, size))) for size in (8, 8, 5))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert first[0].shape == (NUM, 12, 12, 3) and not np.allclose(first[1], wide[1])
    np.testing.assert_allclose(first[1].sum(axis=1), 1, rtol=1e-6)
    assert len(np.unique(first[1])) > NUM // 2
    for changed in ({"epoch": 4}, {"epoch": 3, "seed": 1}):
        assert not np.allclose(first[1], collect(training(pixels, augmentation=augmentation, **changed))[1])


@pytest.mark.parametrize("sizes", SIZES)
def test_mixtures_combine_resized_images_and_their_targets(sizes):
    """Each image is a flat grey that encodes its class, so a mixture shows its fractions."""
    grey = [np.full_like(image, 40 * (index % 5)) for index, image in enumerate(SIZES[sizes])]
    images, targets = collect(training(np.stack(grey) if sizes == "one size" else grey, augmentation="mixup"))
    np.testing.assert_allclose(images[:, 3, 4, 0], targets[:, :5] @ (40.0 * np.arange(5)), atol=1e-2)


@pytest.mark.parametrize("pixels", SIZES.values(), ids=SIZES)
def test_balanced_epochs_repeat_smaller_classes_with_other_augmentation(pixels):
    whole = examples(pixels)
    few = whole.subset(np.flatnonzero((whole.labels == 0) | (whole.indices == 1)))
    settings = {"num_classes": 5, "sizes": (4, 4, 2), "epoch": 0}
    order = TrainingOrder(few, 0, "balanced")
    images, targets = collect(pipeline.training_batches(order, GEOMETRY, augmentation="rotate10_flip", **settings))
    assert targets.sum(axis=0).tolist() == [5, 5, 0, 0, 0]
    assert len({image.tobytes() for image in images[targets[:, 1] == 1]}) == 5
    settings["sizes"] = (4, 4)
    batches = pipeline.training_batches(replace(order, replicas=4), GEOMETRY, augmentation="none", **settings)
    assert [len(targets) for _, targets in batches] == [4, 4]


@pytest.mark.parametrize("augmentation", ["crop_flip", "resized_crop_flip_rotate20_jitter"])
@pytest.mark.parametrize("pixels", SIZES.values(), ids=SIZES)
def test_a_larger_last_batch_has_the_same_examples_in_the_same_order(pixels, augmentation):
    settings = {"augmentation": augmentation, "epoch": 2}
    merged = training(pixels, sizes=(10, 13), **settings)
    assert [len(targets) for _, targets in merged] == [10, 13]
    assert [len(targets) for _, targets in training(pixels, sizes=(NUM,), **settings)] == [NUM]
    for one, other in zip(collect(merged), collect(training(pixels, sizes=(10, 10, 3), **settings)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("pixels", SIZES.values(), ids=SIZES)
def test_mirrored_replicas_get_halves_of_a_larger_last_batch(pixels):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    batches = strategy.experimental_distribute_dataset(training(pixels, replicas=2, sizes=(8, 14)))
    shapes = [[len(part) for part in strategy.experimental_local_results(targets)] for _, targets in batches]
    assert shapes == [[4, 4], [7, 7]]


def test_augmentation_depends_on_the_image_not_on_its_position():
    """An image in an epoch is augmented in the same way, whatever else is trained on."""
    whole = examples(SQUARE)

    def epoch_images(examples):
        settings = {"num_classes": 5, "augmentation": "crop_flip", "sizes": batch_sizes(len(examples), 8), "epoch": 1}
        return {image.tobytes() for image in collect(pipeline.training_batches(TrainingOrder(examples, 0), GEOMETRY, **settings))[0]}

    assert epoch_images(whole.subset(np.arange(3, 11))) <= epoch_images(whole)


def test_mirrored_replicas_get_every_example_once():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for pixels in SIZES.values():
        batches = pipeline.evaluation_batches(examples(pixels), GEOMETRY, batch_size=8, replicas=2)
        labels, sizes = [], []
        for _, batch_labels, weights in strategy.experimental_distribute_dataset(batches):
            parts = [part.numpy() for part in strategy.experimental_local_results(batch_labels)]
            kept = np.concatenate([part.numpy() for part in strategy.experimental_local_results(weights)]) == 1
            sizes.append([len(part) for part in parts])
            labels.extend(np.concatenate(parts)[kept])
        assert labels == (np.arange(NUM) % 5).tolist()
        assert sizes == [[4, 4]] * 3


def test_no_iterator_waits_for_autotuning():
    """TensorFlow's autotuning lets the end of an iterator wait, at worst as long as the epoch took, so every data set is without it."""
    images = examples(next(iter(SIZES.values())))
    order, sizes = TrainingOrder(images, 0), batch_sizes(len(images), 4)
    ids = np.arange(len(images))
    made = [
        pipeline.training_batches(order, GEOMETRY, num_classes=2, augmentation="none", sizes=sizes, epoch=0),
        pipeline.evaluation_batches(images, GEOMETRY, batch_size=4),
        pipeline.view_batches(images, ids, GEOMETRY, augmentation="none", batch_size=4, seed=0),
        pipeline.feature_batches(lambda ids: np.zeros((len(ids), 2), np.float32), ids, (), tf.TensorSpec((2,), tf.float32), sizes),
    ]
    assert not any(batches.options().autotune.enabled for batches in made)
    assert tf.data.Dataset.range(1).options().autotune.enabled is not False  # TensorFlow's own default
