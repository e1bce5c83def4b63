"""Stateless random numbers: those of an image depend only on its seed, not on the batch that it is in."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

NUM_DRAWS = 40  # per image and step


def uniform(seeds: "tf.Tensor", step: int) -> "tf.Tensor":
    """Return uniform draws in [0, 1), float32 (b, NUM_DRAWS). Each row depends only on its own seed and on `step`.

    The generator is SplitMix64. TensorFlow's stateless generators take one seed per call, and one call per image would cost more
    than the augmentation.

    Args:
        seeds: int64 (b, 2).
        step: index of the augmentation step that draws, from 0.
    """
    import tensorflow as tf

    words = tf.bitcast(tf.cast(seeds, tf.int64), tf.uint64)
    state = _mix(tf.bitwise.bitwise_xor(_mix(words[:, 0]), words[:, 1]))
    counters = tf.cast(tf.range(1, NUM_DRAWS + 1) + step * NUM_DRAWS, tf.uint64) * tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    bits = tf.bitwise.right_shift(_mix(state[:, None] + counters), tf.constant(40, tf.uint64))
    return tf.cast(bits, tf.float32) * 2.0**-24


def _mix(words: "tf.Tensor") -> "tf.Tensor":
    """Apply the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    import tensorflow as tf

    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        shifted = tf.bitwise.right_shift(words, tf.constant(shift, tf.uint64))
        words = tf.bitwise.bitwise_xor(words, shifted) * tf.constant(factor, tf.uint64)
    return words
