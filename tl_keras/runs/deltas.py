"""Writes what a run has trained, without the weights that it left frozen: `delta.npz`, or `adapters.npz` of a LoRA run."""

from pathlib import Path
from typing import TYPE_CHECKING

from tl_keras import weights
from tl_keras.backbones import variables_by_path
from tl_keras.runs.setup import RunSetup
from tl_keras.weights import delta_file

if TYPE_CHECKING:
    import keras


def merge_adapters(setup: RunSetup, run_dir: Path, fingerprint: str) -> "keras.Model":
    """Return the model to test and save. Adapters are written to a file of their own and merged.

    Args:
        fingerprint: fingerprint of the data that the run was trained on.
    """
    from tl_keras.strategies import lora

    if not lora.lora_layers(setup.model):
        return setup.model
    changed, recipe = changed_paths(setup), _recipe(setup, fingerprint)
    meta = delta_file.meta_of(recipe, delta_file.hash_arrays(lora.base_arrays(setup.model, changed))) if recipe else {}
    lora.save(run_dir / lora.FILE, setup.model, changed, meta)
    with setup.runtime.scope():
        return lora.merge(setup.model)


def write_delta(setup: RunSetup, run_dir: Path, fingerprint: str) -> None:
    """Write `delta.npz` if the strategy left weights frozen that a file has. Adapters have a file of their own.

    Args:
        fingerprint: fingerprint of the data that the run was trained on.
    """
    from tl_keras.strategies import lora

    changed, recipe = changed_paths(setup), _recipe(setup, fingerprint)
    is_partial = any(variable.path not in changed for variable in setup.model.trainable_weights)
    if recipe and is_partial and not lora.lora_layers(setup.model):
        weights.save_delta(run_dir / delta_file.FILE, setup.model, changed, recipe)


def changed_paths(setup: RunSetup) -> set[str]:
    """Return the paths of the variables that any phase updates: trained ones, and statistics of BatchNorm that move."""
    from tl_keras.strategies import freezing

    return {path for phase in setup.phases for path in freezing.updated_paths(setup.stages, phase)}


def _recipe(setup: RunSetup, fingerprint: str) -> delta_file.Recipe | None:
    """Return how the model of the run is made again, or None if frozen weights are new, so that no file has them."""
    info, changed = setup.loading_info, changed_paths(setup)
    variables = variables_by_path(setup.model)
    if info is None or any(path not in variables or variables[path].path not in changed for path in info.missing):
        return None
    config, resolved = setup.resolved.config, setup.resolved
    return delta_file.Recipe(
        backbone=resolved.backbone.name,
        weights=config.model.weights,
        stem=config.model.stem,
        image_size=setup.geometry.image_size,
        normalization=resolved.normalization,
        head=config.model.head,
        extra_classes=config.data.extra_classes,
        class_names=tuple(setup.source.class_names),
        crop_fraction=setup.geometry.crop_fraction,
        interpolation=setup.geometry.interpolation,
        dataset=setup.source.name,
        fingerprint=fingerprint,
    )
