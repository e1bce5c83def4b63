"""The split of a run: which image is in which split, by its content. No TensorFlow.

`split.npz` in the run directory is written before training and obeyed by everything that reads the data of the run again. So an
image that the run was trained on is never tested, whatever happens to the folder.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_keras.errors import DamagedError
from tl_keras.utils.files import READ_ERRORS, read_npz, write_npz

SPLIT = "split.npz"
TRAIN, VALIDATION, TEST, UNUSED = range(4)
VERSION = 1


@dataclass(frozen=True, eq=False)
class SplitRecord:
    """The images of a data set and the splits that a run puts them in, in the order of the run.

    Attributes:
        fingerprint: that of the data set.
        class_names: names of the labels.
        digests: hash of the content of each image, uint64 (n,).
        labels: int64 (n,).
        splits: uint8 (n,), one of TRAIN, VALIDATION, TEST and UNUSED.
        paths: str (n,), path of each image in its folder; empty strings for data sets without files.
        groups: number of the group of each image, int64 (n,), where the settings name groups such as patients; None elsewhere.
    """

    fingerprint: str
    class_names: tuple[str, ...]
    digests: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    paths: np.ndarray
    groups: np.ndarray | None = None


def write_split(run_dir: Path, record: SplitRecord) -> None:
    """Write `split.npz`."""
    groups = {} if record.groups is None else {"groups": record.groups}
    arrays = {"digests": record.digests, "labels": record.labels, "splits": record.splits, "paths": record.paths, **groups}
    meta = {"version": VERSION, "fingerprint": record.fingerprint, "class_names": record.class_names}
    write_npz(run_dir / SPLIT, arrays, meta=meta, compress=True)


def read_split(run_dir: Path) -> SplitRecord | None:
    """Return the split of the run in `run_dir`, or None if it has not begun.

    Raises:
        DamagedError: The file is damaged or of another version.
    """
    path = run_dir / SPLIT
    if not path.exists():
        return None
    try:
        arrays, meta = read_npz(path)
        class_names = tuple(map(str, meta["class_names"]))
        columns = {name: arrays[name] for name in ("digests", "labels", "splits", "paths")}
        record = SplitRecord(str(meta["fingerprint"]), class_names, **columns, groups=arrays.get("groups"))
        lengths = {len(array) for array in arrays.values()}
        if meta["version"] != VERSION or len(lengths) != 1 or record.digests.dtype != np.uint64 or record.splits.max() > UNUSED:
            raise ValueError("it is not a record of a split")
    except READ_ERRORS as error:
        raise DamagedError(f"{path} cannot be read ({error}). Delete {run_dir} and run its command again.") from error
    return record
