"""Looks at a data set before training: classes, counts, sizes, suspicious names, near duplicates and likely errors of labels.

Nothing is removed or changed. Every finding is a line of text; findings.py makes the record of a run of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tl_keras.data import DatasetSource, Examples
from tl_keras.data.folder_layout import split_of
from tl_keras.planning.features import ImageFeatures
from tl_keras.planning.label_errors import Suspect, find_label_errors
from tl_keras.planning.near_duplicates import Pair, find_near_duplicates
from tl_keras.utils.text import join_names, to_one_line

MAX_LISTED = 20  # images in a finding
MAX_CLASSES = 10  # classes in a line
SAMPLED_SIZES = 200  # images whose sizes are read
FEW_IMAGES = 20  # of a class: fewer are named
MAX_COMPARED = 30_000  # images; beyond it they are not compared with each other
MAX_SCORES = 20_000_000  # images times classes; beyond it labels are not judged
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class FeatureFindings:
    """Findings in the features of a data set.

    Attributes:
        pairs: images in different splits that look alike; None if they are not looked for.
        suspects: images whose labels seem wrong; None if labels are not judged.
        notes: reasons for the latter.
    """

    pairs: Sequence[Pair] | None = None
    suspects: Sequence[Suspect] | None = None
    notes: tuple[str, ...] = ()


WITHOUT_FEATURES = FeatureFindings(notes=("near duplicates and labels are not judged: that needs a pre-trained network",))


def describe_data(source: DatasetSource) -> list[str]:
    """Return the classes, counts, sizes and suspicious names of a data set."""
    counts = _counts(source)
    total, names = sum(counts.values()), [to_one_line(name) for name in source.class_names]
    splits = ", ".join(f"{len(part):,} {name}" for name, part in source.splits.items())
    rarest, largest = min(counts, key=lambda label: counts[label]), max(counts, key=lambda label: counts[label])
    return [
        f"{total:,} images in {len(names):,} classes ({splits}): {join_names(names, MAX_CLASSES)}",
        f"images per class: {counts[rarest]:,} ({names[rarest]}) to {counts[largest]:,} ({names[largest]})",
        *_few_images(counts, names),
        f"sizes: {_describe_sizes(source.train)}",
        *_split_names(names),
    ]


def examine_features(found: ImageFeatures, num_classes: int) -> FeatureFindings:
    """Return the near duplicates across splits and the likely errors of labels."""
    if found.features is None:
        return FeatureFindings(notes=("near duplicates and labels are not judged: the features exceed `cache_budget`",))
    are_compared, are_judged = len(found.features) <= MAX_COMPARED, len(found.features) * num_classes <= MAX_SCORES
    digests = found.examples.images.digests[found.examples.indices]
    return FeatureFindings(
        find_near_duplicates(found.features, found.splits, digests) if are_compared else None,
        find_label_errors(found.features, found.examples.labels, found.examples.groups) if are_judged else None,
        (
            *(() if are_compared else ("near duplicates are not looked for: too many images",)),
            *(() if are_judged else ("labels are not judged: too many images and classes",)),
        ),
    )


def describe_features(findings: FeatureFindings, found: ImageFeatures, class_names: Sequence[str]) -> list[str]:
    """Return the findings as lines, the first ones by name.

    Args:
        found: the images that `findings` are about.
    """
    return [
        *([] if findings.pairs is None else _describe_pairs(findings.pairs, found)),
        *([] if findings.suspects is None else _describe_suspects(findings.suspects, found, class_names)),
        *findings.notes,
    ]


def shorter_side(examples: Examples) -> int:
    """Return the median of the shorter sides of some images, in pixels."""
    return int(np.median(_sizes(examples).min(axis=1)))


def _counts(source: DatasetSource) -> dict[int, int]:
    """Return label -> number of images in all splits."""
    labels = np.concatenate([part.labels for part in source.splits.values()])
    return dict(enumerate(np.bincount(labels, minlength=len(source.class_names)).tolist()))


def _few_images(counts: dict[int, int], names: Sequence[str]) -> list[str]:
    few = [names[label] for label, count in counts.items() if count < FEW_IMAGES]
    return [f"{len(few):,} classes have fewer than {FEW_IMAGES} images: {join_names(few, MAX_CLASSES)}"] if few else []


def _sizes(examples: Examples) -> np.ndarray:
    """Return height and width of some images, evenly spaced, int (m, 2)."""
    positions = np.unique(np.linspace(0, len(examples) - 1, SAMPLED_SIZES).astype(int))
    return np.array([examples.image(position).shape[:2] for position in positions.tolist()])


def _describe_sizes(examples: Examples) -> str:
    sizes = _sizes(examples)
    (low_h, low_w), (high_h, high_w) = sizes.min(axis=0), sizes.max(axis=0)
    if (sizes == sizes[0]).all():
        return f"{low_w} x {low_h} pixels"
    return f"{low_w} to {high_w} pixels wide and {low_h} to {high_h} high; shorter side {int(np.median(sizes.min(axis=1)))} (median)"


def _split_names(names: Sequence[str]) -> list[str]:
    suspicious = [name for name in names if split_of(name)]
    advice = "a split holds a folder for each class, e.g. train/cat/"
    return [f"classes are named like splits: {join_names(suspicious)}; {advice}"] if suspicious else []


def _describe_pairs(pairs: Sequence[Pair], found: ImageFeatures) -> list[str]:
    if not pairs:
        return ["no near duplicates in different splits"]
    listed = [
        f"  {file_name(found, pair.first)} ({SPLITS[found.splits[pair.first]]}) and "
        f"{file_name(found, pair.second)} ({SPLITS[found.splits[pair.second]]}), cosine {pair.cosine:.3f}"
        for pair in pairs[:MAX_LISTED]
    ]
    title = f"{len(pairs):,} pairs of images in different splits look alike, so scores may be too high:"
    return [title, *listed, *_more(len(pairs))]


def _describe_suspects(suspects: Sequence[Suspect], found: ImageFeatures, class_names: Sequence[str]) -> list[str]:
    if not suspects:
        return ["no label that the features contradict"]
    listed = [
        f"  {file_name(found, suspect.position)}: {to_one_line(class_names[suspect.suggested])} has probability {suspect.probability:.2f}, "
        f"{to_one_line(class_names[found.examples.labels[suspect.position]])} {suspect.own_probability:.2f}"
        for suspect in suspects[:MAX_LISTED]
    ]
    title = f"{len(suspects):,} labels are doubtful (confident learning, each image held out), the most doubtful first:"
    return [title, *listed, *_more(len(suspects))]


def file_name(found: ImageFeatures, position: int) -> str:
    """Return the path of an image in the data set, on one line."""
    return to_one_line(found.examples.images.paths[int(found.examples.indices[position])])


def _more(count: int) -> list[str]:
    return [f"  and {count - MAX_LISTED:,} more"] if count > MAX_LISTED else []
