"""Augmentations are stateless, give the same result eagerly and in tf.data, and equal their references."""

import sys
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from tl_keras.data import augment_policies, image_ops, mixup
from tl_keras.data import augmentation as augmentations
from tl_keras.data.augmentation import (
    AUGMENTATIONS,
    get_augmentation,
    mix_fn,
    random_cutout,
    random_flip,
    random_rotation,
)
from tl_keras.data.geometry import Geometry
from tl_keras.data.random_crop import crop_boxes, random_crop
from tl_keras.data.stateless_random import NUM_DRAWS, uniform
from tl_keras.errors import ConfigError, MissingError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 10, 14, 3), np.uint8)
SEEDS = np.stack([np.full(12, 5 << 32), np.arange(100, 112)], axis=1)


def draws(*rows):
    return tf.constant([[*row, *[0.0] * (NUM_DRAWS - len(row))] for row in rows], tf.float32)


COMBINATIONS = ("flip+cutout", "rotate10_flip+randaugment+cutout")
MIXERS = tuple(name for name, entry in AUGMENTATIONS.items() if entry.mixer)
SIDE = 9  # of the input of a model
IMAGE_WISE = (*(name for name in AUGMENTATIONS if name not in MIXERS), *COMBINATIONS)
TARGETS = np.eye(12, dtype=np.float32)


def augment_fn(name):
    return augmentations.augment_fn(name, Geometry(SIDE, 1.0))


def shape_after(name):
    return (len(IMAGES), SIDE, SIDE, 3) if get_augmentation(name).resizes else IMAGES.shape


@pytest.mark.parametrize("name", IMAGE_WISE)
def test_results_are_the_same_eagerly_in_a_map_alone_and_in_any_order(name):
    apply = augment_fn(name)
    eager = apply(tf.constant(IMAGES), tf.constant(SEEDS)).numpy()
    assert eager.dtype == np.uint8 and eager.shape == shape_after(name)
    compiled = tf.function(apply, input_signature=[tf.TensorSpec([None, 10, 14, 3], tf.uint8), tf.TensorSpec([None, 2], tf.int64)])
    mapped = tf.data.Dataset.from_tensor_slices((IMAGES, SEEDS)).batch(5).map(compiled, num_parallel_calls=tf.data.AUTOTUNE)
    np.testing.assert_array_equal(np.concatenate(list(mapped.as_numpy_iterator())), eager)
    alone = [compiled(IMAGES[index : index + 1], SEEDS[index : index + 1]).numpy()[0] for index in range(12)]
    np.testing.assert_array_equal(alone, eager)
    np.testing.assert_array_equal(compiled(IMAGES[::-1], SEEDS[::-1]).numpy()[::-1], eager)


@pytest.mark.parametrize("name", [name for name in IMAGE_WISE if name not in ("none", "resize")])
@pytest.mark.parametrize("column", [0, 1], ids=["epoch", "image"])
def test_another_seed_gives_other_pixels(name, column):
    other = SEEDS.copy()
    other[:, column] += 1
    assert not np.array_equal(augment_fn(name)(IMAGES, SEEDS), augment_fn(name)(IMAGES, other))


def test_none_leaves_images_unchanged():
    np.testing.assert_array_equal(augment_fn("none")(IMAGES, SEEDS), IMAGES)


def test_flip_mirrors_half_of_the_images():
    np.testing.assert_array_equal(random_flip(IMAGES[:2], draws([0.49], [0.5])), [IMAGES[0, :, ::-1], IMAGES[1]])
    many = np.repeat(IMAGES[:1], 2000, axis=0)
    seeds = np.stack([np.zeros(2000, np.int64), np.arange(2000)], axis=1)
    mirrored = np.mean(np.any(augment_fn("flip")(many, seeds).numpy() != many, axis=(1, 2, 3)))
    assert 0.46 < mirrored < 0.54


