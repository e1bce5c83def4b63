"""What a run needs before it trains: its settings checked, data and weights at hand, and the model and the batches made of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras import backbones, data, strategies, weights
from tl_keras.config import DataConfig, RunConfig
from tl_keras.errors import MissingError
from tl_keras.strategies import Phase, grid
from tl_keras.utils import tensorflow_import

if TYPE_CHECKING:
    from tl_keras.training.runtime import Runtime


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
    data.parse_keep(config.data.keep)
    if config.train.grid:
        grid.parse(config.train.grid, config)
    stages = [name for name, _ in backbone.stages]
    normalization = config.model.normalization
    if normalization == "weights":  # of which a backbone may have variants that were trained with different ones
        normalization = weights.normalization_of(backbone.name, config.model.weights)
    return Plan(backbone, image_size, normalization, strategies.plan(stages, config.train))


def build(config: RunConfig, planned: Plan, num_classes: int) -> Any:
    """The classifier that `config` names, with new weights."""
    return backbones.build_classifier(
        config.model.backbone,
        num_classes,
        image_size=planned.image_size,
        stem=config.model.stem,
        normalization="weights" if planned.normalization == planned.backbone.normalization else planned.normalization,
    )


def adapt(model: Any, config: RunConfig) -> Any:
    """`model`, or a copy with the adapters that the strategy of `config` asks for."""
    from tl_keras.strategies import lora

    strategy = strategies.parse(config.train.strategy)
    if not isinstance(strategy, strategies.Lora):
        return model
    return lora.insert_strategy(model, backbones.stage_layers(model, config.model.backbone), strategy, seed=config.seed)


def check_strategy(config: RunConfig) -> None:
    """ConfigError where the network has no layers or weights of the kind that the strategy trains, e.g. no batch norm.

    The network is built to know, which takes seconds; not where whole stages are trained.
    """
    planned = plan(config)
    if {kind for phase in planned.phases for kind in phase.trainable.values()} == {strategies.ALL_WEIGHTS}:
        return
    tensorflow_import.import_tensorflow()
    from tl_keras.strategies import freezing, lora

    stages = backbones.stage_layers(build(config, planned, 2), config.model.backbone)
    strategy = strategies.parse(config.train.strategy)
    if isinstance(strategy, strategies.Lora):
        lora.find_targets(stages, strategy.targets)
        return
    for phase in planned.phases:
        freezing.require_weights(stages, phase)


def require(config: RunConfig) -> None:
    """Make sure that the strategy fits the network, and data and weights are at hand, before any run starts.

    Raises:
        ConfigError: the strategy trains a kind of weights that the network does not have, or the data cannot be split as asked.
        MissingError, DamagedError: with all that is missing or damaged, and how to get it.
    """
    check_strategy(config)
    missing = []
    for fetch in (lambda: locate_weights(config), lambda: data.make_splits(load_source(config.data), config.data, config.seed)):
        try:
            fetch()
        except MissingError as error:
            missing.append(str(error))
    if missing:
        raise MissingError("\n".join(missing))


def locate_weights(config: RunConfig) -> Path | None:
    """The weights file that `config` names, verified; None for new weights."""
    return weights.find_weights_file(config.model.backbone, config.model.weights, config.model.weights_dir)


def load_source(config: DataConfig) -> data.Source:
    """The images of `config.dataset`; the runs of an experiment read them once."""
    tensorflow_import.import_tensorflow()
    return _load_source(config.dataset, config.data_dir, config.label, config.on_corrupt)


@lru_cache(maxsize=1)
def _load_source(dataset: str, data_dir: str, label: str, on_corrupt: str) -> data.Source:
    return data.load_source(DataConfig(dataset=dataset, data_dir=data_dir, label=label, on_corrupt=on_corrupt))


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train.

    Attributes:
        machine: what it runs on, resolved; the model's variables are made in its scope.
        model, stages: the classifier with its weights and adapters, and the layers of each stage.
        enlarge: what the device does to the images of `training` and `test` before the model; None: they are resized already.
        account: what was made of the weights file; empty for new weights.
        training: what the trainer reads: training and validation batches.
        test: batches of the test split; `test_at` gives those of the test examples at some positions, as the model sees them.
        loss: (targets, logits) -> loss of each example.
    """

    plan: Plan
    source: data.Source
    splits: data.Splits
    machine: "Runtime"
    model: Any
    stages: Any
    enlarge: Callable[[Any], Any] | None
    account: dict[str, Any]
    training: Any
    test: Any
    test_at: Callable[[Any], Any]
    loss: Callable[[Any, Any], Any]

    def seeing(self, model: Any) -> Callable[..., Any]:
        """(images of `training` or `test`, training=...) -> outputs of `model`, which sees them enlarged."""
        from tl_keras.data import pipeline

        return pipeline.behind(self.enlarge, model)


