"""Image operations in plain TensorFlow: (images uint8 (b, h, w, 3), values float32 (b,), one per image) -> images uint8.

They equal Pillow's to within one grey level, as torchvision's augmentations do. KerasCV's layers of these names cannot replace
them. Its brightness adds a constant, its contrast uses the mean of each channel, and its equalization rounds its step differently.
Its posterization takes one value per batch, and its sharpness fails on images below 3 pixels.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

GREY = (0.299, 0.587, 0.114)


def identity(images: "tf.Tensor", values: "tf.Tensor") -> "tf.Tensor":
    """Return the images unchanged."""
    return images


def brightness(images: "tf.Tensor", factors: "tf.Tensor") -> "tf.Tensor":
    """Multiply pixels by the factor: 0 gives black, 1 the image."""
    import tensorflow as tf

    return to_uint8(tf.cast(images, tf.float32) * factors[:, None, None, None])


def contrast(images: "tf.Tensor", factors: "tf.Tensor") -> "tf.Tensor":
    """Scale the difference from the mean grey of the image: 0 gives flat grey, 1 the image."""
    import tensorflow as tf

    pixels = tf.cast(images, tf.float32)
    means = tf.reduce_mean(tf.tensordot(pixels, tf.constant(GREY), 1), axis=(1, 2))
    return blend(means[:, None, None, None], pixels, factors)


def sharpness(images: "tf.Tensor", factors: "tf.Tensor") -> "tf.Tensor":
    """Scale the difference from the smoothed image: 0 gives the smoothed image, 1 the image, above 1 a sharper one.

    The border of one pixel is unchanged.
    """
    import tensorflow as tf

    pixels = tf.cast(images, tf.float32)
    kernel = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = tf.nn.depthwise_conv2d(pixels, tf.tile(kernel[:, :, None, None], [1, 1, 3, 1]), [1, 1, 1, 1], "SAME")
    rows, columns = (tf.abs(2 * tf.range(side) - side + 1) < side - 1 for side in tf.unstack(tf.shape(images)[1:3]))
    inside = (rows[:, None] & columns)[None, :, :, None]
    return blend(tf.where(inside, smooth, pixels), pixels, factors)


def posterize(images: "tf.Tensor", bits: "tf.Tensor") -> "tf.Tensor":
    """Keep the highest bits of every pixel. Their number, `bits`, is rounded."""
    import tensorflow as tf

    shifts = tf.cast(8 - tf.round(bits), tf.uint8)[:, None, None, None]
    return tf.bitwise.left_shift(tf.bitwise.right_shift(images, shifts), shifts)


def equalize(images: "tf.Tensor", values: "tf.Tensor") -> "tf.Tensor":
    """Equalize the histogram of each channel. `values` are unused."""
    import tensorflow as tf

    shape = tf.shape(images)
    channels = tf.reshape(tf.transpose(tf.cast(images, tf.int32), [0, 3, 1, 2]), [shape[0] * 3, shape[1] * shape[2]])
    offsets = 256 * tf.range(shape[0] * 3)[:, None]
    counts = tf.reshape(tf.math.bincount(tf.reshape(channels + offsets, [-1]), minlength=768 * shape[0]), [-1, 256])
    highest = tf.gather(counts, tf.reduce_max(channels, axis=1), batch_dims=1)
    step = (shape[1] * shape[2] - highest)[:, None] // 255
    table = tf.minimum((step // 2 + tf.cumsum(counts, axis=1, exclusive=True)) // tf.maximum(step, 1), 255)
    table = tf.cast(tf.where(step > 0, table, tf.range(256)), tf.uint8)
    equalized = tf.gather(tf.reshape(table, [-1]), channels + offsets)
    return tf.transpose(tf.reshape(equalized, [shape[0], 3, shape[1], shape[2]]), [0, 2, 3, 1])


def blend(base: "tf.Tensor", pixels: "tf.Tensor", factors: "tf.Tensor") -> "tf.Tensor":
    """Return base + factor * (pixels - base) as uint8. `factors` are (b,)."""
    return to_uint8(base + factors[:, None, None, None] * (pixels - base))


def to_uint8(pixels: "tf.Tensor") -> "tf.Tensor":
    """Round to the nearest integer and clip to 0..255."""
    import tensorflow as tf

    return tf.saturate_cast(tf.round(pixels), tf.uint8)
