"""Batches for training and evaluation, as tf.data: decode, augment at the source resolution, resize, in parallel and in order."""

from collections.abc import Callable
from functools import lru_cache

import keras
import numpy as np
import tensorflow as tf

from tl_keras.data.augment import augment
from tl_keras.data.examples import Examples

UNKNOWN = (None, None)


def training_batches(
    examples: Examples,
    *,
    image_size: int,
    crop_fraction: float,
    augmentation: str,
    batch_size: int,
    seed: int,
    epoch: int,
    replicas: int = 1,
) -> tf.data.Dataset:
    """One epoch, in an order and with an augmentation that (seed, epoch) alone decide.

    Args:
        epoch: from 0.
        replicas: the epoch is trimmed to a multiple of it, and nothing else is dropped.

    Returns:
        Batches (images float32 (b, image_size, image_size, 3) in 0..255, labels int32 (b,)); the last may be smaller.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(examples))
    order = order[: len(order) - len(order) % replicas]
    # An image's seed names the image itself, not its place in the epoch.
    seeds = np.stack([np.full(len(order), (seed << 32) + epoch), examples.indices[order]], axis=1)
    alter, scale = augment(augmentation), _resizing(image_size, crop_fraction, examples.size or UNKNOWN)

    def prepare(images: tf.Tensor, seeds: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return scale(alter(images, seeds)), labels

    return _batches(examples, order, (seeds, examples.labels[order].astype(np.int32)), prepare, batch_size)


def evaluation_batches(examples: Examples, *, image_size: int, crop_fraction: float, batch_size: int, replicas: int = 1) -> tf.data.Dataset:
    """Every example exactly once, in order.

    Returns:
        Batches (images float32 (b, image_size, image_size, 3) in 0..255, labels int32 (b,), weights float32 (b,)). Weights are 1;
        copies of the last example with weight 0 follow it, as many as make the last batch divisible by `replicas`.
    """
    padded = np.arange(len(examples) + -len(examples) % replicas)
    positions = padded.clip(max=len(examples) - 1)
    weights = (padded < len(examples)).astype(np.float32)
    scale = _resizing(image_size, crop_fraction, examples.size or UNKNOWN)

    def prepare(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return scale(images), labels, weights

    return _batches(examples, positions, (examples.labels[positions].astype(np.int32), weights), prepare, batch_size)


def resize_layers(image_size: int, crop_fraction: float, *, antialias: bool = True) -> list[keras.Layer]:
    """The geometry, as stock layers that an exported model can hold: images (b, h, w, 3) of any size -> float32 (b, size, size, 3).

    The centre is cropped to a square and scaled, bilinearly, to `image_size / crop_fraction`; of that, the centre is kept.
    Where images grow, `antialias` changes nothing but takes three times as long.
    """
    side = round(image_size / crop_fraction)
    return [
        keras.layers.Rescaling(1.0, dtype="float32"),  # Resizing rounds its result where it is given integers
        keras.layers.Resizing(side, side, crop_to_aspect_ratio=True, antialias=antialias, dtype="float32"),
        keras.layers.CenterCrop(image_size, image_size, dtype="float32"),
    ]


def resize(images: tf.Tensor, image_size: int, crop_fraction: float) -> tf.Tensor:
    """Apply `resize_layers` to images (b, h, w, 3)."""
    return _resizing(image_size, crop_fraction, tuple(images.shape[1:3]))(images)


@lru_cache(maxsize=8)
def _resizing(image_size: int, crop_fraction: float, size: tuple[int | None, int | None]) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function that applies the layers to images of `size`, made once and not once for each epoch."""
    grows = None not in size and min(size) <= round(image_size / crop_fraction)
    layers = resize_layers(image_size, crop_fraction, antialias=not grows)

    def apply(images: tf.Tensor) -> tf.Tensor:
        for layer in layers:
            images = layer(images)
        return images

    return apply


def _batches(
    examples: Examples, positions: np.ndarray, rest: tuple[np.ndarray, ...], prepare: Callable[..., tuple[tf.Tensor, ...]], batch_size: int
) -> tf.data.Dataset:
    """`prepare(images, *rest)` of the examples at `positions`: a batch at a time where all images have one size, else one by one."""
    one_size = examples.size is not None

    def load(positions: tf.Tensor, *rest: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images = tf.numpy_function(examples.stack, [positions], tf.uint8, stateful=False)
        images.set_shape((None, *(examples.size or UNKNOWN), 3))
        return prepare(images, *rest)

    rows = tf.data.Dataset.from_tensor_slices((positions, *rest)).batch(batch_size if one_size else 1)
    batches = rows.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return (batches if one_size else batches.unbatch().batch(batch_size)).prefetch(tf.data.AUTOTUNE)
