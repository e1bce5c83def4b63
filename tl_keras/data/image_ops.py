"""Operations on images that TensorFlow alone can do: images uint8 (b, h, w, 3), and of each image one value, float32 (b,) -> images uint8.

They are those of Pillow, to within a grey level, as torchvision's augmentations have them; KerasCV's own differ: its brightness adds,
its contrast is about the mean of each channel, and its equalisation takes another step.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

GREY = (0.299, 0.587, 0.114)


def identity(images: "tf.Tensor", values: "tf.Tensor") -> "tf.Tensor":
    """The images as they are."""
    return images


def brightness(images: "tf.Tensor", factors: "tf.Tensor") -> "tf.Tensor":
    """Multiply by the factor: 0 is black, 1 the image."""
    import tensorflow as tf

    return to_uint8(tf.cast(images, tf.float32) * factors[:, None, None, None])


def contrast(images: "tf.Tensor", factors: "tf.Tensor") -> "tf.Tensor":
    """Multiply what differs from the mean grey of the image: 0 is flat grey, 1 the image."""
    import tensorflow as tf

    pixels = tf.cast(images, tf.float32)
    means = tf.reduce_mean(tf.tensordot(pixels, tf.constant(GREY), 1), axis=(1, 2))
    return blend(means[:, None, None, None], pixels, factors)


def sharpness(images: "tf.Tensor", factors: "tf.Tensor") -> "tf.Tensor":
    """Multiply what differs from the smoothed image, but for its border: 0 is smooth, 1 the image, above 1 sharper."""
    import tensorflow as tf

    pixels = tf.cast(images, tf.float32)
    kernel = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = tf.nn.depthwise_conv2d(pixels, tf.tile(kernel[:, :, None, None], [1, 1, 3, 1]), [1, 1, 1, 1], "SAME")
    rows, columns = (tf.abs(2 * tf.range(side) - side + 1) < side - 1 for side in tf.unstack(tf.shape(images)[1:3]))
    inside = (rows[:, None] & columns)[None, :, :, None]
    return blend(tf.where(inside, smooth, pixels), pixels, factors)


def posterize(images: "tf.Tensor", bits: "tf.Tensor") -> "tf.Tensor":
    """Keep the highest bits of each pixel, a number of them that is rounded."""
    import tensorflow as tf

    shifts = tf.cast(8 - tf.round(bits), tf.uint8)[:, None, None, None]
    return tf.bitwise.left_shift(tf.bitwise.right_shift(images, shifts), shifts)


def equalize(images: "tf.Tensor", values: "tf.Tensor") -> "tf.Tensor":
    """Spread the values of each channel evenly over 0..255; takes no value."""
    import tensorflow as tf

    shape = tf.shape(images)
    channels = tf.reshape(tf.transpose(tf.cast(images, tf.int32), [0, 3, 1, 2]), [shape[0] * 3, shape[1] * shape[2]])
    offsets = 256 * tf.range(shape[0] * 3)[:, None]
    counts = tf.reshape(tf.math.bincount(tf.reshape(channels + offsets, [-1]), minlength=768 * shape[0]), [-1, 256])
    highest = tf.gather(counts, tf.reduce_max(channels, axis=1), batch_dims=1)
    step = (shape[1] * shape[2] - highest)[:, None] // 255
    table = tf.minimum((step // 2 + tf.cumsum(counts, axis=1, exclusive=True)) // tf.maximum(step, 1), 255)
    table = tf.cast(tf.where(step > 0, table, tf.range(256)), tf.uint8)
    spread = tf.gather(tf.reshape(table, [-1]), channels + offsets)
    return tf.transpose(tf.reshape(spread, [shape[0], 3, shape[1], shape[2]]), [0, 2, 3, 1])


def blend(base: "tf.Tensor", pixels: "tf.Tensor", factors: "tf.Tensor") -> "tf.Tensor":
    """base + factor (pixels - base) as uint8; factors (b,)."""
    return to_uint8(base + factors[:, None, None, None] * (pixels - base))


def to_uint8(pixels: "tf.Tensor") -> "tf.Tensor":
    """Rounded, and clipped to 0..255."""
    import tensorflow as tf

    return tf.saturate_cast(tf.round(pixels), tf.uint8)
