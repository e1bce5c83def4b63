"""Resolves a configuration: every name looked up, every default filled in, before data, weights or a model are loaded."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras import backbones, data, strategies, weights
from tl_keras.config import DataConfig, ModelConfig, RunConfig
from tl_keras.data.geometry import Geometry
from tl_keras.errors import MissingError
from tl_keras.results.split_record import SplitRecord
from tl_keras.runs.run_data import with_recorded_splits
from tl_keras.strategies import Phase, Strategy, grid
from tl_keras.utils.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    import keras


SOURCE_SETTINGS = (  # what a data set is opened with
    "dataset", "data_dir", "label", "test_fraction", "on_corrupt", "rehash", "links", "group_by", "image_column", "label_column",
    "group_column", "split_column",
)  # fmt: skip


@dataclass(frozen=True)
class ResolvedRun:
    """Settings of a run in effect.

    Attributes:
        distribution: device strategy, `none` or `mirrored`. It is decided before everything else, since tf.distribute must be
            set up before TensorFlow's first operation; `build_setup` does so.
        geometry: crop and resize of the data set and the weights, without the size of the source images.
        normalization: input normalization of the model, never `weights`.
        strategy, phases: the fine-tuning strategy, and what it trains in which order.
    """

    config: RunConfig
    distribution: str
    backbone: backbones.Backbone
    geometry: Geometry
    normalization: str
    strategy: Strategy
    phases: tuple[Phase, ...]

    def weight_notes(self) -> list[str]:
        """Return a remark on stages with new weights that no phase trains, or nothing."""
        trained = {stage for phase in self.phases for stage in phase.trainable}
        random = [name for name, _ in self.backbone.stages if name not in trained]
        if self.config.model.weights != "none" or not random:
            return []
        strategy = self.config.train.strategy
        return [f"{', '.join(random)} keep random weights: `weights=none`, and `strategy={strategy}` does not train them; full does"]


def resolve(config: RunConfig) -> ResolvedRun:
    """Check every name and number of `config` against the tables. Fast; loads no TensorFlow, no data and no weights.

    Raises:
        ConfigError: A name is unknown or a combination is impossible; the message lists what is possible.
    """
    backbone = backbones.get_backbone(config.model.backbone)
    geometry = _geometry(config, backbone)
    data.get_augmentation(config.data.augmentation)
    data.parse_keep(config.data.keep)
    if config.train.grid:
        grid.parse(config.train.grid, config)
    strategies.check_weight_groups(backbone, config.train)
    strategy = strategies.parse(config.train.strategy)
    return ResolvedRun(
        config=config,
        distribution=config.runtime.distribution,
        backbone=backbone,
        geometry=geometry,
        normalization=_normalization(config.model, backbone),
        strategy=strategy,
        phases=strategies.build_phases([name for name, _ in backbone.stages], config.train),
    )


def _geometry(config: RunConfig, backbone: backbones.Backbone) -> Geometry:
    """Return crop and resize in effect: those of the settings, else those that belong to the weights."""
    own = weights.preprocessing_of(backbone.name, config.model.weights)
    image_size = backbones.resolve_image_size(
        backbone,
        image_size=config.model.image_size or own.image_size,
        stem=config.model.stem,
        normalization=config.model.normalization,
    )
    default_crop = own.crop_fraction if own.for_all or data.find_dataset(config.data).crops else 1.0
    interpolation = own.interpolation if config.data.interpolation == "weights" else config.data.interpolation
    return Geometry(image_size, config.data.crop_fraction or default_crop, interpolation)


def _normalization(config: ModelConfig, backbone: backbones.Backbone) -> str:
    """Return the normalization in effect; weights variants of one backbone may need different ones."""
    return weights.normalization_of(backbone.name, config.weights) if config.normalization == "weights" else config.normalization


def check_available(resolved: ResolvedRun, given: SplitRecord | None = None) -> None:
    """Check that the strategy fits the model, and that data and weights are available, before any run starts.

    Args:
        given: fixed splits of the data set; None: its own.

    Raises:
        ConfigError: The strategy names layers that the model does not have, the data cannot be split as asked, or their classes do not fit
            the head.
        MissingError, DamagedError: The message lists everything that is missing or damaged, and how to get it.
    """
    check_strategy(resolved)
    config, missing = resolved.config, []
    for check in (lambda: locate_weights(config), lambda: _check_data(config, given)):
        try:
            check()
        except MissingError as error:
            missing.append(str(error))
    if missing:
        raise MissingError("\n".join(missing))


def _check_data(config: RunConfig, given: SplitRecord | None) -> None:
    source = load_source(config.data)
    source = source if given is None else with_recorded_splits(given, source)
    backbones.check_head(config.model.head, len(source.class_names))
    data.make_splits(source, config.data, config.seed)


def check_strategy(resolved: ResolvedRun) -> None:
    """Raise ConfigError if the model does not have the layers that the strategy names: those that LoRA adapts, or trained ones.

    A model is built to find out, which takes seconds. `resolve` has checked all other strategies.
    """
    lora_targets = resolved.strategy.targets if isinstance(resolved.strategy, strategies.Lora) else ()
    if not lora_targets and not any(phase.layers for phase in resolved.phases):
        return
    import_tensorflow()
    from tl_keras.strategies import freezing, lora

    stages = backbones.stage_layers(_template(resolved.config.model), resolved.backbone.name)
    if lora_targets:
        lora.match_layers(stages, lora_targets)
    for phase in resolved.phases:
        freezing.require_layers(stages, phase)


@lru_cache(maxsize=1)
def _template(config: ModelConfig) -> "keras.Model":
    """Return a model with the layers that `config` asks for; the rows of an experiment share it."""
    return backbones.build_classifier(config.backbone, 2, image_size=config.image_size, stem=config.stem)


def locate_weights(config: RunConfig) -> Path | None:
    """Return the verified weights file of `config`, or None for new weights."""
    return weights.find_weights_file(config.model.backbone, config.model.weights, config.model.weights_dir)


def hash_of_weights(config: RunConfig) -> str:
    """Return the SHA-256 of the weights that `config` gives by a path, or an empty string."""
    return weights.hash_of_weights(config.model.backbone, config.model.weights)


def load_source(config: DataConfig, *, for_scoring: bool = False) -> data.DatasetSource:
    """Return the data set of `config`; the runs of an experiment read it once. For `for_scoring` see `data.load_source`."""
    if data.find_dataset(config).loader == "tfds":
        import_tensorflow()
    own = {name: getattr(config, name) for name in SOURCE_SETTINGS}
    return _load_source(tuple(own.items()), for_scoring, data.state_of(config)).with_extra_classes(config.extra_classes)


@lru_cache(maxsize=1)
def _load_source(settings: tuple[tuple[str, Any], ...], for_scoring: bool, state: int) -> data.DatasetSource:
    """Open a data set. `state` is that of its files: a changed one is opened again."""
    return data.load_source(RunConfig().replace(**dict(settings)).data, for_scoring=for_scoring)
