"""Batches for training and evaluation, as tf.data: decode, augment at the source resolution, resize, in parallel and in order.

Images of one size that the network sees enlarged are resized last, and can be left as they are for the device to do it (`enlarging`):
224 x 224 pixels in float32 are 200 times the bytes of CIFAR's 32 x 32 in uint8.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_keras.data.augmentation import augment, mix
from tl_keras.data.examples import Examples
from tl_keras.data.sampling import NATURAL, training_epoch

UNKNOWN = (None, None)


def training_batches(
    examples: Examples,
    *,
    num_classes: int,
    image_size: int,
    crop_fraction: float,
    augmentation: str,
    batch_size: int,
    seed: int,
    epoch: int,
    sampling: str = NATURAL,
    num_views: int = 0,
    replicas: int = 1,
    resized: bool = True,
) -> tf.data.Dataset:
    """One epoch, in an order and with an augmentation that (seed, epoch) alone decide; but what mixes images depends on the batch too.

    Args:
        epoch: from 0.
        sampling: `natural` or `balanced`; see `sampling`.
        num_views: augment each image in so many ways at most; 0: in a new one each epoch.
        replicas: the epoch is trimmed to a multiple of it, and nothing else is dropped.
        resized: whether images come as the network sees them; else, for images of one size alone, (b, h, w, 3) as `enlarging` takes them.

    Returns:
        Batches (images float32 (b, image_size, image_size, 3) in 0..255, targets float32 (b, num_classes)); the last may be smaller.
        Targets are one-hot, or mixtures of those. Images of one size are mixed before they are resized, others after that.
    """
    shown = training_epoch(examples, sampling, seed=seed, epoch=epoch, replicas=replicas, num_views=num_views)
    seeds = _seeds(seed, shown.views, shown.names)
    alter, mixture = _altering(augmentation), mix(augmentation)
    scale = _scaling(examples, image_size, crop_fraction, resized)

    def prepare(images: tf.Tensor, seeds: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images, targets = alter(images, seeds), tf.one_hot(labels, num_classes)
        if mixture and examples.size:
            images, targets = mixture(images, targets, seeds)
        return scale(images), targets, seeds

    def finish(images: tf.Tensor, targets: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return mixture(images, targets, seeds) if mixture and not examples.size else (images, targets)

    return _batches(examples, shown.order, (seeds, examples.labels[shown.order].astype(np.int32)), prepare, batch_size, finish)


def _seeds(seed: int, views: np.ndarray, names: np.ndarray) -> np.ndarray:
    """The seeds of augmentation, int64 (n, 2): they name an image itself, not its place in the epoch."""
    return np.stack([(seed << 32) + views, names], axis=1)


def view_batches(
    examples: Examples,
    views: np.ndarray,
    *,
    image_size: int,
    crop_fraction: float,
    augmentation: str,
    batch_size: int,
    seed: int,
    resized: bool = True,
) -> tf.data.Dataset:
    """The examples in order, each in one of its views, int64 (n,): batches (images,) as those of `training_batches`."""
    alter, scale = _altering(augmentation), _scaling(examples, image_size, crop_fraction, resized)

    def prepare(images: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (scale(alter(images, seeds)),)

    return _batches(examples, np.arange(len(examples)), (_seeds(seed, views, examples.indices),), prepare, batch_size)


def row_batches(
    take: Callable[[np.ndarray], np.ndarray], ids: np.ndarray, rest: tuple[np.ndarray, ...], like: tf.TensorSpec, batch_size: int
) -> tf.data.Dataset:
    """Batches (rows, *rest): `take` gives the rows (b, ...) of some of the numbers `ids` (n,), each `like` one without its batch."""

    def load(ids: tf.Tensor, *rest: tf.Tensor) -> tuple[tf.Tensor, ...]:
        rows = tf.numpy_function(take, [ids], like.dtype, stateful=False)
        rows.set_shape((None, *like.shape))
        return rows, *rest

    batches = tf.data.Dataset.from_tensor_slices((ids, *rest)).batch(batch_size)
    return _map(batches, load).prefetch(tf.data.AUTOTUNE)


def _map(batches: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    """`function` of all elements, in parallel and in order. It is taken as it is: looking for Python loops to convert takes a second."""
    return batches.map(tf.autograph.experimental.do_not_convert(function), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def evaluation_batches(
    examples: Examples, *, image_size: int, crop_fraction: float, batch_size: int, replicas: int = 1, resized: bool = True
) -> tf.data.Dataset:
    """Every example exactly once, in order.

    Returns:
        Batches (images as those of `training_batches`, labels int32 (b,), weights float32 (b,)). Weights are 1;
        copies of the last example with weight 0 follow it, as many as make the last batch divisible by `replicas`.
    """
    positions, weights = padded_order(len(examples), replicas)
    scale = _scaling(examples, image_size, crop_fraction, resized)

    def prepare(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return scale(images), labels, weights

    return _batches(examples, positions, (examples.labels[positions].astype(np.int32), weights), prepare, batch_size)


def padded_order(num: int, replicas: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions 0 to num - 1, and the last again until they divide by `replicas`; and weights float32, 0 of what is there again."""
    padded = np.arange(num + -num % replicas)
    return padded.clip(max=num - 1), (padded < num).astype(np.float32)


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


