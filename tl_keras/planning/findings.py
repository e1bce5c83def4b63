"""The findings on a data set as a record for the report of a run: a limited number of each kind, with the number of the others."""

from collections.abc import Sequence

import numpy as np

from tl_keras.data import DatasetSource
from tl_keras.planning.features import ImageFeatures
from tl_keras.planning.inspection import FeatureFindings, file_name
from tl_keras.results.inspection_record import Inspection, SuspectedLabel
from tl_keras.utils.text import to_one_line

MAX_RECORDED = 100  # of each kind
MAX_COPIES = 5  # files of a group of copies
MAX_NAME = 200  # characters of a path, the last ones


def make_record(source: DatasetSource, findings: FeatureFindings, found: ImageFeatures | None, notes: Sequence[str]) -> Inspection:
    """Return the record of what was found.

    Args:
        findings: findings in the features of `found`.
        notes: further remarks on the data set.
    """
    pairs, suspects = findings.pairs or (), findings.suspects or ()
    copies = _copies(source)
    numbers = {"suspected labels": suspects, "near duplicates": pairs, "unreadable files": source.unreadable, "groups of copies": copies}
    left_out = [f"{len(kind) - MAX_RECORDED:,} more {name} are not listed" for name, kind in numbers.items() if len(kind) > MAX_RECORDED]
    return Inspection(
        suspected_labels=_suspected_labels(findings, found, source.class_names) if found else (),
        near_duplicates=tuple(
            (_short(file_name(found, pair.first)), _short(file_name(found, pair.second)), round(pair.cosine, 4))
            for pair in pairs[:MAX_RECORDED]
            if found
        ),
        corrupt=tuple((_short(path), _short(reason)) for path, reason in source.unreadable[:MAX_RECORDED]),
        copies=tuple(map(_listed, copies[:MAX_RECORDED])),
        notes=(*map(to_one_line, (*notes, *findings.notes)), *left_out),
    )


def _suspected_labels(findings: FeatureFindings, found: ImageFeatures, class_names: Sequence[str]) -> tuple[SuspectedLabel, ...]:
    names = [_short(to_one_line(name)) for name in class_names]
    return tuple(
        SuspectedLabel(
            file=_short(file_name(found, suspect.position)),
            label=names[found.examples.labels[suspect.position]],
            suggested=names[suspect.suggested],
            confidence=round(suspect.probability, 4),
            thumbnail=found.examples.image(suspect.position),
        )
        for suspect in (findings.suspects or ())[:MAX_RECORDED]
    )


def _copies(source: DatasetSource) -> list[list[str]]:
    """Return the groups of files that show the same pixels, the largest first."""
    images = source.train.images
    digests, members = np.unique(images.digests, return_inverse=True)
    order, counts = np.argsort(members, kind="stable"), np.bincount(members, minlength=len(digests))
    groups = [group for group in np.split(order, np.cumsum(counts)[:-1]) if len(group) > 1]
    return [[to_one_line(images.paths[index]) for index in group.tolist()] for group in sorted(groups, key=len, reverse=True)]


def _listed(copies: Sequence[str]) -> tuple[str, ...]:
    hidden = len(copies) - MAX_COPIES
    return (*map(_short, copies[:MAX_COPIES]), *([f"and {hidden:,} more"] if hidden > 0 else []))


def _short(text: str) -> str:
    line = to_one_line(text)
    return line if len(line) <= MAX_NAME else f"...{line[-MAX_NAME:]}"
