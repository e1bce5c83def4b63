"""Batches for training and evaluation, as tf.data: decode, augment, resize; in parallel and in order.

Images are augmented at source resolution, unless the augmentation itself resizes. `Geometry` decides whether images are resized
here or later on the device; see there.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from tl_keras.data.augmentation import AugmentFn, augment_fn, get_augmentation, mix_fn
from tl_keras.data.examples import Examples
from tl_keras.data.geometry import Geometry, ResizeFn, Size
from tl_keras.data.sampling import TrainingOrder, batch_sizes

NUM_READY = 2  # batches


def training_batches(
    order: TrainingOrder, geometry: Geometry, *, num_classes: int, augmentation: str, sizes: Sequence[int], epoch: int
) -> tf.data.Dataset:
    """Return the batches of one epoch, from 0.

    Order and augmentation depend only on (seed, epoch). Mixup and cutmix also depend on the batch; images of one size are
    mixed before they are resized, others after that. If the augmentation resizes, `geometry` must not resize on the device.

    Args:
        sizes: numbers of examples in the batches, see `sampling.batch_sizes`.

    Returns:
        Batches (images, targets). Images are float32 (b, image_size, image_size, 3) in 0..255, or at
        the source size if the device resizes them. Targets are float32 (b, num_classes): one-hot, or mixtures of one-hot.
    """
    examples, epoch_order = order.examples, order.epoch(epoch)
    seeds = _seeds(order.seed, epoch_order.views, epoch_order.augmentation_ids)
    labels = examples.labels[epoch_order.positions].astype(np.int32)
    augment_images, resize = _augment_and_resize(augmentation, geometry, examples.size)
    mix_images = mix_fn(augmentation)

    def prepare(images: tf.Tensor, seeds: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images, targets = augment_images(images, seeds), tf.one_hot(labels, num_classes)
        if mix_images and examples.size:
            images, targets = mix_images(images, targets, seeds)
        return resize(images), targets, seeds

    def finish(images: tf.Tensor, targets: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return mix_images(images, targets, seeds) if mix_images and not examples.size else (images, targets)

    return _batches(examples, epoch_order.positions, (seeds, labels), prepare, sizes, finish)


def _seeds(seed: int, views: np.ndarray, augmentation_ids: np.ndarray) -> np.ndarray:
    """Return the augmentation seeds, int64 (n, 2). They identify the image itself, not its position in the epoch."""
    return np.stack([(seed << 32) + views, augmentation_ids], axis=1)


def view_batches(
    examples: Examples, views: np.ndarray, geometry: Geometry, *, augmentation: str, batch_size: int, seed: int
) -> tf.data.Dataset:
    """Return batches (images,) of the examples in order, each in the view given by `views`, int64 (n,).

    The images are those that `training_batches` gives for these views.
    """
    augment_images, resize = _augment_and_resize(augmentation, geometry, examples.size)

    def prepare(images: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (resize(augment_images(images, seeds)),)

    return _batches(
        examples, np.arange(len(examples)), (_seeds(seed, views, examples.indices),), prepare, batch_sizes(len(examples), batch_size)
    )


def feature_batches(
    load: Callable[[np.ndarray], np.ndarray], ids: np.ndarray, others: tuple[np.ndarray, ...], spec: tf.TensorSpec, sizes: Sequence[int]
) -> tf.data.Dataset:
    """Return batches (features, *others).

    Args:
        load: ids (b,) -> features (b, ...).
        ids: int64 (n,), in the order of the batches.
        others: arrays (n, ...), e.g. labels.
        spec: shape and dtype of the features of one example.
        sizes: numbers of examples in the batches, see `sampling.batch_sizes`.
    """

    def prepare(ids: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, ...]:
        features = tf.numpy_function(load, [ids], spec.dtype, stateful=False)
        features.set_shape((None, *spec.shape))
        return features, *others

    def in_batches(columns: tuple[np.ndarray, ...], size: int) -> tf.data.Dataset:
        return _map(tf.data.Dataset.from_tensor_slices(columns).batch(size), prepare)

    return prefetched(_with_larger_last((ids, *others), sizes, in_batches))


def _with_larger_last(
    columns: tuple[np.ndarray, ...], sizes: Sequence[int], in_batches: Callable[[tuple[np.ndarray, ...], int], tf.data.Dataset]
) -> tf.data.Dataset:
    """Return the batches of `columns`, arrays (n, ...): those of the first size, and a larger last one after them.

    Args:
        in_batches: (columns, batch size) -> batches, of which the last may be smaller.
    """
    if sizes[-1] <= sizes[0]:
        return in_batches(columns, sizes[0])
    end = sum(sizes[:-1])
    batches = in_batches(tuple(column[:end] for column in columns), sizes[0])
    return batches.concatenate(in_batches(tuple(column[end:] for column in columns), sizes[-1]))


def prefetched(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return `batches`, of which `NUM_READY` are prepared ahead. Maps have a call for each core, up to 16.

    Autotuning, which would choose these numbers, is off. Its thread sleeps for periods that double, and an iterator that ends may wait
    for it, in the worst case as long as the epoch has taken, up to a minute (TensorFlow 2.21).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(NUM_READY).with_options(options)


def _map(batches: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    """Apply `function` to all elements, in parallel and in order. Autograph is off, since its conversion takes a second."""
    return batches.map(tf.autograph.experimental.do_not_convert(function), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def evaluation_batches(examples: Examples, geometry: Geometry, *, batch_size: int, replicas: int = 1) -> tf.data.Dataset:
    """Return batches with every example exactly once, in order.

    Returns:
        Batches (images as those of `training_batches`, labels int32 (b,), weights float32 (b,)). Weights are 1. Copies of the
        last example with weight 0 pad the last batch to a multiple of `replicas`.
    """
    positions, weights = padded_positions(len(examples), replicas)
    resize = geometry.pipeline_resize(examples.size) or tf.identity

    def prepare(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return resize(images), labels, weights

    others = examples.labels[positions].astype(np.int32), weights
    return _batches(examples, positions, others, prepare, batch_sizes(len(positions), batch_size))


def padded_positions(num_examples: int, replicas: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions 0..num_examples-1, padded with the last to a multiple of `replicas`, and weights: 0 for the padding."""
    padded = np.arange(num_examples + -num_examples % replicas)
    return padded.clip(max=num_examples - 1), (padded < num_examples).astype(np.float32)