def test_crop_shifts_and_fills_with_black():
    padded = np.pad(IMAGES[0], ((4, 4), (4, 4), (0, 0)))
    cropped = random_crop(np.repeat(IMAGES[:1], 3, axis=0), draws([0.0, 0.999999], [0.5, 0.5], [0.12, 0.3]), padding=4)
    np.testing.assert_array_equal(cropped, [padded[0:10, 8:22], IMAGES[0], padded[1:11, 2:16]])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_rotation_is_limited_to_its_degrees(interpolation):
    image = np.zeros((1, 101, 101, 3), np.uint8)
    image[0, 50, 90] = 255
    for draw, largest, degrees in ((0.0, 10, -10), (0.5, 10, 0), (0.999999, 10, 10), (0.999999, 20, 20)):
        turned = random_rotation(image, draws([draw]), degrees=largest, interpolation=interpolation).numpy()[0, ..., 0]
        row, column = np.unravel_index(turned.argmax(), turned.shape)
        assert np.degrees(np.arctan2(50 - row, column - 50)) == pytest.approx(degrees, abs=1.5)


def test_jitter_changes_by_at_most_a_fifth():
    jitter = partial(augmentations.random_jitter, brightness=0.2, contrast=0.2, saturation=0.2)
    grey = np.full((2, 6, 6, 3), 100, np.uint8)
    np.testing.assert_array_equal(jitter(grey, draws([0, 0.5, 0.5], [0.999999, 0.5, 0.5])).numpy()[:, 0, 0, 0], [80, 120])
    np.testing.assert_allclose(jitter(IMAGES, draws(*[[0.5] * 3] * 12)), IMAGES, atol=1)
    low, high = (float(np.std(jitter(IMAGES[:1], draws([0.5, draw, 0.5])))) for draw in (0, 0.999999))
    assert low / np.std(IMAGES[0]) == pytest.approx(0.8, abs=0.02) and 1 < high / np.std(IMAGES[0]) < 1.2


def test_nearest_rotation_moves_pixels_as_pillow_does():
    """A rotated image has only pixels of the image, and black ones outside of it."""
    image = np.random.default_rng(1).integers(1, 256, (1, 40, 40, 3), np.uint8)
    for degrees in (-20.0, 3.0, 17.5):
        turned = augmentations.rotate(image, tf.constant([degrees]), "nearest").numpy()[0]
        expected = np.asarray(Image.fromarray(image[0]).rotate(degrees, Image.Resampling.NEAREST))
        assert np.mean(np.any(turned != expected, axis=2)) < 0.005  # Pillow rounds coordinates to 1/65536 of a pixel
        colours = {tuple(pixel) for pixel in image.reshape(-1, 3)} | {(0, 0, 0)}
        assert {tuple(pixel) for pixel in turned.reshape(-1, 3)} <= colours and (turned == 0).all(axis=2).any()


