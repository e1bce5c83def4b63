"""One run, from a configuration to a directory with its result: the one composition function, `run`."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_keras import data
from tl_keras.config import DataConfig, RunConfig
from tl_keras.errors import ConfigError
from tl_keras.results import run_directory
from tl_keras.results.predictions import write_confident_errors, write_predictions
from tl_keras.runs.setup import Plan, Prepared, crop_fraction, evaluation_batches, load_source, plan, prepare, start


def run(config: RunConfig, directory: Path, *, name: str = "", callbacks: Sequence[Any] = (), verbose: int = 0) -> dict[str, Any]:
    """Train and test `config` in `directory`; finished runs are read back, interrupted ones resumed.

    Args:
        name: what the run is called in the result; the directory's name if empty.
        callbacks: Keras callbacks, called as `model.fit` would.
        verbose: 0 silent, 1 a progress bar, 2 a line each epoch.

    Returns:
        The content of `result.json`; its schema is documented in `run_directory.py`.

    Raises:
        UserError: impossible settings, missing or damaged files, non-finite losses, a failed audit.
    """
    planned = plan(config)
    place = run_directory.RunDirectory(directory)
    if finished := place.load_if_finished(config):
        return finished
    with place.lock():
        place.write_config(config)
        return _run(config, planned, place, name or directory.name, callbacks, verbose)


def _run(
    config: RunConfig, planned: Plan, place: run_directory.RunDirectory, name: str, callbacks: Sequence[Any], verbose: int
) -> dict[str, Any]:
    from tl_keras.feature_cache.feature_cache import FeatureCache
    from tl_keras.training import evaluation

    started = time.perf_counter()
    ready = prepare(config, planned)
    if verbose:
        print(_headline(config, ready), flush=True)
    cache = FeatureCache(config, ready, verbose=verbose)
    trained = (_search if config.train.grid else _train)(config, ready, cache, place, callbacks, verbose)
    progress = trained.progress
    tested = time.perf_counter()
    model = _finished_model(ready, place)
    is_merged = model is not ready.model
    network, test, test_cache = (None, ready.test, {}) if is_merged else cache.test(ready.test)
    predict = None if is_merged or network else trained.predict
    predict = predict or evaluation.make_predict(network or ready.seeing(model), ready.machine)
    logits, labels = evaluation.predict_logits(predict, ready.machine, test)
    write_predictions(place.path, logits, labels)
    write_confident_errors(place.path, evaluation.most_confident_errors(logits, labels, ready.test_at))
    if config.runtime.save_model:
        place.write_model(model)
    result = {
        "name": name,
        "config": config.identity(),
        "data": _data_record(config.data, ready.source, ready.splits),
        "model": _model_record(config, ready, model),
        "phases": progress.phases,
        "test_cache": test_cache,
        "runtime": ready.machine.record(),
        "selection": {"rule": config.train.selection if ready.splits.validation else "last", "epoch": trained.selected_epoch},
        "metrics": {"test": evaluation.metrics(logits, labels), "validation": progress.best},
        "seconds": {
            "total": time.perf_counter() - started,
            "train": sum(phase["seconds"] for phase in progress.phases),
            "test": time.perf_counter() - tested,
        },
    }
    place.write_result(result)
    if place.checkpoint.exists():  # a grid leaves none
        shutil.rmtree(place.checkpoint)
    return run_directory.load_result(place.path)


@dataclass(frozen=True)
class _Trained:
    """What training gave: the model's weights are those of `selected_epoch`; `predict` is its compiled prediction, if there is one."""

    progress: Any
    selected_epoch: int
    predict: Callable[[Any], Any] | None = None


def _train(
    config: RunConfig, ready: Prepared, cache: Any, place: run_directory.RunDirectory, callbacks: Sequence[Any], verbose: int
) -> _Trained:
    from tl_keras.training.trainer import Trainer

    trainer = Trainer(
        ready.model,
        ready.stages,
        ready.plan.phases,
        config.train,
        ready.machine,
        place.checkpoint,
        loss=ready.loss,
        on_epoch=lambda progress: place.write_history(progress.history),
        narrow=cache.narrow,
        network=ready.seeing(ready.model),
    )
    progress = trainer.fit(ready.training, callbacks, verbose=verbose)
    return _Trained(progress, trainer.selected_epoch(), trainer.predict)


def _search(
    config: RunConfig, ready: Prepared, cache: Any, place: run_directory.RunDirectory, callbacks: Sequence[Any], verbose: int
) -> _Trained:
    """Train the heads of `--grid`; Keras callbacks are of one training and are not called."""
    from tl_keras.runs.grid_search import FILE, search

    progress, selected_epoch = search(config, ready, cache, place.path)
    place.write_history(progress.history)
    if verbose:
        grid = progress.phases[0]["grid"]
        best = ", ".join(f"{name} {grid['winner'][name]:g}" for name in grid["varied"])
        accuracy = 100 * progress.best["accuracy"]
        print(f"grid      {grid['heads']} heads; best on validation, with {accuracy:.2f} %: {best}. All in {place.path / FILE}", flush=True)
    return _Trained(progress, selected_epoch)