def _augment_and_resize(augmentation: str, geometry: Geometry, size: Size | None) -> tuple[AugmentFn, ResizeFn]:
    """Return the augmentation, and what follows it: the resize, unless the augmentation or the device resizes."""
    augment_images = _augment_fn(augmentation, geometry.in_pipeline())
    if get_augmentation(augmentation).resizes:
        return augment_images, lambda images: tf.cast(images, tf.float32)
    return augment_images, geometry.pipeline_resize(size) or tf.identity


@lru_cache(maxsize=8)
def _augment_fn(augmentation: str, geometry: Geometry) -> AugmentFn:
    """Return the function of an augmentation. It is traced once, not once per epoch, which can take a second."""
    return tf.function(augment_fn(augmentation, geometry), reduce_retracing=True, autograph=False)


def _batches(
    examples: Examples,
    positions: np.ndarray,
    others: tuple[np.ndarray, ...],
    prepare: Callable[..., tuple[tf.Tensor, ...]],
    sizes: Sequence[int],
    finish: Callable[..., tuple[tf.Tensor, ...]] | None = None,
) -> tf.data.Dataset:
    """Return `prepare(images, *others)` of the examples at `positions`, in batches of `sizes`.

    Images of one size are prepared a batch at a time, others one by one. `finish` is applied to each batch after that.
    """
    one_size = examples.size is not None

    def load(positions: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images = tf.numpy_function(examples.load_batch, [positions], tf.uint8, stateful=False)
        images.set_shape((None, *(examples.size or (None, None)), 3))
        return prepare(images, *others)

    def in_batches(columns: tuple[np.ndarray, ...], size: int) -> tf.data.Dataset:
        batches = _map(tf.data.Dataset.from_tensor_slices(columns).batch(size if one_size else 1), load)
        return batches if one_size else batches.unbatch().batch(size)

    batches = _with_larger_last((positions, *others), sizes, in_batches)
    return prefetched(_map(batches, finish) if finish else batches)
