"""Groups of images that belong in one split: copies of one picture, and pictures with one key in their names or in a column."""

import re
from collections.abc import Sequence

import numpy as np

from tl_keras.errors import ConfigError
from tl_keras.utils.text import join_names

MAX_LISTED = 5


def group_names(paths: Sequence[str], group_by: str = "", column: Sequence[str] = ()) -> list[list[str]]:
    """Return the names of the groups that each image is in: none, one, or that of its name and that of its column.

    Args:
        paths: paths of the images in the data set.
        group_by: regular expression that is searched in each path. Images with the same first group of it, or the same match, are one
            group. Empty: paths do not matter.
        column: name of the group of each image; empty for an image that is a group of its own. A name that `group_by` finds too is the
            same group.

    Raises:
        ConfigError: Paths do not match `group_by`.
    """
    names = [[name] if name else [] for name in column] if column else [[] for _ in paths]
    if group_by:
        matches = [re.search(group_by, path) for path in paths]
        if missing := [path for path, match in zip(paths, matches, strict=True) if match is None]:
            raise ConfigError(
                f"{len(missing)} of {len(paths)} paths do not match: {join_names(missing, MAX_LISTED)}. Expected a regular expression "
                "whose first group is the same for images that belong together, e.g. (patient[0-9]+).",
                setting="group_by",
                value=group_by,
            )
        for own, match in zip(names, matches, strict=True):
            own.append(str(match[1] if match and match.re.groups else match and match[0]))
    return names


def connect_groups(digests: Sequence[bytes], names: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the number of the group of each image, int64 (n,).

    Args:
        digests: hashes of the pixels; equal ones are one group.
        names: names of the groups that each image is in, see `group_names`.
    """
    return _connect([[digest, *own] for digest, own in zip(digests, names, strict=True)])


def _connect(keys: Sequence[Sequence[object]]) -> np.ndarray:
    """Return the number of the connected component of each item; items with a common key are connected."""
    parents = list(range(len(keys)))

    def root(item: int) -> int:
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    first: dict[object, int] = {}
    for item, own in enumerate(keys):
        for key in own:
            parents[root(item)] = root(first.setdefault(key, item))
    return np.array([root(item) for item in range(len(keys))], np.int64)
