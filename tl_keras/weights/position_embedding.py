"""Resizes the position embedding of a Vision Transformer to another image size."""

import math

import numpy as np

CUBIC = -0.75  # coefficient a of the cubic convolution kernel (Keys 1981), as in PyTorch


def resize_positions(embedding: np.ndarray, num_tokens: int) -> np.ndarray:
    """Interpolate the embedding of a square grid of patches to another grid, as torchvision's `interpolate_embeddings` does.

    The interpolation is bicubic with aligned corners. The embedding of the class token is kept.

    Args:
        embedding: (1, 1 + n * n, dim).
        num_tokens: new number of tokens, 1 + m * m.

    Returns:
        (1, 1 + m * m, dim), float32.

    Raises:
        ValueError: One of the two is not a class token and a square grid.
    """
    before, after = grid_side(embedding.shape[1]), grid_side(num_tokens)
    weights = _interpolation_matrix(before, after)
    class_token, grid = np.split(np.asarray(embedding, "float32"), [1], axis=1)
    grid = grid.reshape(before, before, -1)
    grid = np.einsum("yi,xj,ijd->yxd", weights, weights, grid, optimize=True)
    return np.concatenate([class_token, grid.reshape(1, after * after, -1)], axis=1).astype("float32")


def grid_side(num_tokens: int) -> int:
    """Return n for 1 + n * n tokens. Raise ValueError for any other number."""
    side = math.isqrt(max(num_tokens - 1, 0))
    if side < 1 or 1 + side * side != num_tokens:
        raise ValueError(f"{num_tokens} tokens are not a class token and a square grid of patches")
    return side


def _interpolation_matrix(before: int, after: int) -> np.ndarray:
    """Return weights (after, before) of the old positions for each new one. The edge is repeated beyond the edge."""
    positions = np.arange(after) * ((before - 1) / (after - 1) if after > 1 else 0.0)
    nearest = np.floor(positions).astype(int)
    weights = np.zeros((after, before))
    for offset in (-1, 0, 1, 2):
        indices = np.clip(nearest + offset, 0, before - 1)
        np.add.at(weights, (np.arange(after), indices), _cubic(np.abs(positions - nearest - offset)))
    return weights


def _cubic(distance: np.ndarray) -> np.ndarray:
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance**2 + 1
    far = CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