def boxes_of(num, height, width, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """Return random boxes, columns of float (num,): top, left, height, width."""
    seeds = np.stack([np.zeros(num, np.int64), np.arange(num)], axis=1)
    return crop_boxes(tf.constant(height), tf.constant(width), uniform(seeds, 0), scale, ratio).numpy().astype(float).T


def test_boxes_of_resized_crops_have_the_area_and_the_ratio_that_were_drawn():
    tops, lefts, heights, widths = boxes_of(20_000, 400, 500, scale=(0.1, 0.4))
    areas, ratios = heights * widths / (400 * 500), np.log(widths / heights)
    for values, low, high in ((areas, 0.1, 0.4), (ratios, np.log(3 / 4), np.log(4 / 3))):
        uniform_quantiles = low + (high - low) * np.array([0.1, 0.25, 0.5, 0.75, 0.9])
        np.testing.assert_allclose(np.quantile(values, [0.1, 0.25, 0.5, 0.75, 0.9]), uniform_quantiles, atol=0.02 * (high - low))
    for starts, lengths, side in ((tops, heights, 400), (lefts, widths, 500)):
        fractions = starts / (side - lengths)
        np.testing.assert_allclose(np.quantile(fractions, [0, 0.25, 0.5, 0.75, 1]), [0, 0.25, 0.5, 0.75, 1], atol=0.02)
        assert starts.min() >= 0 and (starts + lengths).max() <= side
    assert abs(np.corrcoef(areas, ratios)[0, 1]) < 0.03


def torchvision_box(draws, height, width, scale, ratio):
    """RandomResizedCrop.get_params of torchvision, with given random numbers."""
    for area, aspect in zip(draws[:20:2], draws[1:20:2], strict=True):
        pixels = height * width * (scale[0] + (scale[1] - scale[0]) * area)
        aspect = np.exp(np.log(ratio[0]) + (np.log(ratio[1]) - np.log(ratio[0])) * aspect)
        w, h = round(np.sqrt(pixels * aspect)), round(np.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[20] * (height - h + 1)), int(draws[21] * (width - w + 1)), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("height, width", [(375, 500), (32, 32), (1, 1), (10, 200), (300, 20)])
def test_boxes_of_resized_crops_are_those_of_torchvision(height, width):
    scale, ratio = (0.5, 1.0), (3 / 4, 4 / 3)
    drawn = uniform(np.stack([np.zeros(300, np.int64), np.arange(300)], axis=1), 0).numpy()
    ours = crop_boxes(tf.constant(height), tf.constant(width), drawn, scale, ratio).numpy()
    expected = np.array([torchvision_box(row.astype(float), height, width, scale, ratio) for row in drawn])
    assert np.abs(ours - expected).max() <= 1 and np.mean(np.any(ours != expected, axis=1)) < 0.02  # float32


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [24, 90])
def test_a_resized_crop_is_resized_as_pillow_does(interpolation, side):
    image = np.asarray(Image.effect_noise((70, 60), 60).convert("RGB"))
    for scale in (0.1, 0.7):
        apply = augmentations.augment_fn(f"random_resized_crop:scale={scale}-{scale}", Geometry(side, 0.875, interpolation))
        ours = apply(image[None], SEEDS[:1]).numpy()[0]
        box = crop_boxes(tf.constant(60), tf.constant(70), uniform(SEEDS[:1], 0), (scale, scale), (0.75, 1.3333)).numpy()[0]
        top, left, height, width = box.tolist()
        grey = Image.fromarray(image[..., 0].astype(np.float32)).crop((left, top, left + width, top + height))
        resized = np.asarray(grey.resize((side, side), Image.Resampling[interpolation.upper()])).clip(0, 255)
        assert np.abs(ours - resized[..., None]).max() < 0.501  # ours is rounded


def test_steps_after_a_resize_run_at_the_size_of_the_model():
    """`crop` shifts by pixels, so the size at which it runs shows in its result."""
    geometry = Geometry(30, 0.8)
    resized = np.round(geometry.resize(tf.constant(IMAGES))).astype(np.uint8)
    after = augmentations.augment_fn("resize+crop", geometry)(IMAGES, SEEDS).numpy()
    np.testing.assert_array_equal(after, random_crop(resized, uniform(SEEDS, 1), padding=4))
    before = augmentations.augment_fn("crop+resize", geometry)(IMAGES, SEEDS).numpy()
    assert after.shape == before.shape == (12, 30, 30, 3) and not np.array_equal(after, before)


def test_cutout_fills_a_square_that_may_be_partly_outside():
    black = np.zeros((3, 32, 40, 3), np.uint8)
    cut = random_cutout(black, draws([0.5, 0.5], [0, 0], [0.999, 0.999])).numpy()
    assert set(np.unique(cut)) == {0, 128}
    for image, rows, columns in zip(cut, ((8, 24), (0, 8), (23, 32)), ((12, 28), (0, 8), (31, 40)), strict=True):
        expected = np.zeros((32, 40), np.uint8)
        expected[slice(*rows), slice(*columns)] = 128
        np.testing.assert_array_equal(image[..., 0], expected)


