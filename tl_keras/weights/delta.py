"""Delta files: what a run has changed, without the weights that it left frozen.

A run whose strategy freezes weights of its base writes `delta.npz`. It has the trained variables and the BatchNorm statistics that
moved, and the SHA-256 of all other variables. `restore_model` gives the model of the run, bit-identical, from the delta and its base.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.backbones import build_classifier, get_backbone, variables_by_path
from tl_keras.errors import DamagedError
from tl_keras.utils.files import write_npz
from tl_keras.weights import delta_file, formats
from tl_keras.weights.delta_file import Recipe

if TYPE_CHECKING:
    import keras


def save_delta(path: Path, model: "keras.Model", changed: Collection[str], recipe: Recipe) -> None:
    """Write the variables of `model` that training has changed to `path` (.npz, nothing pickled).

    Args:
        model: the trained model.
        changed: paths of the changed variables.
        recipe: how the model is made again.
    """
    variables = variables_by_path(model)
    arrays = {name: variable.numpy() for name, variable in variables.items() if variable.path in changed}
    base = {name: variable.numpy() for name, variable in variables.items() if name not in arrays}
    write_npz(path, arrays, meta=delta_file.meta_of(recipe, delta_file.hash_arrays(base)))


def apply_delta(path: Path, model: "keras.Model") -> None:
    """Set `model`, which has the weights of the base, to the model that the delta was saved from.

        model = tl_keras.build_model("efficientnet_lite0", 37)
        tl_keras.weights.apply_delta(Path("runs/pets/delta.npz"), model)

    Args:
        path: a delta file: `delta.npz`, or `adapters.npz` of LoRA.
        model: classifier with the classes of the run. The values of its head do not matter.

    Raises:
        DamagedError: The file is damaged, or belongs to other weights or to a model with other variables. `model` is unchanged then.
    """
    variables = variables_by_path(model)
    arrays, meta = formats.read_tensors(path, model), delta_file.read_meta(path)
    base = {name: variable.numpy() for name, variable in variables.items() if name not in arrays}
    if delta_file.hash_arrays(base) != meta.get(delta_file.BASE_HASH):
        raise DamagedError(
            f"{path} was trained on other weights than those of the model: the SHA-256 of the {len(base)} variables that it does not hold "
            "is another. Load the weights of `weights` of the run first, with its `stem`, `image_size` and number of classes."
        )
    values = _merged(path, model) if "rank" in meta else arrays
    for name, value in values.items():
        if name not in variables or tuple(variables[name].shape) != tuple(value.shape):
            expected = tuple(variables[name].shape) if name in variables else "no such variable"
            raise DamagedError(f"{path}: {name} has shape {tuple(value.shape)}; the model expects {expected}.")
    for name, value in values.items():
        variables[name].assign(value)


def _merged(path: Path, model: "keras.Model") -> dict[str, Any]:
    """Return the variables of `model` with the adapters at `path` merged into its kernels."""
    from tl_keras.strategies import lora

    return {name: variable.numpy() for name, variable in variables_by_path(lora.load(path, model)).items()}


def restore_model(path: Path, weights_dir: str = "") -> "keras.Model":
    """Return the model of the run that wrote the delta at `path`: its base, found by the setting `weights` of the run, and the delta.

    Returns:
        A classifier, float32 RGB (b, size, size, 3) in 0..255 -> logits (b, classes), whose variables are those of `model.keras`.

    Raises:
        MissingError: The base is not there. The message says how to get it.
        DamagedError: The delta is damaged, or the base has changed.
    """
    from tl_keras.weights.load import load_weights
    from tl_keras.weights.locate import find_base

    recipe, base_path = delta_file.read_recipe(path), find_base(path, weights_dir)
    model = build_classifier(
        recipe.backbone,
        len(recipe.class_names),
        image_size=recipe.image_size,
        stem=recipe.stem,
        normalization=_normalization(recipe),
        head=recipe.head,
    )
    load_weights(model, recipe.backbone, base_path, weights_dir=weights_dir)
    apply_delta(path, model)
    return model


def _normalization(recipe: Recipe) -> str:
    """Return the argument of `build_classifier`, which takes `internal` only as the default of a backbone."""
    return "weights" if recipe.normalization == get_backbone(recipe.backbone).normalization else recipe.normalization
