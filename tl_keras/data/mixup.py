"""Mixup and cutmix: mixtures of two images of a batch and of their targets.

An image is mixed with the one before it in the batch. The order of an epoch is random, so the partner is too. Hence a mixture
depends on the batch and its size, unlike other augmentations; how much of the partner is taken depends only on the image's seed.

All functions map (images (b, h, w, 3), targets float32 (b, classes), draws (b, 3 or more)) to (images float32, targets float32).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

Mixture = tuple["tf.Tensor", "tf.Tensor"]  # images, targets


def mixup(images: "tf.Tensor", targets: "tf.Tensor", draws: "tf.Tensor") -> Mixture:
    """Return weighted means of two images. The weight is from Beta(1, 1), which is uniform (Zhang et al. 2018, alpha 1)."""
    import tensorflow as tf

    weights = draws[:, 0]
    pixels = tf.cast(images, tf.float32)
    return _mean(pixels, weights[:, None, None, None]), _mean(targets, weights[:, None])


def cutmix(images: "tf.Tensor", targets: "tf.Tensor", draws: "tf.Tensor") -> Mixture:
    """Replace a rectangle by that of another image. Its area is drawn from the uniform distribution (Yun et al. 2019, alpha 1).

    The rectangle has the aspect ratio of the image and a centre anywhere in it, and is clipped at the border. Targets are weighted
    by the area that is really replaced.
    """
    import tensorflow as tf

    pixels = tf.cast(images, tf.float32)
    fractions = tf.sqrt(draws[:, 0])
    rows, columns = (_interval_mask(tf.shape(images)[axis], draws[:, axis], fractions) for axis in (1, 2))
    mask = tf.cast(rows[:, :, None] & columns[:, None, :], tf.float32)
    return _mean(pixels, 1 - mask[..., None]), _mean(targets, 1 - tf.reduce_mean(mask, axis=(1, 2))[:, None])


def _mean(values: "tf.Tensor", weights: "tf.Tensor") -> "tf.Tensor":
    """Return the weighted mean of each entry and the one before it. `weights` are those of the entry itself."""
    import tensorflow as tf

    return weights * values + (1 - weights) * tf.roll(values, 1, axis=0)


def _interval_mask(length: "tf.Tensor", centres: "tf.Tensor", fractions: "tf.Tensor") -> "tf.Tensor":
    """Return a mask, bool (b, length), of the positions within an interval of `fractions * length` around each centre in [0, 1)."""
    import tensorflow as tf

    size = tf.cast(length, tf.float32)
    positions = tf.range(size) + 0.5
    return tf.abs(positions - (centres * size)[:, None]) < (fractions * size / 2)[:, None]
