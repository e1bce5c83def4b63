"""One run, from a configuration to a directory with its result: the one composition function, `run`."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tl_keras import backbones, data, quiet, results, strategies, weights
from tl_keras.config import DataConfig, RunConfig
from tl_keras.errors import ConfigError, MissingError
from tl_keras.strategies import Phase


@dataclass(frozen=True)
class Plan:
    """What a configuration comes to, known before anything is loaded."""

    backbone: backbones.Backbone
    image_size: int
    normalization: str
    phases: tuple[Phase, ...]


def plan(config: RunConfig) -> Plan:
    """Check every name and number of `config` against the tables; fast, without TensorFlow.

    Raises:
        ConfigError: a name is unknown or a combination impossible; the message lists what is possible.
    """
    backbone = backbones.get_backbone(config.model.backbone)
    image_size = backbones.check_settings(
        backbone, image_size=config.model.image_size, stem=config.model.stem, normalization=config.model.normalization
    )
    data.find_dataset(config.data)
    data.get_augmentation(config.data.augmentation)
    stages = [name for name, _ in backbone.stages]
    normalization = config.model.normalization
    if normalization == "weights":  # of which a backbone may have variants that were trained with different ones
        normalization = weights.normalization_of(backbone.name, config.model.weights)
    return Plan(backbone, image_size, normalization, strategies.plan(stages, config.train))


def require(config: RunConfig) -> None:
    """Make sure that data and weights are at hand, fetching what can be fetched, before any run starts.

    Raises:
        MissingError, DamagedError: with all that is missing or damaged, and how to get it.
    """
    missing = []
    for fetch in (lambda: locate_weights(config), lambda: load_source(config.data)):
        try:
            fetch()
        except MissingError as error:
            missing.append(str(error))
    if missing:
        raise MissingError("\n".join(missing))


def locate_weights(config: RunConfig) -> Path | None:
    """The weights file that `config` names, verified; None for new weights."""
    return weights.locate(config.model.backbone, config.model.weights, config.model.weights_dir)


def load_source(config: DataConfig) -> data.Source:
    """The images of `config.dataset`; the runs of an experiment read them once."""
    quiet.import_tensorflow()
    return _load_source(config.dataset, config.data_dir, config.label, config.on_corrupt)


@lru_cache(maxsize=1)
def _load_source(dataset: str, data_dir: str, label: str, on_corrupt: str) -> data.Source:
    return data.load_source(DataConfig(dataset=dataset, data_dir=data_dir, label=label, on_corrupt=on_corrupt))


def run(config: RunConfig, directory: Path, *, name: str = "", callbacks: Sequence[Any] = (), verbose: int = 0) -> dict[str, Any]:
    """Train and test `config` in `directory`; finished runs are read back, interrupted ones resumed.

    Args:
        name: what the run is called in the result; the directory's name if empty.
        callbacks: Keras callbacks, called as `model.fit` would.
        verbose: 0 silent, 1 a progress bar, 2 a line each epoch.

    Returns:
        The content of `result.json`; its schema is documented in `results.py`.

    Raises:
        UserError: impossible settings, missing or damaged files, non-finite losses, a failed audit.
    """
    planned = plan(config)
    place = results.RunDirectory(directory)
    if finished := place.finished(config):
        return finished
    with place.lock():
        place.prepare(config)
        return _run(config, planned, place, name or directory.name, callbacks, verbose)


def _run(
    config: RunConfig, planned: Plan, place: results.RunDirectory, name: str, callbacks: Sequence[Any], verbose: int
) -> dict[str, Any]:
    from tl_keras import evaluation, runtime
    from tl_keras.trainer import Trainer

    started = time.perf_counter()
    source = load_source(config.data)
    splits = data.make_splits(source, config.data, config.seed)
    weights_path = locate_weights(config)
    machine = runtime.start(config.runtime, seed=config.seed, batch_size=config.train.batch_size, depthwise=planned.backbone.depthwise)
    with machine.scope():
        model = backbones.build_classifier(
            config.model.backbone,
            len(source.class_names),
            image_size=planned.image_size,
            stem=config.model.stem,
            normalization="weights" if planned.normalization == planned.backbone.normalization else planned.normalization,
        )
        account = weights.load_weights(model, config.model.backbone, weights_path) if weights_path else {}
    stages = backbones.stage_layers(model, config.model.backbone)
    batches = _batches(config, planned, source, splits, machine.replicas)
    if verbose:
        print(_headline(config, planned, source, splits, machine, model), flush=True)
    trainer = Trainer(
        model,
        stages,
        planned.phases,
        config.train,
        machine,
        place.checkpoint,
        on_epoch=lambda progress: place.write_history(progress.history),
    )
    progress = trainer.fit(batches.training, callbacks, verbose=verbose)
    tested = time.perf_counter()
    logits, labels = evaluation.predict_logits(trainer.predict, machine, batches.test)
    place.write_predictions(logits, labels)
    place.write_model(model)
    result = {
        "name": name,
        "config": config.identity(),
        "data": _data_record(config.data, source, splits),
        "model": {
            "backbone": config.model.backbone,
            "parameters": model.count_params(),
            "image_size": planned.image_size,
            "crop_fraction": _crop_fraction(config.data, source),
            "normalization": planned.normalization,
            "weights": config.model.weights,
            "weights_account": account,
        },
        "phases": progress.phases,
        "runtime": machine.record(),
        "selection": {"rule": config.train.selection if batches.training.validation else "last", "epoch": trainer.selected_epoch()},
        "metrics": {"test": evaluation.metrics(logits, labels), "validation": progress.best},
        "seconds": {
            "total": time.perf_counter() - started,
            "train": sum(row["seconds"] for row in progress.history),
            "test": time.perf_counter() - tested,
        },
    }
    place.write_result(result)
    shutil.rmtree(place.checkpoint)
    return results.load_result(place.path)


def _headline(config: RunConfig, planned: Plan, source: data.Source, splits: data.Splits, machine: Any, model: Any) -> str:
    """What is about to be trained, on what, with what: as it really is."""
    num_validation = len(splits.validation) if splits.validation else 0
    images = f"{len(splits.train):,} training, {num_validation:,} validation, {len(splits.test):,} test images"
    network = f"{config.model.backbone}, {planned.image_size} px, {model.count_params():,} parameters"
    network += f", weights {config.model.weights}, normalisation {planned.normalization}"
    phases = "; ".join(f"{phase.name}: {phase.epochs} epochs, trains {', '.join(phase.trainable)}" for phase in planned.phases)
    facts = [f"data      {source.name}: {images}", f"model     {network}", f"phases    {phases}", f"runtime   {machine}"]
    return "\n".join([*facts, *(f"note      {note}" for note in source.notes)])


@dataclass(frozen=True)
class _RunBatches:
    training: Any
    test: Any


def _batches(config: RunConfig, planned: Plan, source: data.Source, splits: data.Splits, replicas: int) -> _RunBatches:
    """The batches of a run: for the trainer (training and validation), and of the test split."""
    from tl_keras.data import pipeline
    from tl_keras.trainer import Batches

    settings = {
        "image_size": planned.image_size,
        "crop_fraction": _crop_fraction(config.data, source),
        "batch_size": config.train.batch_size,
        "replicas": replicas,
    }

    def training(epoch: int) -> Any:
        return pipeline.training_batches(splits.train, augmentation=config.data.augmentation, seed=config.seed, epoch=epoch, **settings)

    num_train = len(splits.train) - len(splits.train) % replicas
    validation = pipeline.evaluation_batches(splits.validation, **settings) if splits.validation else None
    return _RunBatches(Batches(training, num_train, validation), pipeline.evaluation_batches(splits.test, **settings))


def _crop_fraction(config: DataConfig, source: data.Source) -> float:
    return config.crop_fraction or source.crop_fraction


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
        "notes": list(source.notes),
    }


def evaluate_run(run_dir: Path, data_settings: dict[str, Any]) -> dict[str, Any]:
    """Score the model of a finished run on a test split: its own, or the one that `data_settings` name.

    Returns:
        The metrics of `evaluation.metrics`.

    Raises:
        ConfigError: the run is not finished, or the data has other classes.
    """
    result = results.load_result(run_dir)
    config = RunConfig.from_flat(result["config"]).replace(**data_settings)
    planned = plan(config)
    source = load_source(config.data)
    if list(source.class_names) != result["data"]["class_names"]:
        raise ConfigError(
            f"The model knows the classes {', '.join(result['data']['class_names'])}; {source.name} has {', '.join(source.class_names)}. "
            "Choose a data set with the same classes."
        )
    import keras

    from tl_keras import evaluation, runtime

    machine = runtime.start(config.runtime, seed=config.seed, batch_size=config.train.batch_size, depthwise=planned.backbone.depthwise)
    with machine.scope():
        model = keras.models.load_model(run_dir / "model.keras", compile=False)
    batches = _batches(config, planned, source, data.make_splits(source, config.data, config.seed), machine.replicas)
    return evaluation.metrics(*evaluation.predict_logits(evaluation.make_predict(model, machine), machine, batches.test))
