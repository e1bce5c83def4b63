"""Run directories: the files that a run writes, and reading them back. No TensorFlow.

A run directory holds, in the order of writing:

    config.json       the configuration: `identity` (settings that define the run), `local` (paths and caches of this machine), and
                      `weights_sha256` of a weights file given by its path
    split.npz         which image is in which split, by content; see `split_record`
    history.csv       one row per epoch
    tensorboard/      the same as logs for TensorBoard, with --tensorboard; see `runs.event_log`
    checkpoint/       state of an interrupted run; removed when the run is finished
    predictions.npz   logits float32 (n, classes) and labels int (n,) of the test split
    test_images.npz   some test images, on which exports are checked; see `predictions.write_test_images`
    mistakes.npz      the most confident errors on the test split; see `predictions.ConfidentErrors`
    augmentation.jpg  for runs with augmentation: some training images in the first epochs
    adapters.npz      for LoRA runs: the adapters and the head only; see `strategies.lora.load`
    model.keras       the tested model, adapters merged; absent with --save_model=false
    delta.npz         for strategies that freeze pre-trained weights: all others; see `weights.delta`; absent with --save_model=false
    result.json       written last: a directory without it does not hold a finished run
    inspection.json   findings of `tl-keras fit` on the data; see `inspection_record`

`result.json` has the keys of `RESULT_KEYS`. Runs with validation also have `temperature` (null without it; see `calibration`) and
`metrics.test.calibrated`: `temperature`, and `ece` and `loss` of the test split after scaling. `model.keras` returns logits before it.
`finished` is the time of the end, e.g. `2026-11-26T23:05:00+00:00`; runs of earlier versions lack it.
Accuracies are fractions in [0, 1]; losses are in nats; times are in seconds.
"""

import contextlib
import csv
import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.config import SETTINGS, RunConfig
from tl_keras.errors import ConfigError, DamagedError, UserError
from tl_keras.utils.files import READ_ERRORS, atomic_write, read_json, write_csv, write_json

if TYPE_CHECKING:
    import keras

SCHEMA = 4  # Bump when a key of `result.json` changes its name or meaning.
WEIGHTS_HASH = "weights_sha256"
TABLE_PREFIX = "table:"  # data sets of `data.table`, whose file a run keeps in its directory
CONFIG, HISTORY, CHECKPOINT, MODEL, RESULT = "config.json", "history.csv", "checkpoint", "model.keras", "result.json"
AUGMENTATION = "augmentation.jpg"

# Keys of `result.json` beside `schema`, and the keys within each group.
RESULT_KEYS = {
    "name": (),  # name of the run
    "config": ("seed", "strategy", "epochs"),  # the identity of the configuration: these and all other settings
    "data": (
        "dataset", "fingerprint", "class_names", "num_train", "num_validation", "num_test",
        "embedded",  # True if data and weights are the bundled ones
        "limited",  # True if --limit_train or --limit_test was used
        "notes",  # remarks of the data source, e.g. on skipped files
    ),
    "model": ("backbone", "parameters", "image_size", "crop_fraction", "interpolation", "normalization", "weights", "loading_info"),
    "phases": (),  # one record per phase, with `PHASE_KEYS`
    "test_cache": (),  # the cache record of the test split
    "runtime": ("device", "cpu", "precision", "xla", "replicas", "versions", "git_revision"),  # the values in effect
    "selection": ("rule", "epoch"),  # best or last, and the tested epoch, from 1
    "metrics": ("test", "validation"),  # test: `TEST_KEYS`; validation: epoch, accuracy, loss, or empty
    "seconds": ("total", "train", "test"),  # total: of the last process; train: of all epochs, those before a resume included
}  # fmt: skip

# Keys of one record of `phases`.
PHASE_KEYS = (
    "name", "epochs", "trainable_parameters", "trainable_stages", "frozen_mode", "batch_norm", "eval_mode", "seconds",
    "cache",  # split_point, storage, features_computed, features_reused, seconds; or split_point "" and the reason
    "audit",  # numbers of weights: changed, unchanged, below_resolution
    "collapse",  # description of a collapse of the loss, or empty
)  # fmt: skip

# Keys of `metrics.test`. Later entries of `metrics.SCALAR_METRICS` are not required, so runs that finished before them are still read.
TEST_KEYS = (
    "accuracy", "interval", "num_examples", "loss",  # interval: Wilson, 95 %
    "top5_accuracy",  # null if there are at most five classes
    "balanced_accuracy", "precision", "recall", "f1",  # the last three per class, null for an empty denominator
    "calibration",  # ece; and for each of 15 bins of confidence: counts, confidences, accuracies
)  # fmt: skip


