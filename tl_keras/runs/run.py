"""Trains and tests one configuration, and writes its run directory."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras import data
from tl_keras.config import DataConfig, RunConfig
from tl_keras.errors import ConfigError
from tl_keras.results import run_directory
from tl_keras.results.calibration import calibrated_metrics, fit_temperature
from tl_keras.results.predictions import write_confident_errors, write_predictions, write_test_images
from tl_keras.results.run_directory import RunDirectory
from tl_keras.results.split_record import SplitRecord, read_split, write_split
from tl_keras.runs.deltas import merge_adapters, write_delta
from tl_keras.runs.evaluate import sample_images
from tl_keras.runs.resolve import ResolvedRun, hash_of_weights, load_source, resolve
from tl_keras.runs.run_data import describe_changes, record_split, require_same_split
from tl_keras.runs.setup import RunSetup, build_setup, make_trainer
from tl_keras.utils.text import join_names

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tl_keras.feature_cache.feature_cache import FeatureCache
    from tl_keras.runs.event_log import EventLog
    from tl_keras.training.trainer import Progress

MAX_LISTED = 10  # classes in a message


def run(
    config: RunConfig, directory: Path, *, name: str = "", callbacks: "Sequence[keras.callbacks.Callback]" = (), verbose: int = 0
) -> dict[str, Any]:
    """Train and test `config` in `directory`. A finished run is read back, an interrupted one resumed.

    Keras's dtype policy and the random generators of Python and NumPy are left as they were. TensorFlow's own seed cannot be
    read back, so it stays at the seed of the run.

    Args:
        name: name of the run in the result; by default that of the directory.
        callbacks: Keras callbacks, called as `model.fit` would. A grid of heads does not call them.
        verbose: 0 silent, 1 a progress bar, 2 a line per epoch.

    Returns:
        The content of `result.json`; `results/run_directory.py` documents its keys.

    Raises:
        UserError: Settings are impossible, files missing or damaged, a loss is not finite, or a frozen weight changed.
    """
    return run_resolved(resolve(config), directory, name=name, callbacks=callbacks, verbose=verbose)


def run_resolved(
    resolved: ResolvedRun,
    directory: Path,
    *,
    name: str = "",
    callbacks: "Sequence[keras.callbacks.Callback]" = (),
    verbose: int = 0,
    given: SplitRecord | None = None,
) -> dict[str, Any]:
    """Do what `run` does for a configuration that is resolved already.

    Args:
        given: fixed splits of the data set; None: its own, and those that the settings carve out.

    Raises:
        ConfigError: A run has begun in `directory` with other splits than `given`.
    """
    if finished := load_finished(resolved, directory, given):
        return finished
    run_dir = RunDirectory(directory)
    with run_dir.lock():
        run_dir.write_config(resolved.config, hash_of_weights(resolved.config))
        from tl_keras.training.runtime import preserve_global_state

        with preserve_global_state():
            return _run(resolved, run_dir, name or directory.name, callbacks, verbose, given)


def load_finished(resolved: ResolvedRun, directory: Path, given: SplitRecord | None = None) -> dict[str, Any] | None:
    """Return the result of this run if it is finished in `directory`, else None. Its logs for TensorBoard are written if they are wanted.

    Args:
        given: as that of `run_resolved`.

    Raises:
        ConfigError: A run has begun there with other splits than `given`, or is finished with other data or weights.
    """
    run_dir = RunDirectory(directory)
    if given and run_dir.has_begun() and (begun := read_split(directory)):
        require_same_split(given, begun, str(directory))
    if finished := run_dir.load_if_finished(resolved.config):
        _require_same_inputs(run_dir, finished, resolved.config)
        if resolved.config.runtime.tensorboard:
            _event_log(directory).write(run_directory.read_history(directory))
    return finished


def _require_same_inputs(run_dir: RunDirectory, finished: Mapping[str, Any], config: RunConfig) -> None:
    """Raise ConfigError if the data or the weights of a finished run are not those that the settings name now."""
    advice = "Train in another `run_dir`, or delete this one to train it again."
    if finished["model"]["weights_sha256"] != hash_of_weights(config):
        raise ConfigError(f"{run_dir.path} holds a finished run with another content of `weights={config.model.weights}`. {advice}")
    source, recorded = load_source(config.data), read_split(run_dir.path)
    if source.fingerprint != finished["data"]["fingerprint"]:
        changes = describe_changes(recorded, source) if recorded else "its split is not recorded"
        raise ConfigError(
            f"{run_dir.path} holds a finished run, and {source.name} has changed since it began: {changes}. {advice} "
            "Evaluation scores the run on its own test images."
        )


def _run(
    resolved: ResolvedRun,
    run_dir: RunDirectory,
    name: str,
    callbacks: "Sequence[keras.callbacks.Callback]",
    verbose: int,
    given: SplitRecord | None,
) -> dict[str, Any]:
    from tl_keras.feature_cache.feature_cache import FeatureCache
    from tl_keras.training import evaluation

    started = time.perf_counter()
    recorded = read_split(run_dir.path) if run_dir.has_begun() else None
    setup = build_setup(resolved, recorded, given)
    if recorded is None:
        recorded = record_split(setup.source, setup.splits)
        write_split(run_dir.path, recorded)
    if verbose:
        print(_describe_setup(setup), flush=True)
    cache = FeatureCache(resolved.config, setup, verbose=verbose)
    train = _train_grid if resolved.config.train.grid else _train
    outcome = train(setup, cache, run_dir, callbacks, verbose)
    model = merge_adapters(setup, run_dir.path, recorded.fingerprint)
    score = _scorer(setup, cache, model, outcome)
    temperature = _fit_temperature(setup, score)
    test_started = time.perf_counter()
    (logits, labels), test_cache = score(setup.splits.test, setup.test)
    test = evaluation.compute_metrics(logits, labels, setup.splits.test.groups if setup.source.has_groups else None)
    if temperature:
        test["calibrated"] = calibrated_metrics(logits, labels, temperature)
    write_predictions(run_dir.path, logits, labels)
    write_confident_errors(run_dir.path, evaluation.most_confident_errors(logits, labels, setup.test_batches_at))
    _write_augmentation(setup, run_dir.path)
    if resolved.config.runtime.save_model:
        write_test_images(run_dir.path, sample_images(setup.splits.test))
        run_dir.write_model(model)
        write_delta(setup, run_dir.path, recorded.fingerprint)
    progress = outcome.progress
    run_dir.write_result(
        {
            "name": name,
            "config": resolved.config.identity(),
            "data": _data_record(setup, _time_note(setup, progress)) | {"fingerprint": recorded.fingerprint},
            "model": _model_record(setup, model),
            "phases": progress.phases,
            "test_cache": test_cache,
            "runtime": setup.runtime.record(),
            "selection": {
                "rule": resolved.config.train.selection if setup.splits.validation else "last",
                "epoch": outcome.selected_epoch,
            },
            "metrics": {"test": test, "validation": progress.best},
            "temperature": temperature,
            "seconds": {
                "total": time.perf_counter() - started,
                "train": sum(phase["seconds"] for phase in progress.phases),
                "test": time.perf_counter() - test_started,
            },
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    if run_dir.checkpoint.exists():  # A grid of heads has none.
        shutil.rmtree(run_dir.checkpoint)
    return run_directory.load_result(run_dir.path)


@dataclass(frozen=True)
class TrainingOutcome:
    """Training is over, and the model has the weights of `selected_epoch`.

    Attributes:
        predict: the compiled prediction of the whole model, if training made one.
    """

    progress: "Progress"
    selected_epoch: int
    predict: Callable[[Any], Any] | None = None


def _train(
    setup: RunSetup, cache: "FeatureCache", run_dir: RunDirectory, callbacks: "Sequence[keras.callbacks.Callback]", verbose: int
) -> TrainingOutcome:
    trainer, write_history = make_trainer(setup), _history_writer(run_dir, setup.resolved.config)
    progress = trainer.fit(
        setup.batches,
        run_dir.checkpoint,
        callbacks,
        split_phase=cache.split_phase,
        on_epoch=lambda progress: write_history(progress.history),
        verbose=verbose,
    )
    return TrainingOutcome(progress, trainer.selected_epoch(), trainer.predict)


def _train_grid(
    setup: RunSetup, cache: "FeatureCache", run_dir: RunDirectory, callbacks: "Sequence[keras.callbacks.Callback]", verbose: int
) -> TrainingOutcome:
    """Train the heads of the setting `grid`. Keras callbacks belong to one training and are not called."""
    from tl_keras.runs.grid_search import FILE, search

    progress, selected_epoch = search(setup, cache, run_dir.path)
    _history_writer(run_dir, setup.resolved.config)(progress.history)
    if verbose:
        grid = progress.phases[0]["grid"]
        best = ", ".join(f"{name} {grid['best_head'][name]:g}" for name in grid["varied"])
        accuracy = 100 * progress.best["accuracy"]
        print(f"grid      {grid['heads']} heads; best on validation: {best}, {accuracy:.2f} %. All: {run_dir.path / FILE}", flush=True)
    return TrainingOutcome(progress, selected_epoch)


def _history_writer(run_dir: RunDirectory, config: RunConfig) -> Callable[[Sequence[Mapping[str, Any]]], None]:
    """Return a function that writes the history of a run, and its logs for TensorBoard if the settings ask for them."""
    if not config.runtime.tensorboard:
        return run_dir.write_history
    log = _event_log(run_dir.path)

    def write(history: Sequence[Mapping[str, Any]]) -> None:
        run_dir.write_history(history)
        log.write(history)

    return write


def _event_log(directory: Path) -> "EventLog":
    from tl_keras.runs.event_log import EventLog

    return EventLog(directory)


Logits = tuple[np.ndarray, np.ndarray]  # float32 (n, classes), and labels int (n,)
Score = Callable[[data.Examples, "tf.data.Dataset"], tuple[Logits, Mapping[str, Any]]]


def _scorer(setup: RunSetup, cache: "FeatureCache", model: "keras.Model", outcome: TrainingOutcome) -> Score:
    """Return a function (examples, their image batches) -> logits and labels of `model`, and the cache record."""
    from tl_keras.training import evaluation

    inputs = cache.evaluation_inputs(model)
    predict = outcome.predict if model is setup.model and inputs.model is None else None
    predict = predict or evaluation.make_predict(inputs.model or setup.with_resize(model), setup.runtime)

    def score(examples: data.Examples, image_batches: "tf.data.Dataset") -> tuple[Logits, Mapping[str, Any]]:
        batches, record = inputs.read(examples, image_batches)
        return evaluation.predict_logits(predict, setup.runtime, batches), record

    return score


def _write_augmentation(setup: RunSetup, run_dir: Path) -> None:
    """Write a picture of augmented training images for the report, if images are augmented."""
    from tl_keras.data.augmentation import NONE
    from tl_keras.data.augmentation_strip import write_strip

    config = setup.resolved.config
    if config.data.augmentation != NONE:
        path, name = run_dir / run_directory.AUGMENTATION, config.data.augmentation
        write_strip(setup.splits.train, path, geometry=setup.geometry, num_classes=setup.num_classes, augmentation=name, seed=config.seed)


def _fit_temperature(setup: RunSetup, score: Score) -> float | None:
    """Return the temperature that fits the validation split, or None without one."""
    validation, batches = setup.splits.validation, setup.batches.validation
    if not (validation and batches):
        return None
    (logits, labels), _ = score(validation, batches)
    return fit_temperature(logits, labels)


def _model_record(setup: RunSetup, model: "keras.Model") -> dict[str, Any]:
    config = setup.resolved.config.model
    return {
        "backbone": config.backbone,
        "parameters": model.count_params(),
        "image_size": setup.geometry.image_size,
        "crop_fraction": setup.geometry.crop_fraction,
        "interpolation": setup.geometry.interpolation,
        "normalization": setup.resolved.normalization,
        "weights": config.weights,
        "weights_sha256": hash_of_weights(setup.resolved.config),
        "loading_info": asdict(setup.loading_info) if setup.loading_info else {},
    }


def _describe_setup(setup: RunSetup) -> str:
    """Return the lines that say what is about to be trained, on which data and which device."""
    config, source, splits = setup.resolved.config, setup.source, setup.splits
    num_validation = len(splits.validation) if splits.validation else 0
    images = f"{len(splits.train):,} training, {num_validation:,} validation, {len(splits.test):,} test images"
    model = f"{config.model.backbone}, {setup.geometry}, {setup.model.count_params():,} parameters"
    model += f", weights {config.model.weights}, normalization {setup.resolved.normalization}"
    phases = "; ".join(f"{phase.name}: {phase.epochs} epochs, trains {', '.join(phase.trainable)}" for phase in setup.phases)
    lines = [f"data      {source.name}: {images}", f"model     {model}", f"phases    {phases}", f"runtime   {setup.runtime}"]
    info = setup.loading_info
    lines += [f"head      {info.head}"] if info and info.head else []
    notes = [*source.notes, *_data_notes(config.data, source, splits), *setup.batch_notes(), *(info.notes if info else ())]
    notes += setup.resolved.weight_notes()
    return "\n".join([*lines, *(f"note      {note}" for note in notes)])


def _time_note(setup: RunSetup, progress: "Progress") -> list[str]:
    """Return a remark if the time limit has ended the training."""
    config = setup.resolved.config.train
    ended = f"`time_limit={config.time_limit:g}` ended the training after {progress.epoch} of {config.epochs} epochs"
    return [ended] if progress.time_is_up and progress.epoch < config.epochs else []


def _data_record(setup: RunSetup, notes: Sequence[str]) -> dict[str, Any]:
    config, source, splits = setup.resolved.config.data, setup.source, setup.splits
    return {
        "dataset": source.name,
        "class_names": list(source.class_names),
        "num_train": len(splits.train),
        "num_validation": len(splits.validation) if splits.validation else 0,
        "num_test": len(splits.test),
        "embedded": source.embedded,
        "limited": bool(config.limit_train or config.limit_test),
        "notes": [*source.notes, *_data_notes(config, source, splits), *setup.batch_notes(), *notes],
    }


def _data_notes(config: DataConfig, source: data.DatasetSource, splits: data.Splits) -> list[str]:
    """Return what a reader would not expect of the training data."""
    num_epoch, num_train = data.epoch_size(splits.train, config.sampling), len(splits.train)
    empty = [name for label, name in enumerate(source.class_names) if label not in source.train.class_counts]
    return [
        *([f"an epoch has {num_epoch} images, since smaller classes are repeated"] if num_epoch > num_train else []),
        *data.untested_classes(splits.test, source.class_names, ignored=empty),
        *([f"{len(empty)} of {len(source.class_names)} classes have no images: {join_names(empty)}"] if empty else []),
    ]
