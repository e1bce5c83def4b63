"""Batches of labelled images for `model.fit`. TensorFlow is imported here."""

import itertools
from collections.abc import Iterator

import tensorflow as tf

from tl_keras.data import Examples, get_augmentation, pipeline
from tl_keras.data.augmentation import mix_fn
from tl_keras.data.geometry import Geometry
from tl_keras.data.sampling import TrainingOrder, batch_sizes
from tl_keras.errors import ConfigError


def make_batches(
    examples: Examples, image_size: int, batch_size: int, augmentation: str, shuffle_seed: int | None, num_classes: int
) -> tf.data.Dataset:
    """Return batches (images float32 (b, image_size, image_size, 3) in 0..255, labels int32 (b,)).

    Without `shuffle_seed` they are in order. With it, each iteration over the data set is another epoch, with its own order and
    augmentation.

    Raises:
        ConfigError: The augmentation is unknown, or mixes labels.
    """
    get_augmentation(augmentation)
    if mix_fn(augmentation):
        raise ConfigError("it mixes labels, which are class numbers here.", setting="augmentation", value=augmentation)
    geometry = Geometry(image_size, 1.0)
    if shuffle_seed is None:
        batches = pipeline.evaluation_batches(examples, geometry.in_pipeline(), batch_size=batch_size)
        return batches.map(lambda images, labels, _: (images, labels))
    order, sizes = TrainingOrder(examples, shuffle_seed), batch_sizes(len(examples), batch_size)
    epochs = itertools.count()

    def next_epoch() -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        epoch = next(epochs)
        batches = pipeline.training_batches(
            order, geometry.in_pipeline(), num_classes=num_classes, augmentation=augmentation, sizes=sizes, epoch=epoch
        )
        for images, targets in batches:
            yield images, tf.argmax(targets, axis=1, output_type=tf.int32)

    images = tf.TensorSpec((None, image_size, image_size, 3), tf.float32)
    labels = tf.TensorSpec((None,), tf.int32)
    batches = tf.data.Dataset.from_generator(next_epoch, output_signature=(images, labels))
    return pipeline.prefetched(batches.apply(tf.data.experimental.assert_cardinality(len(sizes))))
