"""Augmentation: stateless, the same eagerly and inside tf.data, and doing what its name says."""

import numpy as np
import pytest
import tensorflow as tf

from tl_keras.data.augment import AUGMENTATIONS, _uniform, augment, get_augmentation, random_crop, random_flip, random_rotation
from tl_keras.errors import ConfigError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 10, 14, 3), np.uint8)
SEEDS = np.stack([np.full(12, 5 << 32), np.arange(100, 112)], axis=1)


def draws(*rows):
    return tf.constant([[*row, *[0.0] * (4 - len(row))] for row in rows], tf.float32)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_eagerly_in_a_map_alone_and_in_any_order(name):
    apply = augment(name)
    eager = apply(tf.constant(IMAGES), tf.constant(SEEDS)).numpy()
    assert eager.dtype == np.uint8 and eager.shape == IMAGES.shape
    mapped = tf.data.Dataset.from_tensor_slices((IMAGES, SEEDS)).batch(5).map(apply, num_parallel_calls=tf.data.AUTOTUNE)
    np.testing.assert_array_equal(np.concatenate(list(mapped.as_numpy_iterator())), eager)
    alone = [apply(tf.constant(IMAGES[index : index + 1]), SEEDS[index : index + 1]).numpy()[0] for index in range(12)]
    np.testing.assert_array_equal(alone, eager)
    np.testing.assert_array_equal(apply(tf.constant(IMAGES[::-1]), SEEDS[::-1]).numpy()[::-1], eager)


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
@pytest.mark.parametrize("column", [0, 1], ids=["epoch", "image"])
def test_another_seed_gives_other_pixels(name, column):
    other = SEEDS.copy()
    other[:, column] += 1
    assert not np.array_equal(augment(name)(IMAGES, SEEDS), augment(name)(IMAGES, other))


def test_none_changes_nothing():
    np.testing.assert_array_equal(augment("none")(IMAGES, SEEDS), IMAGES)


def test_flip_mirrors_about_half():
    np.testing.assert_array_equal(random_flip(IMAGES[:2], draws([0.49], [0.5])), [IMAGES[0, :, ::-1], IMAGES[1]])
    many = np.repeat(IMAGES[:1], 2000, axis=0)
    seeds = np.stack([np.zeros(2000, np.int64), np.arange(2000)], axis=1)
    mirrored = np.mean(np.any(augment("flip")(many, seeds).numpy() != many, axis=(1, 2, 3)))
    assert 0.46 < mirrored < 0.54


def test_crop_shifts_over_black():
    padded = np.pad(IMAGES[0], ((4, 4), (4, 4), (0, 0)))
    cropped = random_crop(np.repeat(IMAGES[:1], 3, axis=0), draws([0.0, 0.999999], [0.5, 0.5], [0.12, 0.3]))
    np.testing.assert_array_equal(cropped, [padded[0:10, 8:22], IMAGES[0], padded[1:11, 2:16]])


def test_rotation_stays_within_ten_degrees():
    image = np.zeros((1, 101, 101, 3), np.uint8)
    image[0, 50, 90] = 255
    for draw, degrees in ((0.0, -10), (0.5, 0), (0.999999, 10)):
        turned = random_rotation(image, draws([draw])).numpy()[0, ..., 0]
        row, column = np.unravel_index(turned.argmax(), turned.shape)
        assert np.degrees(np.arctan2(50 - row, column - 50)) == pytest.approx(degrees, abs=1.5)


def test_draws_are_splitmix64():
    def mix(word):
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        return word ^ (word >> 31)

    row = mix(mix(7 << 32) ^ 3)
    expected = [(mix((row + k * 0x9E3779B97F4A7C15) % 2**64) >> 40) / 2**24 for k in range(5, 9)]
    np.testing.assert_array_equal(_uniform(np.array([[7 << 32, 3]]), 1).numpy()[0], np.float32(expected))


def test_draws_are_uniform_and_independent():
    seeds = np.stack([np.full(20_000, 1 << 32), np.arange(20_000)], axis=1)
    drawn = np.concatenate([_uniform(seeds, 0), _uniform(seeds, 1)], axis=1)
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(drawn.T) - np.eye(8)).max() < 0.03
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.03


def test_unknown_names_list_the_known():
    with pytest.raises(ConfigError, match="flip.*crop_flip|crop_flip.*flip"):
        get_augmentation("flop")
