"""Run directories: what a run leaves behind, and reading it back. No TensorFlow.

A run directory holds, in the order of writing:

    config.json       the configuration: `identity` (what the run is) and `local` (what concerned this machine alone, as where files lay)
    history.csv       a row an epoch
    checkpoint/       what an interrupted run resumes from; removed when the run is finished
    predictions.npz   logits float32 (n, classes) and labels int (n,) of the test split
    mistakes.npz      the most confidently wrong test images; see `predictions.Mistakes`
    adapters.npz      of a LoRA run: the factors and the head alone; see `lora.load`
    model.keras       the model that was tested, adapters merged; not with --save_model=false
    result.json       last: a directory without it is not a finished run

`result.json` has the keys of `RESULT_KEYS`; what grows with the test split lies in `predictions.npz` alone. Accuracies are shares in
[0, 1]; losses are nats; times are seconds.
"""

import contextlib
import csv
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.config import SETTINGS, RunConfig
from tl_keras.errors import ConfigError, DamagedError, UserError

if TYPE_CHECKING:
    import keras

    from tl_keras.results.predictions import Mistakes

SCHEMA = 2
CONFIG, HISTORY, CHECKPOINT, PREDICTIONS, MISTAKES, MODEL, RESULT = (
    "config.json", "history.csv", "checkpoint", "predictions.npz", "mistakes.npz", "model.keras", "result.json",
)  # fmt: skip
MAX_TEXT_BYTES = 64 * 2**20  # far beyond any file of ours; a larger one is not ours

# What a finished run's `result.json` holds, beside `schema`.
RESULT_KEYS = {
    "name": (),  # what the run is called
    "config": ("seed", "strategy", "epochs"),  # the identity of the configuration: these and all other settings
    "data": (
        "dataset", "fingerprint", "class_names", "num_train", "num_validation", "num_test",
        "embedded",  # whether data and weights are those that the package carries
        "limited",  # whether --limit_train or --limit_test cut it
        "notes",  # what the source has to say, e.g. of files left out
    ),
    "model": ("backbone", "parameters", "image_size", "crop_fraction", "normalization", "weights", "weights_account"),
    "phases": (),  # a list of: name, epochs, trainable_parameters, trainable_stages, frozen_mode, seconds, cache, audit, collapse
    "test_cache": (),  # of the test split, as `cache` of a phase: cut, place, rows_computed, rows_reused, seconds; or cut "" and the reason
    "runtime": ("device", "cpu", "precision", "xla", "replicas", "versions", "git_revision"),  # as they really were
    "selection": ("rule", "epoch"),  # best or last, and the epoch, from 1, that was tested
    "metrics": ("test", "validation"),  # test: `TEST_KEYS`; validation: epoch, accuracy, loss, or empty
    "seconds": ("total", "train", "test"),  # total: of the last process; train: of all epochs, also those before a resume
}  # fmt: skip

# What `metrics.test` holds.
TEST_KEYS = (
    "accuracy", "interval", "num", "loss",  # interval: Wilson's, 95 %
    "top5_accuracy",  # null where there are no more than five classes
    "balanced_accuracy", "precision", "recall", "f1",  # the last three by class, with null for a share of nothing
    "calibration",  # error; and of each of 15 bins of confidence: counts, confidences, accuracies
)  # fmt: skip


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` when the block ends well and is removed when it does not.

    Raises:
        UserError: the file cannot be written, e.g. because the disk is full.
    """
    temporary = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. Free space or choose another directory, then run the same command again."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None where it is absent, unreadable or not JSON."""
    try:
        return json.loads(_read_text(path))
    except (OSError, ValueError, RecursionError):
        return None


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"larger than {MAX_TEXT_BYTES} bytes")
    return path.read_text(encoding="utf-8")


class RunDirectory:
    """One run's directory; see the head of this module for what lies in it."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint = path / CHECKPOINT

    def finished(self, config: RunConfig) -> dict[str, Any] | None:
        """The result, where a run of the same identity is finished here."""
        result = read_result(self.path)
        return result if result and result["config"] == config.identity() else None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the directory; ConfigError where one is in it."""
        self._make()
        with open(self.path / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"Another process is training in {self.path}. Wait for it, or choose another directory.") from None
            yield  # the file stays: removed, two processes could each lock one of that name

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot make the directory {self.path}: {error.strerror}. Choose another one.") from error

    def prepare(self, config: RunConfig) -> None:
        """Write `config.json`.

        Raises:
            ConfigError: a run of other settings lies here; the message lists them.
        """
        there = read_json(self.path / CONFIG)
        identity = there.get("identity") if isinstance(there, dict) else None
        if isinstance(identity, dict) and identity != config.identity():
            raise ConfigError(
                f"{self.path} holds a run of other settings: {_differences(identity, config.identity())}. "
                "Choose another directory with --run_dir, or delete this one."
            )
        local = {name: value for name, value in config.flat().items() if SETTINGS[name].metadata["is_local"]}
        write_json(self.path / CONFIG, {"identity": config.identity(), "local": local})

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `history.csv` anew."""
        with atomic_write(self.path / HISTORY) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def write_predictions(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Write `predictions.npz`."""
        self._write_arrays(PREDICTIONS, {"logits": logits, "labels": labels})

    def write_mistakes(self, mistakes: "Mistakes") -> None:
        """Write `mistakes.npz`."""
        self._write_arrays(MISTAKES, vars(mistakes))

    def _write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        with atomic_write(self.path / name) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    def write_model(self, model: "keras.Model") -> None:
        """Write `model.keras`."""
        with atomic_write(self.path / MODEL) as temporary:
            model.save(temporary)  # the name keeps its ending, which is what Keras goes by

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`: from here on the run is finished."""
        write_json(self.path / RESULT, {"schema": SCHEMA, **result})


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    names = [name for name in {**here, **there} if there.get(name) != here.get(name)]
    return ", ".join(f"{name}: {there.get(name)!r} there, {here.get(name)!r} here" for name in names)


def read_result(path: Path) -> dict[str, Any] | None:
    """The result in `path`, or None where it is absent, damaged or of another schema."""
    result = read_json(path / RESULT)
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or not RESULT_KEYS.keys() <= result.keys():
        return None
    groups = [(result[name], keys) for name, keys in RESULT_KEYS.items() if keys]
    return result if all(_holds(group, keys) for group, keys in groups) and _holds(result["metrics"]["test"], TEST_KEYS) else None


def _holds(group: Any, keys: Sequence[str]) -> bool:
    return isinstance(group, dict) and group.keys() >= set(keys)


def load_result(path: Path) -> dict[str, Any]:
    """The result of the finished run in `path`.

    Raises:
        ConfigError: there is none.
    """
    result = read_result(path)
    if result is None:
        state = "an unfinished run: run its command again to finish it" if (path / CONFIG).exists() else "no run"
        raise ConfigError(f"{path} holds {state}. Expected a directory with {RESULT}.")
    return result


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of `history.csv` in the run directory `path`, numbers as numbers.

    Raises:
        DamagedError: it is absent or not such a table.
    """
    try:
        rows = list(csv.DictReader(_read_text(path / HISTORY).splitlines(), strict=True))
        if not rows or "epoch" not in rows[0]:
            raise ValueError("no row of an epoch")
        return [{name: _number(text) for name, text in row.items()} for row in rows]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DamagedError(f"{path / HISTORY} cannot be read ({error}). Delete {path} and run its command again.") from error


def _number(text: str) -> Any:
    """`text` as a number where it is one; TypeError where a row is shorter or longer than the head."""
    try:
        return float(text)
    except ValueError:
        return text