SMOOTH = np.clip(
    np.linspace(20, 200, 20)[None, :, None, None] * np.linspace(0.5, 1, 24)[None, None, :, None] + 20 * np.arange(3), 0, 255
).astype(np.uint8)


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


# operation -> (values, function of Pillow, tolerance in grey levels)
PILLOW = {
    image_ops.brightness: ((0.1, 1, 1.9), lambda image, value: ImageEnhance.Brightness(image).enhance(value), 1),
    image_ops.contrast: ((0.1, 1, 1.9), lambda image, value: ImageEnhance.Contrast(image).enhance(value), 1),
    image_ops.sharpness: ((0.1, 1, 1.9), lambda image, value: ImageEnhance.Sharpness(image).enhance(value), 1),
    augmentations.saturate: ((0.1, 1, 1.9), lambda image, value: ImageEnhance.Color(image).enhance(value), 1),
    image_ops.posterize: ((4, 6.8, 8), lambda image, value: ImageOps.posterize(image, round(value)), 0),
    augmentations.solarize: ((0, 100.5, 255), lambda image, value: ImageOps.solarize(image, value), 0),
    image_ops.equalize: ((0,), lambda image, value: ImageOps.equalize(image), 0),
    augmentations.autocontrast: ((0,), lambda image, value: ImageOps.autocontrast(image), 1),
    image_ops.identity: ((0,), lambda image, value: image, 0),
    augmentations.rotate: ((-30, 0, 12), lambda image, value: image.rotate(value, Image.Resampling.BILINEAR), 3),
    partial(augmentations.shear, axis="x"): ((-0.3, 0.1), lambda image, value: affine(image, 1, value, -value / 2, 0, 1, 0), 3),
    partial(augmentations.shear, axis="y"): ((-0.3, 0.1), lambda image, value: affine(image, 1, 0, 0, value, 1, -value / 2), 3),
    partial(augmentations.translate, axis="x"): ((-0.25, 0.5), lambda image, value: affine(image, 1, 0, -24 * value, 0, 1, 0), 0),
    partial(augmentations.translate, axis="y"): ((-0.25, 0.5), lambda image, value: affine(image, 1, 0, 0, 0, 1, -20 * value), 0),
}


def name_of(operation):
    return (getattr(operation, "func", operation).__name__, *getattr(operation, "keywords", {}).values())


def apply_both(operation, image):
    """Apply the operation and its equivalent of Pillow to an image, at each of the values."""
    values, reference, _ = PILLOW[operation]
    ours = operation(tf.repeat(image, len(values), axis=0), tf.constant(values, tf.float32)).numpy().astype(int)
    return ours, np.stack([np.asarray(reference(Image.fromarray(image[0]), value)) for value in values]).astype(int)


@pytest.mark.parametrize("operation", PILLOW, ids=lambda operation: "-".join(name_of(operation)))
def test_operations_equal_those_of_pillow(operation):
    ours, reference = apply_both(operation, SMOOTH)
    if name_of(operation)[0] in ("rotate", "shear"):  # at the edge, Pillow cuts and KerasCV blends with black
        white = apply_both(operation, np.full_like(SMOOTH, 255))
        inside = (white[0] == 255) & (white[1] == 255)
        assert inside.mean() > 0.6 and np.mean(white[0] == 0) == pytest.approx(np.mean(white[1] == 0), abs=0.05)
        ours, reference = ours * inside, reference * inside
    assert np.abs(ours - reference).max() <= PILLOW[operation][2]


def test_every_operation_of_the_policies_is_compared_with_pillow():
    drawn = {name_of(operation.apply) for operation in augmentations.RAND_AUGMENT_OPERATIONS}
    assert drawn == {name_of(operation) for operation in PILLOW} and len(augmentations.RAND_AUGMENT_OPERATIONS) == 14
    colours = {"brightness", "contrast", "saturate", "sharpness", "identity"}
    assert {name_of(operation.apply) for operation in augmentations.AUGMIX_OPERATIONS} == {name for name in drawn if name[0] not in colours}


