"""Copies of pictures in another size or compression, found by thumbnails. They need no network, so that every training looks for them.

Two thumbnails are compared by the correlation of their pixels. Of 598 photos of cats and dogs, copies of half, a quarter and twice the
size, and JPEG of quality 10, have at least 0.998, and copies resized by nearest neighbours 0.994. Other photos have at most 0.984.
"""

import numpy as np
from PIL import Image

from tl_keras.data.splits import Splits
from tl_keras.utils.text import join_names

SIDE = 8  # pixels of a thumbnail, which is grey
THUMBNAIL_BYTES = SIDE**2
MIN_SIDE = 32  # pixels: smaller pictures, such as letters, are alike by chance
MIN_STD = 8.0  # grey levels of a thumbnail; with less contrast, rounding decides
MIN_CORRELATION = 0.995
MAX_PAIRS = 500_000_000  # of images that are compared, in about a second
BLOCK = 256  # images whose correlations are in memory at a time
MAX_LISTED = 10


def thumbnail(pixels: np.ndarray) -> bytes:
    """Return an image uint8 (height, width, 3) in grey and `SIDE` x `SIDE` pixels, a byte each; black if it is smaller than `MIN_SIDE`."""
    if min(pixels.shape[:2]) < MIN_SIDE:
        return bytes(THUMBNAIL_BYTES)
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX).convert("L").tobytes()


def describe_near_copies(splits: Splits) -> list[str]:
    """Return a remark on images outside train that show training images in another size or compression. Equal pixels do not count."""
    images, train = splits.train.images, splits.train.indices
    outside = np.concatenate([part.indices for part in (splits.validation, splits.test) if part])
    if images.thumbnails is None:
        return []
    if len(train) * len(outside) > MAX_PAIRS:
        return ["copies of training images in another size or compression are not looked for: too many images"]
    outside = outside[~np.isin(images.digests[outside], images.digests[train])]
    pictures, others = _normalized(images.thumbnails[train]), _normalized(images.thumbnails[outside])
    is_copy = [(others[start : start + BLOCK] @ pictures.T >= MIN_CORRELATION).any(axis=1) for start in range(0, len(others), BLOCK)]
    found = [images.paths[index] for index in outside[np.concatenate(is_copy)].tolist()] if is_copy else []
    if not found:
        return []
    return [f"{len(found)} images outside train look like training images in another size or compression: {join_names(found, MAX_LISTED)}"]


def _normalized(thumbnails: np.ndarray) -> np.ndarray:
    """Return vectors float32 (n, pixels) whose products are correlations; zeros for images of little contrast."""
    centred = thumbnails - thumbnails.mean(axis=1, keepdims=True, dtype=np.float32)
    std = centred.std(axis=1, keepdims=True)
    return np.where(std < MIN_STD, 0, centred / (np.maximum(std, MIN_STD) * SIDE)).astype(np.float32)
