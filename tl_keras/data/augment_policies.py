"""RandAugment and AugMix: operations drawn from a table for each image, with the strengths of AutoAugment (Cubuk et al. 2019).

KerasCV has layers of these names. They draw from a generator with state, so a resumed run would see other pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tl_keras.data.image_ops import to_uint8

if TYPE_CHECKING:
    import tensorflow as tf

RAND_AUGMENT_STEPS, RAND_AUGMENT_LEVEL = 2, 9 / 30
AUGMIX_WIDTH, AUGMIX_DEPTH, AUGMIX_LEVELS = 3, 3, (0.01, 0.3)
# Draws of one chain: its depth and weight, then an operation, a level and a sign per step.
CHAIN_DRAWS = 2 + 3 * AUGMIX_DEPTH


@dataclass(frozen=True)
class Operation:
    """An entry of the table of a policy.

    The value at a level in [0, 1] is neutral + level * span. If `signed`, the sign of the span is drawn.

    Attributes:
        apply: (images uint8 (b, h, w, 3), values float32 (b,)) -> images uint8.
        neutral: value at which the image is unchanged.
        span: difference from `neutral` at level 1.
    """

    apply: Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]
    neutral: float = 0.0
    span: float = 0.0
    signed: bool = False


def rand_augment(images: "tf.Tensor", draws: "tf.Tensor", operations: Sequence[Operation]) -> "tf.Tensor":
    """Apply two operations in sequence, at level 9 of 30 (Cubuk et al. 2020, N = 2, M = 9; as in torchvision)."""
    import tensorflow as tf

    for step in range(RAND_AUGMENT_STEPS):
        levels = tf.fill([tf.shape(draws)[0]], RAND_AUGMENT_LEVEL)
        images = _apply_drawn(images, draws[:, 2 * step], levels, draws[:, 2 * step + 1], operations)
    return images


def augmix(images: "tf.Tensor", draws: "tf.Tensor", operations: Sequence[Operation]) -> "tf.Tensor":
    """Mix three chains of one to three operations with each other and with the image (Hendrycks et al. 2020, severity 3, alpha 1).

    The weights of the chains are from Dirichlet(1, 1, 1), that of the image from Beta(1, 1), which is uniform. The paper's
    consistency loss is not part of this.
    """
    import tensorflow as tf

    chain_draws = tf.reshape(draws[:, : AUGMIX_WIDTH * CHAIN_DRAWS], [-1, CHAIN_DRAWS])  # (b * width, draws of a chain)
    chains = _augmix_chains(images, chain_draws, operations)
    chains = tf.reshape(tf.cast(chains, tf.float32), tf.concat([[-1, AUGMIX_WIDTH], tf.shape(images)[1:]], axis=0))
    exponential = tf.reshape(-tf.math.log(1 - chain_draws[:, 1] + 1e-7), [-1, AUGMIX_WIDTH])  # Dirichlet(1, ...) once normalised
    weights = exponential / tf.reduce_sum(exponential, axis=1, keepdims=True)
    mixed = tf.einsum("bkhwc,bk->bhwc", chains, weights)
    image_weight = draws[:, AUGMIX_WIDTH * CHAIN_DRAWS, None, None, None]
    return to_uint8(image_weight * tf.cast(images, tf.float32) + (1 - image_weight) * mixed)


def _augmix_chains(images: "tf.Tensor", chain_draws: "tf.Tensor", operations: Sequence[Operation]) -> "tf.Tensor":
    """Return the images after each of their chains, (b * AUGMIX_WIDTH, h, w, 3)."""
    import tensorflow as tf

    low, high = AUGMIX_LEVELS
    chains = tf.repeat(images, AUGMIX_WIDTH, axis=0)
    for step in range(AUGMIX_DEPTH):
        choices, levels, signs = (chain_draws[:, 2 + 3 * step + offset] for offset in range(3))
        longer = _apply_drawn(chains, choices, low + (high - low) * levels, signs, operations)
        chains = tf.where((chain_draws[:, 0] * AUGMIX_DEPTH >= step)[:, None, None, None], longer, chains)
    return chains


def _apply_drawn(
    images: "tf.Tensor", choices: "tf.Tensor", levels: "tf.Tensor", signs: "tf.Tensor", operations: Sequence[Operation]
) -> "tf.Tensor":
    """Apply one operation to each image. Images with the same operation are computed together.

    Args:
        choices, levels, signs: (b,) in [0, 1): which operation, how strong, and the sign (negative below 0.5).
    """
    import tensorflow as tf

    chosen = tf.cast(choices * len(operations), tf.int32)
    spans = tf.gather(tf.constant([operation.span for operation in operations]), chosen)
    negative = tf.gather(tf.constant([operation.signed for operation in operations]), chosen) & (signs < 0.5)
    values = tf.gather(tf.constant([operation.neutral for operation in operations]), chosen)
    values += levels * tf.where(negative, -spans, spans)
    groups = tf.dynamic_partition(tf.range(tf.shape(chosen)[0]), chosen, len(operations))
    results = [
        operation.apply(tf.gather(images, group), tf.gather(values, group)) for operation, group in zip(operations, groups, strict=True)
    ]
    return tf.ensure_shape(tf.dynamic_stitch(groups, results), images.shape)