@pytest.mark.parametrize("operation", PILLOW, ids=lambda operation: "-".join(name_of(operation)))
def test_flat_tiny_and_no_images_keep_their_shape(operation):
    for images in (np.full((2, 5, 4, 3), 77, np.uint8), np.zeros((1, 1, 1, 3), np.uint8), np.zeros((0, 3, 3, 3), np.uint8)):
        values = np.full(len(images), PILLOW[operation][0][0], np.float32)
        assert operation(tf.constant(images), tf.constant(values)).shape == images.shape


def adding(*numbers):
    """Return operations that add a number each, so a sum identifies those that were drawn."""
    return tuple(augment_policies.Operation(lambda images, values, number=number: images + np.uint8(number)) for number in numbers)


def test_randaugment_applies_two_drawn_operations():
    black = np.zeros((4, 3, 3, 3), np.uint8)
    rows = draws([0, 0, 0.4, 0], [0.34, 0, 0.34, 0], [0.999, 0, 0, 0], [0.4, 0, 0.999, 0])
    done = augment_policies.rand_augment(tf.constant(black), rows, adding(1, 10, 100)).numpy()[:, 0, 0, 0]
    np.testing.assert_array_equal(done, [11, 20, 101, 110])


def test_the_sign_of_a_strength_is_drawn():
    seen = []
    operation = augment_policies.Operation(lambda images, values: seen.append(values.numpy()) or images, neutral=1.0, span=0.9, signed=True)
    augment_policies.rand_augment(tf.zeros((2, 3, 3, 3), tf.uint8), draws([0, 0.2, 0, 0.7], [0, 0.7, 0, 0.2]), (operation,))
    np.testing.assert_allclose(seen, [[0.73, 1.27], [1.27, 0.73]], rtol=1e-5)


def test_augmix_mixes_the_image_with_chains_of_one_to_three_operations():
    chain = (2 + 3 * augment_policies.AUGMIX_DEPTH) * [0.0]
    depths = [[*chain] for _ in range(3)]
    for row, depth in zip(depths, (0.0, 0.34, 0.99), strict=True):
        row[0], row[1] = depth, 0.5  # equal weights
    row = [value for row in depths for value in row]
    black = tf.zeros((2, 4, 4, 3), tf.uint8)
    done = augment_policies.augmix(black, draws([*row, 0.0], [*row, 0.75]), adding(60)).numpy()[:, 0, 0, 0]
    np.testing.assert_array_equal(done, [(60 + 120 + 180) / 3, (60 + 120 + 180) / 3 / 4])


@pytest.mark.parametrize("name", MIXERS)
def test_mixtures_are_the_same_eagerly_and_in_a_map(name):
    apply = mix_fn(name)
    images, targets = apply(tf.constant(IMAGES), tf.constant(TARGETS), tf.constant(SEEDS))
    assert images.dtype == tf.float32 and images.shape == IMAGES.shape and targets.shape == TARGETS.shape
    np.testing.assert_allclose(tf.reduce_sum(targets, axis=1), 1, rtol=1e-6)
    mapped = tf.data.Dataset.from_tensor_slices((IMAGES, TARGETS, SEEDS)).batch(12).map(apply)
    for eager, again in zip((images, targets), next(mapped.as_numpy_iterator()), strict=True):
        np.testing.assert_array_equal(eager, again)
    later = SEEDS + [[1, 0]]
    assert not np.array_equal(apply(IMAGES, TARGETS, later)[0], images)
    assert augment_fn(name)(IMAGES, SEEDS) is IMAGES


