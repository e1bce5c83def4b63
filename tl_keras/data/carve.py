"""Carves a split out of another one: stratified, by content, with whole groups and every class on both sides. NumPy only.

Examples of one group, such as copies of one picture or pictures of one patient, stay together. Data sets without groups, those of
TFDS, are cut after the number that is asked for.
"""

import numpy as np

from tl_keras.data.examples import Examples
from tl_keras.data.stratified import stratified_order


def content_order(examples: Examples, seed: int) -> np.ndarray:
    """Return a stratified order of `examples`, int64 (n,).

    In folders, chance depends on the content of an image: one file more or less moves at most one image of its class across a
    boundary, and a new name none. In other data sets it depends on the position.
    """
    images = examples.images
    contents = images.digests[examples.indices] if images.paths else None
    return stratified_order(examples.labels, seed, contents)


def carve(examples: Examples, num_examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of about `num_examples` examples, and of the rest, each in stratified order.

    With groups, a class of two or more groups has at least one on each side. A class that is one group stays in the rest.
    """
    order, groups = content_order(examples, seed), examples.groups
    if groups is None:
        return order[:num_examples], order[num_examples:]
    taken = _whole_groups(order, groups, num_examples)
    for label in np.unique(examples.labels):
        members = order[examples.labels[order] == label]
        taken = _cover_both_sides(taken, members, groups)
    is_taken = np.isin(groups[order], list(taken))
    return order[is_taken], order[~is_taken]


def _whole_groups(order: np.ndarray, groups: np.ndarray, num_examples: int) -> set[int]:
    """Return groups in the sequence of their first examples, as many as fit into `num_examples`."""
    ids, counts = np.unique(groups, return_counts=True)
    sizes = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    taken: set[int] = set()
    left = num_examples
    for group in dict.fromkeys(groups[order].tolist()):
        if sizes[group] <= left:
            taken.add(group)
            left -= sizes[group]
    return taken


def _cover_both_sides(taken: set[int], members: np.ndarray, groups: np.ndarray) -> set[int]:
    """Return `taken` with a group more or less, so that a class with these members is on both sides if it has two groups."""
    own = list(dict.fromkeys(groups[members].tolist()))
    inside = [group for group in own if group in taken]
    if len(own) > 1 and not inside:
        return taken | {own[0]}
    return taken - {own[-1]} if len(inside) == len(own) else taken
