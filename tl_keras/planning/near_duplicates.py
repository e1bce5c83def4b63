"""Near duplicates of images in different splits: the same picture in another size, crop, brightness or compression. NumPy only.

They are pairs whose features, from a pre-trained network, have a cosine close to 1. Features are whitened first: they share a mean, and
all images of a class have much in common, neither of which makes two pictures one. Of 603 photos of cats and dogs with EfficientNet-Lite0,
copies that were cropped, made smaller, brighter and compressed have cosines of 0.87 to 0.93, and their next neighbours of at most 0.23.
"""

from typing import NamedTuple

import numpy as np

MIN_COSINE = 0.7  # of whitened features
MIN_CENTRED_COSINE = 0.9  # of features of too few images to be whitened
MAX_COMPONENTS = 256
MIN_COMPONENTS = 32  # fewer of them bring unlike images close by chance
BLOCK = 1024  # images whose cosines are in memory at a time


class Pair(NamedTuple):
    """Two images in different splits, by position, and the cosine of their features."""

    first: int
    second: int
    cosine: float


def find_near_duplicates(features: np.ndarray, splits: np.ndarray, digests: np.ndarray) -> list[Pair]:
    """Return the pairs of images in different splits that look alike, the most similar first. Exact copies are left out.

    Args:
        features: float (n, channels).
        splits: int (n,), the split of each image.
        digests: uint64 (n,), hashes of the pixels.
    """
    directions, min_cosine = _directions(features)
    pairs: list[Pair] = []
    for start in range(0, len(features), BLOCK):
        rows = slice(start, start + BLOCK)
        cosines = directions[rows] @ directions.T
        differ = (splits[rows, None] != splits) & (digests[rows, None] != digests)
        firsts, seconds = np.nonzero(np.triu(differ & (cosines >= min_cosine), k=start + 1))
        pairs += [Pair(start + i, j, float(cosines[i, j])) for i, j in zip(firsts.tolist(), seconds.tolist(), strict=True)]
    return sorted(pairs, key=lambda pair: -pair.cosine)


def _directions(features: np.ndarray) -> tuple[np.ndarray, float]:
    """Return whitened features of length 1, float32 (n, components), and the cosine that makes two images near duplicates.

    Of few images the features are centred alone.
    """
    centred = features - features.mean(axis=0, dtype=np.float64)
    num_components = min(MAX_COMPONENTS, len(features) // 3, features.shape[1] // 3)
    is_whitened = num_components >= MIN_COMPONENTS
    vectors = _whitened(centred, num_components) if is_whitened else centred
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32), MIN_COSINE if is_whitened else MIN_CENTRED_COSINE


def _whitened(centred: np.ndarray, num_components: int) -> np.ndarray:
    """Return the first principal components, each of variance 1, float64 (n, num_components). The smaller Gram matrix is decomposed."""
    is_wide = centred.shape[1] > len(centred)
    values, vectors = np.linalg.eigh(centred @ centred.T if is_wide else centred.T @ centred)
    first = vectors[:, -num_components:]
    return first if is_wide else centred @ (first / np.sqrt(np.maximum(values[-num_components:], 1e-12)))