def prepare(config: RunConfig, planned: Plan) -> Prepared:
    """Load what `config` names and build what it trains.

    Raises:
        UserError: missing or damaged files, data that cannot be split as asked, weights that do not fit.
    """
    from tl_keras.training import losses

    source = load_source(config.data)
    splits = data.make_splits(source, config.data, config.seed)
    weights_path = locate_weights(config)
    machine = start(config, planned)
    with machine.scope():
        model = build(config, planned, len(source.class_names))
        account = weights.load_weights(model, config.model.backbone, weights_path) if weights_path else {}
        model = adapt(model, config)
    stages = backbones.stage_layers(model, config.model.backbone)
    training = training_batches(config, planned, source, splits, machine.replicas)

    def test_at(positions: Any) -> Any:
        return evaluation_batches(config, planned, source, splits.test.take(positions), machine.replicas, resized=True)

    test = evaluation_batches(config, planned, source, splits.test, machine.replicas)
    loss = losses.build_loss(config.train, splits.train.class_counts, len(source.class_names))
    enlarge = enlarging(config, planned, source)
    return Prepared(planned, source, splits, machine, model, stages, enlarge, account, training, test, test_at, loss)


def start(config: RunConfig, planned: Plan) -> "Runtime":
    """The resolved runtime of `config`, with its seed and precision set."""
    from tl_keras.training import runtime

    return runtime.start(config.runtime, seed=config.seed, batch_size=config.train.batch_size, depthwise=planned.backbone.depthwise)


def training_batches(config: RunConfig, planned: Plan, source: data.Source, splits: data.Splits, replicas: int) -> Any:
    """The trainer's batches of the train and validation splits."""
    from tl_keras.data import pipeline
    from tl_keras.training.trainer import Batches

    def training(epoch: int) -> Any:
        return pipeline.training_batches(
            splits.train,
            num_classes=len(source.class_names),
            augmentation=config.data.augmentation,
            sampling=config.data.sampling,
            num_views=config.data.cache_views,
            seed=config.seed,
            epoch=epoch,
            resized=enlarging(config, planned, source) is None,
            **_geometry(config, planned, source, replicas),
        )

    num_epoch = data.epoch_size(splits.train, config.data.sampling)
    validation = evaluation_batches(config, planned, source, splits.validation, replicas) if splits.validation else None
    return Batches(training, num_epoch - num_epoch % replicas, validation)


def evaluation_batches(
    config: RunConfig, planned: Plan, source: data.Source, examples: data.Examples, replicas: int, *, resized: bool = False
) -> Any:
    """Batches that hold each of `examples` once: as the model of `config` sees them if `resized`, else as `enlarging` takes them."""
    from tl_keras.data import pipeline

    resized = resized or enlarging(config, planned, source) is None
    return pipeline.evaluation_batches(examples, resized=resized, **_geometry(config, planned, source, replicas))


def enlarging(config: RunConfig, planned: Plan, source: data.Source) -> Callable[[Any], Any] | None:
    """What the device does to the images of `source` before the model; None where tf.data resizes them."""
    from tl_keras.data import pipeline

    sizes = {split.size for split in (source.train, source.validation, source.test) if split is not None}
    return pipeline.enlarging(sizes.pop(), planned.image_size, crop_fraction(config.data, source)) if len(sizes) == 1 else None


def _geometry(config: RunConfig, planned: Plan, source: data.Source, replicas: int) -> dict[str, Any]:
    return {
        "image_size": planned.image_size,
        "crop_fraction": crop_fraction(config.data, source),
        "batch_size": config.train.batch_size,
        "replicas": replicas,
    }


def crop_fraction(config: DataConfig, source: data.Source) -> float:
    """Share of the shorter side that the centre crop keeps."""
    return config.crop_fraction or source.crop_fraction