def enlarging(size: tuple[int, int] | None, image_size: int, crop_fraction: float) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """What `resize` does to images (b, *size, 3), uint8 or float32, for a device to do; None where they are of several sizes, or do not
    grow: the filter that they need then is nothing that XLA can compile."""
    return _resizing(image_size, crop_fraction, size) if size and _grows(size, image_size, crop_fraction) else None


def behind(enlarge: Callable[[tf.Tensor], tf.Tensor] | None, network: Callable[..., Any]) -> Callable[..., Any]:
    """`network`, (images, training=...) -> outputs, of images that are enlarged before it."""
    if enlarge is None:
        return network
    return lambda images, training: network(enlarge(images), training=training)


def _grows(size: tuple[int, int], image_size: int, crop_fraction: float) -> bool:
    return min(size) <= round(image_size / crop_fraction)


def _scaling(examples: Examples, image_size: int, crop_fraction: float, resized: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    return _resizing(image_size, crop_fraction, examples.size or UNKNOWN) if resized else tf.identity


@lru_cache(maxsize=8)
def _altering(augmentation: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The function of an augmentation, traced once and not once for each epoch, which can take a second."""
    return tf.function(augment(augmentation), reduce_retracing=True, autograph=False)


@lru_cache(maxsize=8)
def _resizing(image_size: int, crop_fraction: float, size: tuple[int | None, int | None]) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function that applies the layers to images of `size`, made once and not once for each epoch."""
    grows = None not in size and _grows(size, image_size, crop_fraction)
    layers = resize_layers(image_size, crop_fraction, antialias=not grows)

    def apply(images: tf.Tensor) -> tf.Tensor:
        for layer in layers:
            images = layer(images)
        return images

    return apply


def _batches(
    examples: Examples,
    positions: np.ndarray,
    rest: tuple[np.ndarray, ...],
    prepare: Callable[..., tuple[tf.Tensor, ...]],
    batch_size: int,
    finish: Callable[..., tuple[tf.Tensor, ...]] | None = None,
) -> tf.data.Dataset:
    """`prepare(images, *rest)` of the examples at `positions`: a batch at a time where all images have one size, else one by one.

    `finish` takes what `prepare` gives, a batch at a time.
    """
    one_size = examples.size is not None

    def load(positions: tf.Tensor, *rest: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images = tf.numpy_function(examples.stack, [positions], tf.uint8, stateful=False)
        images.set_shape((None, *(examples.size or UNKNOWN), 3))
        return prepare(images, *rest)

    rows = tf.data.Dataset.from_tensor_slices((positions, *rest)).batch(batch_size if one_size else 1)
    batches = _map(rows, load)
    batches = batches if one_size else batches.unbatch().batch(batch_size)
    return (_map(batches, finish) if finish else batches).prefetch(tf.data.AUTOTUNE)