def _finished_model(ready: Prepared, place: run_directory.RunDirectory) -> Any:
    """The model that is tested and kept: adapters are written to a file of their own and merged."""
    from tl_keras.strategies import freezing, lora

    if not lora.adapters_of(ready.model):
        return ready.model
    lora.save(place.path / lora.FILE, ready.model, freezing.expected_to_move(ready.stages, ready.plan.phases[-1]))
    with ready.machine.scope():
        return lora.merge(ready.model)


def _model_record(config: RunConfig, ready: Prepared, model: Any) -> dict[str, Any]:
    return {
        "backbone": config.model.backbone,
        "parameters": model.count_params(),
        "image_size": ready.plan.image_size,
        "crop_fraction": crop_fraction(config.data, ready.source),
        "normalization": ready.plan.normalization,
        "weights": config.model.weights,
        "loading_info": ready.account,
    }


def _headline(config: RunConfig, ready: Prepared) -> str:
    """What is about to be trained, on what, with what: as it really is."""
    planned, source, splits = ready.plan, ready.source, ready.splits
    num_validation = len(splits.validation) if splits.validation else 0
    images = f"{len(splits.train):,} training, {num_validation:,} validation, {len(splits.test):,} test images"
    network = f"{config.model.backbone}, {planned.image_size} px, {ready.model.count_params():,} parameters"
    network += f", weights {config.model.weights}, normalisation {planned.normalization}"
    phases = "; ".join(f"{phase.name}: {phase.epochs} epochs, trains {', '.join(phase.trainable)}" for phase in planned.phases)
    facts = [f"data      {source.name}: {images}", f"model     {network}", f"phases    {phases}", f"runtime   {ready.machine}"]
    return "\n".join([*facts, *(f"note      {note}" for note in source.notes)])


def _data_record(config: DataConfig, source: data.Source, splits: data.Splits) -> dict[str, Any]:
    return {
        "dataset": source.name,
        "fingerprint": source.fingerprint,
        "class_names": list(source.class_names),
        "num_train": len(splits.train),
        "num_validation": len(splits.validation) if splits.validation else 0,
        "num_test": len(splits.test),
        "embedded": source.embedded,
        "limited": bool(config.limit_train or config.limit_test),
        "notes": [*source.notes, *_data_notes(config, source, splits)],
    }


def _data_notes(config: DataConfig, source: data.Source, splits: data.Splits) -> list[str]:
    """What a reader would not expect of the data as it is trained on."""
    num_epoch, num_train = data.epoch_size(splits.train, config.sampling), len(splits.train)
    empty = [name for label, name in enumerate(source.class_names) if label not in source.train.class_counts]
    return [
        *([f"an epoch has {num_epoch} images: those of smaller classes more than once"] if num_epoch > num_train else []),
        *([f"{len(empty)} of {len(source.class_names)} classes have no images: {', '.join(empty)}"] if empty else []),
    ]


def evaluate_run(run_dir: Path, data_settings: dict[str, Any]) -> dict[str, Any]:
    """Score the model of a finished run on a test split: its own, or the one that `data_settings` name.

    Returns:
        The metrics of `evaluation.metrics`.

    Raises:
        ConfigError: the run is not finished, or the data has other classes.
    """
    result = run_directory.load_result(run_dir)
    config = RunConfig.from_dict(result["config"]).replace(**data_settings)
    planned = plan(config)
    source = load_source(config.data)
    if list(source.class_names) != result["data"]["class_names"]:
        raise ConfigError(
            f"The model knows the classes {', '.join(result['data']['class_names'])}; {source.name} has {', '.join(source.class_names)}. "
            "Choose a data set with the same classes."
        )
    from tl_keras.training import evaluation

    machine = start(config, planned)
    with machine.scope():
        model = load_model(run_dir)
    test = data.make_splits(source, config.data, config.seed).test
    batches = evaluation_batches(config, planned, source, test, machine.replicas, resized=True)
    return evaluation.metrics(*evaluation.predict_logits(evaluation.make_predict(model, machine), machine, batches))


def load_model(run_dir: Path) -> Any:
    """The tested model of the finished run in `run_dir`.

    Raises:
        ConfigError: the run did not keep it.
    """
    import keras

    path = run_dir / run_directory.MODEL
    if not path.exists():
        raise ConfigError(f"{run_dir} has no {run_directory.MODEL}: it was run with `save_model=false`. Run it again with `save_model`.")
    return keras.models.load_model(path, compile=False)