def test_mixup_is_a_weighted_mean_with_the_previous_image():
    images, targets = mixup.mixup(IMAGES[:3], TARGETS[:3], draws([0.25], [0.5], [1.0]))
    pixels = IMAGES[:3].astype(np.float32)
    np.testing.assert_allclose(images[0], 0.25 * pixels[0] + 0.75 * pixels[2])
    np.testing.assert_allclose(images[1], 0.5 * pixels[1] + 0.5 * pixels[0])
    np.testing.assert_allclose(images[2], pixels[2])
    np.testing.assert_allclose(targets[0, :3], [0.25, 0, 0.75])


def test_cutmix_weighs_targets_by_replaced_pixels():
    plain = np.broadcast_to(np.arange(3, dtype=np.uint8)[:, None, None, None], (3, 8, 16, 3))
    images, targets = mixup.cutmix(plain, TARGETS[:3], draws([0.25, 0.5, 0.5], [0.25, 0, 0], [0, 0.5, 0.5]))
    np.testing.assert_allclose([targets[0, 2], targets[1, 0], targets[2, 1]], [0.25, 0.0625, 0])
    for image, target in zip(images.numpy(), targets.numpy(), strict=True):
        fractions = [np.mean(image[..., 0] == label) for label in range(3)]
        np.testing.assert_allclose(target[:3], fractions, atol=1e-6)
    np.testing.assert_array_equal(images[0, 2:6, 4:12], 2)
    np.testing.assert_array_equal(images[1, :2, :4], 0)


def test_a_batch_of_one_mixes_with_itself():
    for name in MIXERS:
        images, targets = mix_fn(name)(IMAGES[:1], TARGETS[:1], SEEDS[:1])
        np.testing.assert_allclose(images, IMAGES[:1], rtol=1e-6)
        np.testing.assert_allclose(targets, TARGETS[:1], rtol=1e-6)


def test_draws_are_splitmix64():
    def mix(word):
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        return word ^ (word >> 31)

    row = mix(mix(7 << 32) ^ 3)
    expected = [(mix((row + k * 0x9E3779B97F4A7C15) % 2**64) >> 40) / 2**24 for k in range(NUM_DRAWS + 1, 2 * NUM_DRAWS + 1)]
    np.testing.assert_array_equal(uniform(np.array([[7 << 32, 3]]), 1).numpy()[0], np.float32(expected))


def test_draws_are_uniform_and_independent():
    seeds = np.stack([np.full(20_000, 1 << 32), np.arange(20_000)], axis=1)
    drawn = np.concatenate([uniform(seeds, 0), uniform(seeds, 1)], axis=1)
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(drawn.T) - np.eye(2 * NUM_DRAWS)).max() < 0.03
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.03


def test_unknown_names_list_the_known_ones():
    for name in ("flop", "flip+flop", "flip+", ""):
        with pytest.raises(ConfigError, match="flip.*crop_flip|crop_flip.*flip"):
            get_augmentation(name)


def test_combinations_are_applied_in_their_order():
    both = augment_fn("flip+cutout")(IMAGES, SEEDS)
    by_hand = random_cutout(random_flip(IMAGES, uniform(SEEDS, 0)), uniform(SEEDS, 1))
    np.testing.assert_array_equal(both, by_hand)
    assert get_augmentation("cutout+flip").steps == get_augmentation("flip+cutout").steps[::-1]
    mixed = get_augmentation("crop_flip+mixup")
    assert mixed.steps == get_augmentation("crop+flip").steps and mixed.mixer is mixup.mixup