class RunDirectory:
    """The directory of one run; the module docstring lists its files."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint = path / CHECKPOINT

    def load_if_finished(self, config: RunConfig) -> dict[str, Any] | None:
        """Return the result if a run with the identity of `config` is finished here.

        Raises:
            ConfigError: The directory was written by another version of the package.
        """
        _require_schema(self.path)
        result = try_load_result(self.path)
        return result if result and result["config"] == config.identity() else None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the directory; ConfigError if one is training in it."""
        self._create()
        with open(self.path / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"Another process is training in {self.path}. Wait for it, or choose another directory.") from None
            yield  # The file stays: after its removal two processes could each lock a file of that name.

    def _create(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot create the directory {self.path}: {error.strerror}. Choose another one.") from error

    def write_config(self, config: RunConfig, weights_hash: str = "") -> None:
        """Write `config.json`.

        Args:
            weights_hash: SHA-256 of the weights file that the settings give by its path; empty: none.

        Raises:
            ConfigError: A run with other settings or another weights file has begun here; the message lists them. The data of a
                run that has begun are compared by `runs.run_data`.
        """
        current = {**config.identity(), WEIGHTS_HASH: weights_hash}
        stored = read_json(self.path / CONFIG) if self.has_begun() else None
        if isinstance(stored, dict) and isinstance(stored.get("identity"), dict):
            before = {**stored["identity"], WEIGHTS_HASH: stored.get(WEIGHTS_HASH, "")}
            if before != current:
                raise ConfigError(
                    f"{self.path} holds a run with other settings: {_differences(before, current)}. "
                    "Choose another `run_dir`, or delete this one."
                )
        local = {name: value for name, value in config.to_dict().items() if SETTINGS[name].metadata["is_local"]}
        write_json(self.path / CONFIG, {"identity": config.identity(), "local": local, WEIGHTS_HASH: weights_hash})

    def has_begun(self) -> bool:
        """Return True if an epoch was trained here. A start that failed before that leaves nothing to keep."""
        return any((self.path / name).exists() for name in (HISTORY, CHECKPOINT, RESULT))

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace `history.csv`."""
        write_csv(self.path / HISTORY, rows)

    def write_model(self, model: "keras.Model") -> None:
        """Write `model.keras`."""
        with atomic_write(self.path / MODEL) as temporary:
            model.save(temporary)  # The temporary name keeps its suffix, which selects the Keras format.

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`; from here on the run is finished."""
        write_json(self.path / RESULT, {"schema": SCHEMA, **result})


def _differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    names = [name for name in {**current, **stored} if stored.get(name) != current.get(name)]
    return ", ".join(f"{name}: {stored.get(name)!r} there, {current.get(name)!r} here" for name in names)


def _require_schema(run_dir: Path) -> None:
    """ConfigError if the result in `run_dir` has another schema than this version writes."""
    result = read_json(run_dir / RESULT)
    schema = result.get("schema") if isinstance(result, dict) else None
    if isinstance(schema, int) and schema != SCHEMA:
        raise ConfigError(
            f"{run_dir / RESULT} has schema {schema}; this version of tl_keras reads schema {SCHEMA}. "
            "Delete the directory and run its command again, or read it with the version that wrote it."
        )


def try_load_result(run_dir: Path) -> dict[str, Any] | None:
    """Return the result in `run_dir`, or None if it is absent, damaged or has another schema."""
    result = read_json(run_dir / RESULT)
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or not RESULT_KEYS.keys() <= result.keys():
        return None
    groups = [(result[name], keys) for name, keys in RESULT_KEYS.items() if keys]
    complete = all(_has_keys(group, keys) for group, keys in groups) and _has_keys(result["metrics"]["test"], TEST_KEYS)
    return result if complete and all(_has_keys(phase, PHASE_KEYS) for phase in result["phases"]) else None


def _has_keys(group: Any, keys: Sequence[str]) -> bool:
    return isinstance(group, dict) and group.keys() >= set(keys)


def load_result(run_dir: Path) -> dict[str, Any]:
    """Return the result of the finished run in `run_dir`.

    Raises:
        ConfigError: The directory holds no finished run, or one of another version of the package.
    """
    _require_schema(run_dir)
    result = try_load_result(run_dir)
    if result is None:
        state = "an unfinished run: run its command again to finish it" if (run_dir / CONFIG).exists() else "no run"
        raise ConfigError(f"{run_dir} holds {state}. Expected a directory with {RESULT}.")
    return result


def read_config(run_dir: Path) -> RunConfig:
    """Return the settings of the run in `run_dir`, finished or not.

    Raises:
        ConfigError: The directory holds no run, or one of another version of the package.
        DamagedError: `config.json` cannot be read.
    """
    _require_schema(run_dir)
    if not (run_dir / CONFIG).exists():
        raise ConfigError(f"{run_dir} holds no run. Expected a directory with {CONFIG}.")
    try:
        stored = json.loads((run_dir / CONFIG).read_text(encoding="utf-8"))
        settings = {**stored["identity"], **stored["local"]}
    except READ_ERRORS as error:
        raise DamagedError(f"{run_dir / CONFIG} cannot be read ({error}). Delete {run_dir} and run its command again.") from error
    config = RunConfig.from_dict(settings)
    return config.replace(data_dir=str(run_dir)) if config.data.dataset.startswith(TABLE_PREFIX) else config


def read_history(run_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of `history.csv` in `run_dir`, with numbers as floats.

    Raises:
        DamagedError: The file is absent or not such a table.
    """
    try:
        rows = list(csv.DictReader((run_dir / HISTORY).read_text(encoding="utf-8").splitlines(), strict=True))
        if not rows or "epoch" not in rows[0]:
            raise ValueError("it has no row with an epoch")
        return [{name: _to_number(text) for name, text in row.items()} for row in rows]
    except READ_ERRORS as error:
        raise DamagedError(f"{run_dir / HISTORY} cannot be read ({error}). Delete {run_dir} and run its command again.") from error


def _to_number(text: str) -> Any:
    """Return `text` as a float if it is one. A row shorter or longer than the header raises TypeError."""
    try:
        return float(text)
    except ValueError:
        return text
