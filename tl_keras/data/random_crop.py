"""Random crops. Those of an image depend only on its row of uniform random numbers, `draws`, float32 (b, n)."""

from typing import TYPE_CHECKING

from tl_keras.data.geometry import Geometry
from tl_keras.data.image_ops import to_uint8

if TYPE_CHECKING:
    import tensorflow as tf

NUM_TRIES = 10  # of torchvision's RandomResizedCrop; each takes two draws
Range = tuple[float, float]


def random_crop(images: "tf.Tensor", draws: "tf.Tensor", padding: int) -> "tf.Tensor":
    """Shift by up to `padding` pixels in each direction and fill with black, as torchvision's RandomCrop(size, padding)."""
    import tensorflow as tf

    shape = tf.shape(images)
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    offsets = tf.cast(draws[:, :2] * (2 * padding + 1), tf.int32)
    rows = offsets[:, 0, None] + tf.range(shape[1])
    columns = offsets[:, 1, None] + tf.range(shape[2])
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def random_resized_crop(images: "tf.Tensor", draws: "tf.Tensor", scale: Range, ratio: Range, geometry: Geometry) -> "tf.Tensor":
    """Resize a random part of each image to the input of the model, as torchvision's RandomResizedCrop.

    Images that shrink are antialiased. The result is rounded, uint8 (b, image_size, image_size, 3).

    Args:
        scale: smallest and largest area of the part, as fractions of the area of the image.
        ratio: smallest and largest ratio of its width to its height.
        geometry: side of the model's input, and interpolation. Its centre crop is not used.
    """
    import tensorflow as tf

    side = geometry.image_size

    def resized(image_and_box: tuple["tf.Tensor", "tf.Tensor"]) -> "tf.Tensor":
        image, (top, left, height, width) = image_and_box[0], tf.unstack(image_and_box[1])
        part = image[top : top + height, left : left + width]
        return to_uint8(tf.image.resize(part, (side, side), geometry.interpolation, antialias=True))

    boxes = crop_boxes(tf.shape(images)[1], tf.shape(images)[2], draws, scale, ratio)
    return tf.map_fn(resized, (images, boxes), fn_output_signature=tf.TensorSpec((side, side, 3), tf.uint8))


def crop_boxes(height: "tf.Tensor", width: "tf.Tensor", draws: "tf.Tensor", scale: Range, ratio: Range) -> "tf.Tensor":
    """Return a random box (top, left, height, width) for each row of `draws`, int32 (b, 4), inside an image of `height` x `width`.

    The area is uniform, and the ratio of the sides is uniform in its logarithm. The first of ten boxes that fits is taken. If none
    does, the box is the largest in the centre of the image whose ratio is allowed. See RandomResizedCrop.get_params of torchvision.
    """
    import tensorflow as tf

    tries = draws[:, : 2 * NUM_TRIES]
    pixels = tf.cast(height * width, tf.float32)
    areas = pixels * (scale[0] + (scale[1] - scale[0]) * tries[:, ::2])
    low, high = (tf.math.log(bound) for bound in ratio)
    ratios = tf.exp(low + (high - low) * tries[:, 1::2])
    heights, widths = (tf.cast(tf.round(tf.sqrt(square)), tf.int32) for square in (areas / ratios, areas * ratios))
    fits = (heights >= 1) & (widths >= 1) & (heights <= height) & (widths <= width)  # (b, NUM_TRIES)
    first = tf.argmax(fits, axis=1)
    sizes = tf.gather(tf.stack([heights, widths], axis=2), first, axis=1, batch_dims=1)
    free = tf.stack([height, width]) - sizes
    offsets = tf.cast(draws[:, 2 * NUM_TRIES : 2 * NUM_TRIES + 2] * tf.cast(free + 1, tf.float32), tf.int32)
    central = _central_box(height, width, ratio)
    return tf.where(tf.reduce_any(fits, axis=1)[:, None], tf.concat([offsets, sizes], axis=1), central)


def _central_box(height: "tf.Tensor", width: "tf.Tensor", ratio: Range) -> "tf.Tensor":
    """Return the largest box (top, left, height, width) in the centre whose ratio of width to height is within `ratio`."""
    import tensorflow as tf

    limits = [tf.round(tf.cast(width, tf.float32) / ratio[0]), tf.round(tf.cast(height, tf.float32) * ratio[1])]
    size = tf.minimum(tf.stack([height, width]), tf.cast(tf.stack(limits), tf.int32))
    return tf.concat([(tf.stack([height, width]) - size) // 2, size], axis=0)[None]