@pytest.mark.parametrize(
    "name, message",
    [
        ("flip+cutout+flip", "flip occurs twice"),
        ("none+flip", "none leaves images unchanged"),
        ("mixup+cutmix", "mixup and cutmix both mix"),
        ("mixup+flip", "Put it last"),
        ("resize+random_resized_crop", "resize and random_resized_crop both resize"),
        ("resized_crop_flip_rotate20_jitter+resize", "both resize"),
        ("rotate:angle=3", "rotate: expected the arguments degrees, interpolation, not angle"),
        ("flip+rotate:degrees=0", r"degrees in \(0, 180\]"),
        ("rotate:", "name=value pairs"),
        ("rotate:interpolation=cubic", "interpolation=nearest or interpolation=bilinear"),
        ("crop:padding=0", "at least 1 pixel"),
        ("jitter:contrast=1.5", "contrast from 0"),
        ("random_resized_crop:scale=0.5", "two fractions of the area"),
        ("random_resized_crop:scale=0.9-0.2", "two fractions of the area"),
        ("random_resized_crop:scale=0.2-1.1", "two fractions of the area"),
        ("random_resized_crop:ratio=0-1", "two ratios"),
        ("flip:padding=4", "flip has no arguments"),
        ("crop_flip:padding=2", r"crop_flip has no arguments. It stands for crop\+flip"),
        ("flip+rotat:degrees=3", "Did you mean 'rotate'"),
    ],
)
def test_impossible_augmentations_are_refused(name, message):
    with pytest.raises(ConfigError, match=message) as error:
        get_augmentation(name)
    assert (error.value.setting, error.value.value) == ("augmentation", name)


@pytest.mark.parametrize(
    "short, long",
    [
        ("crop", "crop:padding=4"),
        ("rotate", "rotate:degrees=10,interpolation=nearest"),
        ("random_resized_crop", "random_resized_crop:scale=0.08-1,ratio=0.75-1.3333"),
        ("jitter:contrast=0.2", "jitter:brightness=0.2,contrast=0.2,saturation=0.2"),
        ("crop_flip", "crop+flip"),
        ("rotate10_flip", "rotate:interpolation=bilinear+flip"),
        ("flip_rotate20_jitter", "flip+rotate:degrees=20,interpolation=bilinear+jitter"),
        ("resized_crop_flip_rotate20_jitter+mixup", "random_resized_crop+flip+rotate:degrees=20+jitter+mixup"),
    ],
)
def test_short_names_stand_for_the_long_text(short, long):
    assert get_augmentation(short) == get_augmentation(long)


def test_the_usage_of_every_entry_is_its_own_default():
    for entry in AUGMENTATIONS.values():
        assert get_augmentation(entry.usage) == get_augmentation(entry.name)


@pytest.mark.parametrize(
    "one, other",
    [
        ("crop:padding=2", "crop:padding=5"),
        ("rotate:degrees=20", "rotate:degrees=20,interpolation=bilinear"),
        ("rotate:degrees=20", "rotate:degrees=40"),
        ("random_resized_crop:scale=0.3-0.4", "random_resized_crop:scale=0.8-0.9"),
        ("random_resized_crop:scale=0.3-0.4", "random_resized_crop:scale=0.3-0.4,ratio=1.2-1.4"),
        ("jitter:saturation=0.2", "jitter:saturation=0.7"),
        ("jitter:brightness=0.2", "jitter:brightness=0"),
    ],
)
def test_an_argument_has_an_effect(one, other):
    assert not np.array_equal(augment_fn(one)(IMAGES, SEEDS), augment_fn(other)(IMAGES, SEEDS))


def test_jitter_without_strength_is_the_image():
    np.testing.assert_array_equal(augment_fn("jitter:brightness=0,contrast=0,saturation=0")(IMAGES, SEEDS), IMAGES)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_keras_cv_is_imported_only_when_an_augmentation_needs_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)  # its import fails

    def augmented():
        apply = tf.function(augment_fn(name), autograph=False)
        return next(tf.data.Dataset.from_tensor_slices((IMAGES, SEEDS)).batch(12).map(apply).as_numpy_iterator())

    *others, last = [name for name in AUGMENTATIONS if not get_augmentation(name).needs_keras_cv]
    if not get_augmentation(name).needs_keras_cv:
        assert augmented().shape == shape_after(name)
    else:
        with pytest.raises(MissingError, match=f"needs KerasCV.*pip install 'keras-cv.*{', '.join(others)} or {last}"):
            augmented()
