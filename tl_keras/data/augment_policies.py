"""RandAugment and AugMix: for each image its own operations, drawn from a table, at strengths of AutoAugment (Cubuk et al. 2019).

KerasCV's layers of these names keep a generator of their own and draw anew at each call, so a resumed run would see other pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

RAND_AUGMENT_STEPS, RAND_AUGMENT_LEVEL = 2, 9 / 30
AUGMIX_WIDTH, AUGMIX_DEPTH, AUGMIX_LEVELS = 3, 3, (0.01, 0.3)


@dataclass(frozen=True)
class Operation:
    """What may be drawn: `apply(images uint8 (b, h, w, 3), values float32 (b,)) -> images uint8`.

    The value at a level in [0, 1] is neutral + level * span, with the sign of the span drawn where `signed`.
    """

    apply: Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]
    neutral: float = 0.0
    span: float = 0.0
    signed: bool = False


def rand_augment(images: "tf.Tensor", draws: "tf.Tensor", operations: Sequence[Operation]) -> "tf.Tensor":
    """Two operations one after the other, at level 9 of 30 (Cubuk et al. 2020, N = 2, M = 9, as torchvision has it)."""
    import tensorflow as tf

    for step in range(RAND_AUGMENT_STEPS):
        levels = tf.fill([tf.shape(draws)[0]], RAND_AUGMENT_LEVEL)
        images = _apply_drawn(images, draws[:, 2 * step], levels, draws[:, 2 * step + 1], operations)
    return images


def augmix(images: "tf.Tensor", draws: "tf.Tensor", operations: Sequence[Operation]) -> "tf.Tensor":
    """Three chains of one to three operations, mixed with each other and with the image (Hendrycks et al. 2020, severity 3, alpha 1).

    The weights of the chains are Dirichlet(1, 1, 1), that of the image is Beta(1, 1), the uniform distribution. Without the
    paper's consistency loss.
    """
    import tensorflow as tf

    chained = draws[:, : AUGMIX_WIDTH * (2 + 3 * AUGMIX_DEPTH)]
    chained = tf.reshape(chained, [-1, 2 + 3 * AUGMIX_DEPTH])  # (b * width, draws of a chain)
    chains = tf.repeat(images, AUGMIX_WIDTH, axis=0)
    low, high = AUGMIX_LEVELS
    for step in range(AUGMIX_DEPTH):
        choices, levels, signs = (chained[:, 2 + 3 * step + number] for number in range(3))
        longer = _apply_drawn(chains, choices, low + (high - low) * levels, signs, operations)
        chains = tf.where((chained[:, 0] * AUGMIX_DEPTH >= step)[:, None, None, None], longer, chains)
    exponential = tf.reshape(-tf.math.log(1 - chained[:, 1] + 1e-7), [-1, AUGMIX_WIDTH])  # Dirichlet(1, ...) once normalised
    weights = exponential / tf.reduce_sum(exponential, axis=1, keepdims=True)
    chains = tf.reshape(tf.cast(chains, tf.float32), tf.concat([[-1, AUGMIX_WIDTH], tf.shape(images)[1:]], axis=0))
    mixed = tf.einsum("bkhwc,bk->bhwc", chains, weights)
    share = draws[:, AUGMIX_WIDTH * (2 + 3 * AUGMIX_DEPTH), None, None, None]
    return tf.saturate_cast(tf.round(share * tf.cast(images, tf.float32) + (1 - share) * mixed), tf.uint8)


def _apply_drawn(
    images: "tf.Tensor", choices: "tf.Tensor", levels: "tf.Tensor", signs: "tf.Tensor", operations: Sequence[Operation]
) -> "tf.Tensor":
    """One operation on each image: choices, levels and signs are (b,) in [0, 1). Images of one operation are computed together."""
    import tensorflow as tf

    chosen = tf.cast(choices * len(operations), tf.int32)
    spans = tf.gather(tf.constant([operation.span for operation in operations]), chosen)
    negative = tf.gather(tf.constant([operation.signed for operation in operations]), chosen) & (signs < 0.5)
    values = tf.gather(tf.constant([operation.neutral for operation in operations]), chosen)
    values += levels * tf.where(negative, -spans, spans)
    groups = tf.dynamic_partition(tf.range(tf.shape(chosen)[0]), chosen, len(operations))
    done = [
        operation.apply(tf.gather(images, group), tf.gather(values, group)) for operation, group in zip(operations, groups, strict=True)
    ]
    return tf.ensure_shape(tf.dynamic_stitch(groups, done), images.shape)
