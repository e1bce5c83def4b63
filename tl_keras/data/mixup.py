"""Mixtures of the images of a batch and of their targets. Stateless: how much of its partner an image gets, its own seed decides.

Its partner is the image before it in the batch, which the order of the epoch has made random; so, unlike all else, a mixture depends on
the batch, and on its size. Each is (images (b, h, w, 3), targets float32 (b, classes), draws (b, 4 or more)) -> images float32, targets.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

Mixture = tuple["tf.Tensor", "tf.Tensor"]


def mixup(images: "tf.Tensor", targets: "tf.Tensor", draws: "tf.Tensor") -> Mixture:
    """Weighted means of two images, with a weight from Beta(1, 1), the uniform distribution (Zhang et al. 2018, alpha 1 on CIFAR-10)."""
    import tensorflow as tf

    share = draws[:, 0]
    pixels = tf.cast(images, tf.float32)
    return _mean(pixels, share[:, None, None, None]), _mean(targets, share[:, None])


def cutmix(images: "tf.Tensor", targets: "tf.Tensor", draws: "tf.Tensor") -> Mixture:
    """A rectangle of another image, its area drawn from the uniform distribution (Yun et al. 2019, alpha 1).

    It has the shape of the image and a centre anywhere in it. What lies outside is lost; targets are mixed as pixels really are.
    """
    import tensorflow as tf

    pixels = tf.cast(images, tf.float32)
    side = tf.sqrt(draws[:, 0])
    rows, columns = (_within(tf.shape(images)[axis], draws[:, axis], side) for axis in (1, 2))
    other = tf.cast(rows[:, :, None] & columns[:, None, :], tf.float32)
    return _mean(pixels, 1 - other[..., None]), _mean(targets, 1 - tf.reduce_mean(other, axis=(1, 2))[:, None])


def _mean(values: "tf.Tensor", share: "tf.Tensor") -> "tf.Tensor":
    """`share` of each, and the rest of the one before it."""
    import tensorflow as tf

    return share * values + (1 - share) * tf.roll(values, 1, axis=0)


def _within(length: "tf.Tensor", centres: "tf.Tensor", shares: "tf.Tensor") -> "tf.Tensor":
    """Which of `length` places lie in the interval about each centre, in [0, 1), that is this share of them: bool (b, length)."""
    import tensorflow as tf

    size = tf.cast(length, tf.float32)
    places = tf.range(size) + 0.5
    return tf.abs(places - (centres * size)[:, None]) < (shares * size / 2)[:, None]
