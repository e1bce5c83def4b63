"""Logs for TensorBoard: loss, accuracy and learning rate by epoch. TensorFlow writes them; the package tensorboard is only for reading."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tl_keras.errors import UserError

DIRECTORY = "tensorboard"
SUFFIX = ".tl_keras"  # of the names of our files
# Directory of a log -> its tags, and the columns of `history.csv` that they show. TensorBoard draws equal tags in one chart.
LOGS: Mapping[str, Mapping[str, str]] = {
    "train": {"loss": "loss", "accuracy": "accuracy", "learning_rate": "learning_rate"},
    "validation": {"loss": "val_loss", "accuracy": "val_accuracy"},
}


class EventLog:
    """The history of a run as TensorBoard reads it, in the directory `tensorboard` of the run. The steps are epochs, from 1.

    A new object writes all epochs again and removes the logs that earlier ones have left. So a resumed run has every epoch once, also
    those that it trains again.

    Args:
        run_dir: directory of the run.
    """

    def __init__(self, run_dir: Path):
        self._directory, self._writers, self._num_written = run_dir / DIRECTORY, dict[str, Any](), 0

    def write(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the epochs of `history` that are not written yet.

        Raises:
            UserError: A file cannot be written, e.g. because the disk is full.
        """
        try:
            self._writers = self._writers or self._create_writers()
            for row in history[self._num_written :]:
                self._write_row(row)
            for writer in self._writers.values():
                writer.flush()
        except (tf.errors.OpError, OSError) as error:
            raise UserError(f"Cannot write {self._directory}: {error}. Free space, or go on without `tensorboard`.") from error
        self._num_written = len(history)

    def _create_writers(self) -> dict[str, Any]:
        for path in self._directory.glob(f"*/*.tfevents.*{SUFFIX}"):
            path.unlink(missing_ok=True)
        return {name: tf.summary.create_file_writer(str(self._directory / name), filename_suffix=SUFFIX) for name in LOGS}

    def _write_row(self, row: Mapping[str, Any]) -> None:
        for name, tags in LOGS.items():
            with self._writers[name].as_default(step=int(row["epoch"])):
                for tag, column in tags.items():
                    if column in row:
                        tf.summary.write(tag, tf.constant(row[column], tf.float32), metadata=_scalar_metadata())


def _scalar_metadata() -> Any:
    """Return the metadata of a scalar. `tf.summary.scalar` would write the same, but needs the package tensorboard."""
    metadata = tf.compat.v1.SummaryMetadata(data_class=1)  # DATA_CLASS_SCALAR
    metadata.plugin_data.plugin_name = "scalars"
    return metadata
