"""Random numbers without state: those of an image depend on its own seed alone, whatever batch it is in."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

NUM_DRAWS = 40


def uniform(seeds: "tf.Tensor", step: int) -> "tf.Tensor":
    """Draws in [0, 1), float32 (b, NUM_DRAWS): of each row, its own, from its seed and the number of the step (SplitMix64).

    TensorFlow's stateless generators take one seed a call: a call for each image costs more than the augmentation.

    Args:
        seeds: int64 (b, 2).
        step: which of the steps of an augmentation draws, from 0.
    """
    import tensorflow as tf

    words = tf.bitcast(tf.cast(seeds, tf.int64), tf.uint64)
    row = _mix(tf.bitwise.bitwise_xor(_mix(words[:, 0]), words[:, 1]))
    counters = tf.cast(tf.range(1, NUM_DRAWS + 1) + step * NUM_DRAWS, tf.uint64) * tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    bits = tf.bitwise.right_shift(_mix(row[:, None] + counters), tf.constant(40, tf.uint64))
    return tf.cast(bits, tf.float32) * 2.0**-24


def _mix(words: "tf.Tensor") -> "tf.Tensor":
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    import tensorflow as tf

    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        shifted = tf.bitwise.right_shift(words, tf.constant(shift, tf.uint64))
        words = tf.bitwise.bitwise_xor(words, shifted) * tf.constant(factor, tf.uint64)
    return words
