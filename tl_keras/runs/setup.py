"""Builds what a resolved run trains with: the runtime, the data, the model and the batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras import backbones, data, strategies, weights
from tl_keras.config import RunConfig
from tl_keras.data.geometry import Geometry
from tl_keras.data.sampling import TrainingOrder, batch_sizes
from tl_keras.results.split_record import SplitRecord
from tl_keras.runs.resolve import ResolvedRun, load_source, locate_weights
from tl_keras.runs.run_data import restore_splits, with_recorded_splits
from tl_keras.strategies import Phase

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tl_keras.strategies.freezing import Stages
    from tl_keras.training.losses import Loss
    from tl_keras.training.runtime import Runtime
    from tl_keras.training.trainer import Batches, Trainer


@dataclass(frozen=True)
class RunSetup:
    """All that a run trains and tests with.

    Attributes:
        geometry: crop and resize, with the size of the source images if they have one size.
        runtime: the runtime in effect; the model's variables are created in its scope.
        model, stages: the classifier with its weights and adapters, and the layers of each stage.
        loading_info: what was loaded from the weights file; None for new weights.
        order: order of the training examples in each epoch.
        batches: training and validation batches.
        test: batches of the test split.
        loss: (targets, logits) -> loss of each example.
    """

    resolved: ResolvedRun
    source: data.DatasetSource
    splits: data.Splits
    geometry: Geometry
    runtime: "Runtime"
    model: "keras.Model"
    stages: "Stages"
    loading_info: weights.LoadingInfo | None
    order: TrainingOrder
    batches: "Batches"
    test: "tf.data.Dataset"
    loss: "Loss"

    @property
    def phases(self) -> Sequence[Phase]:
        return self.resolved.phases

    @property
    def num_classes(self) -> int:
        return len(self.source.class_names)

    def batch_notes(self) -> list[str]:
        """Return remarks on the training batches."""
        from tl_keras.training.last_batch import describe_merged

        return describe_merged(self.batches.sizes, self.resolved.config.train.batch_size)

    def with_resize(self, model: "keras.Model") -> Callable[..., Any]:
        """Return `model` as a function of the images in `batches` and `test`, which the device may have to resize first."""
        from tl_keras.data.geometry import with_resize

        return with_resize(self.geometry.device_resize(), model)

    def test_batches_at(self, indices: np.ndarray) -> "tf.data.Dataset":
        """Return batches of the test examples at `indices`, int (k,), resized as the model sees them."""
        from tl_keras.data import pipeline

        batch_size, replicas = self.resolved.config.train.batch_size, self.runtime.replicas
        examples = self.splits.test.subset(indices)
        return pipeline.evaluation_batches(examples, self.geometry.in_pipeline(), batch_size=batch_size, replicas=replicas)


def build_setup(resolved: ResolvedRun, recorded: SplitRecord | None = None, given: SplitRecord | None = None) -> RunSetup:
    """Load what `resolved` names and build what it trains.

    Args:
        recorded: the split of a run that has begun; None: the settings decide.
        given: fixed splits of the data set, of which the settings take a part; None: its own.

    Raises:
        UserError: Files are missing or damaged, the data cannot be split as asked or have changed, or the weights do not fit the
            model.
    """
    from tl_keras.data import pipeline
    from tl_keras.training.last_batch import min_last_batch
    from tl_keras.training.losses import build_loss
    from tl_keras.training.trainer import Batches

    config = resolved.config
    runtime = build_runtime(resolved)
    source = load_source(config.data)
    source = source if given is None or recorded is not None else with_recorded_splits(given, source)
    backbones.check_head(config.model.head, len(source.class_names))
    source, splits = split_data(source, config, recorded)
    resizes = data.get_augmentation(config.data.augmentation).resizes
    geometry = replace(resolved.geometry, source_size=None if resizes else _common_size(source))
    model, loading_info = _build_model(resolved, source.class_names, runtime)
    stages = backbones.stage_layers(model, resolved.backbone.name)
    order = TrainingOrder(splits.train, config.seed, config.data.sampling, config.data.cache_views, runtime.replicas)
    min_last = min_last_batch(config.train, stages, resolved.phases, runtime.replicas)
    sizes = batch_sizes(order.num_examples, config.train.batch_size, min_last)

    def training(epoch: int) -> "tf.data.Dataset":
        return pipeline.training_batches(
            order,
            geometry,
            num_classes=len(source.class_names),
            augmentation=config.data.augmentation,
            sizes=sizes,
            epoch=epoch,
        )

    def evaluation(examples: data.Examples) -> "tf.data.Dataset":
        return pipeline.evaluation_batches(examples, geometry, batch_size=config.train.batch_size, replicas=runtime.replicas)

    return RunSetup(
        resolved=resolved,
        source=source,
        splits=splits,
        geometry=geometry,
        runtime=runtime,
        model=model,
        stages=stages,
        loading_info=loading_info,
        order=order,
        batches=Batches(training, sizes, evaluation(splits.validation) if splits.validation else None),
        test=evaluation(splits.test),
        loss=build_loss(config.train, splits.train.class_counts, len(source.class_names)),
    )


def split_data(
    source: data.DatasetSource, config: RunConfig, recorded: SplitRecord | None = None
) -> tuple[data.DatasetSource, data.Splits]:
    """Return the data set and the splits of a run. Notes are added on copies across splits, and on changes since the split was recorded."""
    if recorded is None:
        splits, note = data.make_splits(source, config.data, config.seed), ""
    else:
        splits, note = restore_splits(recorded, source)
    return replace(source, notes=(*source.notes, *([note] if note else []), *data.describe_near_copies(splits))), splits


def make_trainer(setup: RunSetup) -> "Trainer":
    """Return the trainer of a run."""
    from tl_keras.training.trainer import Trainer

    return Trainer(
        setup.model,
        setup.stages,
        setup.phases,
        setup.resolved.config.train,
        setup.runtime,
        loss=setup.loss,
        forward=setup.with_resize(setup.model),
        unbiased_variance=setup.resolved.backbone.unbiased_variance,
    )


def build_runtime(resolved: ResolvedRun) -> "Runtime":
    """Set up the device strategy, the precision and the seeds. Call before TensorFlow's first operation.

    Raises:
        ConfigError: The batch size is not a multiple of the number of replicas.
    """
    from tl_keras.training import runtime

    config = resolved.config
    return runtime.make_runtime(config.runtime, seed=config.seed, batch_size=config.train.batch_size, depthwise=resolved.backbone.depthwise)


def _common_size(source: data.DatasetSource) -> tuple[int, int] | None:
    """Return the (height, width) of all images of `source`, or None if they differ."""
    sizes = {examples.size for examples in source.splits.values()}
    return sizes.pop() if len(sizes) == 1 else None


def _build_model(resolved: ResolvedRun, class_names: Sequence[str], runtime: "Runtime") -> tuple["keras.Model", weights.LoadingInfo | None]:
    """Return the classifier with loaded weights and adapters, and what was loaded."""
    weights_path = locate_weights(resolved.config)
    with runtime.scope():
        model = build_model(resolved, len(class_names))
        loading_info = _load_weights(model, resolved, weights_path, class_names) if weights_path else None
        model = add_adapters(model, resolved)
    return model, loading_info


def _load_weights(model: "keras.Model", resolved: ResolvedRun, path: Path, class_names: Sequence[str]) -> weights.LoadingInfo:
    """Load the weights, the head of a trained model by the names of the classes, if the logits stand for one class each."""
    config = resolved.config
    is_plain = config.model.head == "linear" and not config.data.extra_classes
    names, weights_dir = class_names if is_plain else (), config.model.weights_dir
    info = weights.load_weights(model, resolved.backbone.name, path, class_names=names, weights_dir=weights_dir)
    return replace(info, notes=(*info.notes, *_changed_settings(resolved, weights.find_trained_model(path))))


def _changed_settings(resolved: ResolvedRun, trained: weights.TrainedModel | None) -> list[str]:
    """Return the settings of the input that differ from those that the trained model had."""
    geometry = resolved.geometry
    current = {
        "normalization": resolved.normalization,
        "image_size": geometry.image_size,
        "crop_fraction": geometry.crop_fraction,
        "interpolation": geometry.interpolation,
    }
    before = {name: getattr(trained, name) for name in current} if trained else {}
    return [
        f"`{name}={current[name]}`; {trained.name} had {value}"
        for name, value in before.items()
        if trained and value and value != current[name]
    ]


def build_model(resolved: ResolvedRun, num_classes: int) -> "keras.Model":
    """Return the classifier of `resolved` with new weights and without adapters."""
    config = resolved.config.model
    is_default = resolved.normalization == resolved.backbone.normalization
    model = backbones.build_classifier(
        config.backbone,
        num_classes,
        image_size=resolved.geometry.image_size,
        stem=config.stem,
        normalization="weights" if is_default else resolved.normalization,
        head=config.head,
        head_dropout=config.head_dropout,
    )
    _set_batch_norm_momentum(model, resolved.config.train.batch_norm_momentum)
    return model


def _set_batch_norm_momentum(model: "keras.Model", momentum: float) -> None:
    """Set the momentum of every BatchNorm, from which copies with adapters get it; 0 keeps that of the backbone."""
    import keras

    for layer in model.layers if momentum else ():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def add_adapters(model: "keras.Model", resolved: ResolvedRun) -> "keras.Model":
    """Return `model`, or a copy with the adapters that the strategy asks for."""
    from tl_keras.strategies import lora

    strategy = resolved.strategy
    if not isinstance(strategy, strategies.Lora):
        return model
    return lora.add_lora_for_strategy(model, backbones.stage_layers(model, resolved.backbone.name), strategy, seed=resolved.config.seed)
