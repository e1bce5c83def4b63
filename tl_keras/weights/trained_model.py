"""Finds the model of a finished run, of an export or of a delta file that the setting `weights` names, and the facts about it.

Only JSON is read: `result.json` of a run, `labels.json` of an export, `config.json` in a `.keras` archive. Nothing is deserialised
into layers, and a SavedModel is not loaded.
"""

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_keras.backbones import LOGITS, get_backbone
from tl_keras.backbones.normalization import NORMALIZATIONS
from tl_keras.backbones.registry import INTERNAL
from tl_keras.config import INTERPOLATIONS
from tl_keras.errors import ConfigError, DamagedError, UserError
from tl_keras.utils.files import READ_ERRORS, is_path, read_json
from tl_keras.weights import delta_file

MODEL, SAVED_MODEL, SAVED_MODEL_GRAPH = "model.keras", "saved_model", "saved_model.pb"
ARCHIVE_CONFIG = "config.json"  # the entry of a .keras archive that describes its layers
RESULT, RUN_CONFIG, LABELS = "result.json", "config.json", "labels.json"
MAX_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True)
class TrainedModel:
    """The model that another training starts from, and the settings that it was trained with.

    Attributes:
        name: name for messages, e.g. `the run /home/me/runs/cifar`.
        backbone: name of its backbone; empty: unknown.
        class_names: names of its logits; empty: unknown.
        has_linear_head: False for a head of one logit, or with classes that had no images.
        normalization: key of NORMALIZATIONS, or `internal`; empty: unknown.
        image_size: side of its input in pixels; 0: unknown.
        crop_fraction: fraction of the shorter side that its centre crop kept; 0: unknown.
        interpolation: interpolation of its resize; empty: unknown.
        temperature: temperature that its head is divided by; 1: none.
        fingerprint: fingerprint of the data that it was trained on; empty: unknown.
        dataset: name of these data.
    """

    name: str
    backbone: str = ""
    class_names: tuple[str, ...] = ()
    has_linear_head: bool = True
    normalization: str = ""
    image_size: int = 0
    crop_fraction: float = 0.0
    interpolation: str = ""
    temperature: float = 1.0
    fingerprint: str = ""
    dataset: str = ""


def model_file(directory: Path) -> Path:
    """Return what holds the weights of a run or an export: its `model.keras`, or the directory of its SavedModel.

    Raises:
        ConfigError: The directory holds neither, or the model of an unfinished run, or one without weights that can be read.
    """
    if (directory / SAVED_MODEL_GRAPH).is_file():
        return directory
    for export in (directory, directory / "keras"):  # an export in all formats has a directory for each
        if (export / LABELS).is_file():
            return _model_of_export(export)
    if (directory / RESULT).is_file():
        return _model_of_run(directory)
    if (directory / RUN_CONFIG).is_file():
        raise ConfigError(
            f"{directory} holds an unfinished run. Run its command again to finish it, or choose a run with a {RESULT}.",
            setting="weights",
            value=directory,
        )
    raise ConfigError(
        f"the directory holds no trained model. Expected that of a finished run ({RESULT} and {MODEL}), an export ({LABELS}), or a "
        f"SavedModel ({SAVED_MODEL_GRAPH}).",
        setting="weights",
        value=directory,
    )


def _model_of_run(directory: Path) -> Path:
    if not (directory / MODEL).is_file():
        raise ConfigError(
            f"the run has no {MODEL}, since it ran with `save_model=false`. Train it in another `run_dir` with `save_model=true`.",
            setting="weights",
            value=directory,
        )
    return directory / MODEL


def _model_of_export(directory: Path) -> Path:
    for path in (directory / MODEL, directory / SAVED_MODEL):
        if path.exists():
            return path
    raise ConfigError(
        f"the export holds neither {MODEL} nor {SAVED_MODEL}. Other formats do not keep the weights as the backbone has them: use the "
        "run, or export it with `format=keras`.",
        setting="weights",
        value=directory,
    )


def find_trained_model(weights: str | Path) -> TrainedModel | None:
    """Return the facts about the model that `weights` names; None for variants, other weights files and absent paths.

    Args:
        weights: value of the setting, or a path from `model_file`.

    Raises:
        ConfigError: A directory holds no finished model.
        DamagedError: The record of a run, an export or a delta file cannot be read.
    """
    path = Path(weights).expanduser()
    if not is_path(str(weights)) or not path.exists():
        return None
    if path.is_dir():
        path = model_file(path)
    elif delta_file.is_delta(path):
        return _of_delta(path)
    elif not _is_keras_archive(path):
        return None
    if path.name == MODEL and (path.parent / RESULT).is_file():
        return _of_run(path.parent)
    if path.name in (MODEL, SAVED_MODEL) and (path.parent / LABELS).is_file():
        return _of_export(path)
    return TrainedModel(f"the model {path}") if path.is_dir() else TrainedModel(f"the model {path}", **_facts_of_archive(path))


def find_fitting_model(backbone_name: str, weights: str) -> TrainedModel | None:
    """Return the model that `find_trained_model` finds, if it may have this backbone; None also where that raises an error."""
    with suppress(UserError):
        trained = find_trained_model(weights)
        require_backbone(trained, backbone_name)
        return trained
    return None


def require_backbone(trained: TrainedModel | None, backbone_name: str) -> None:
    """Raise ConfigError if `trained` is known to have another backbone."""
    if trained is None or not trained.backbone or _architecture(trained.backbone) == _architecture(backbone_name):
        return
    raise ConfigError(
        f"expected weights of {backbone_name}, and {trained.name} has the backbone {trained.backbone}. Use `backbone={trained.backbone}`, "
        f"or weights of {backbone_name}.",
        setting="backbone",
        value=backbone_name,
    )


def _architecture(backbone_name: str) -> tuple[str, dict[str, Any]]:
    """Return what decides the layers of a backbone. `mobilenet` and `mobilenet_1.0` are the same network."""
    backbone = get_backbone(backbone_name)
    return backbone.builder, {name: value for name, value in backbone.options.items() if (name, value) != ("alpha", 1.0)}


def _is_keras_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return ARCHIVE_CONFIG in archive.namelist()
    except READ_ERRORS:
        return False


def facts_of_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts in the `result.json` of a run, by the names of the attributes. Exports keep them as `trained` in `labels.json`."""
    model, data, config = result["model"], result["data"], result["config"]
    return {
        "backbone": model["backbone"],
        "has_linear_head": config.get("head", "linear") == "linear" and not config.get("extra_classes"),
        "normalization": model["normalization"],
        "image_size": model["image_size"],
        "crop_fraction": model["crop_fraction"],
        "interpolation": model["interpolation"],
        "fingerprint": data["fingerprint"],
        "dataset": data["dataset"],
    }


def _of_run(directory: Path) -> TrainedModel:
    result = read_json(directory / RESULT)
    try:
        class_names = tuple(result["data"]["class_names"])
        return _checked(directory / RESULT, TrainedModel(f"the run {directory}", class_names=class_names, **facts_of_result(result)))
    except (LookupError, TypeError, AttributeError) as error:
        raise _unreadable(directory / RESULT, error) from error


def _of_export(path: Path) -> TrainedModel:
    """Return the facts in `labels.json` beside the exported model; what it does not say, from the archive."""
    labels = path.parent / LABELS
    record = read_json(labels)
    if not isinstance(record, Mapping) or not isinstance(record.get("class_names"), list):
        raise _unreadable(labels, ValueError("it lists no class names"))
    facts = {} if path.is_dir() else _facts_of_archive(path)
    try:
        facts |= {**record.get("trained", {}), "temperature": record.get("temperature") or 1.0}
        return _checked(labels, TrainedModel(f"the export {path.parent}", class_names=tuple(record["class_names"]), **facts))
    except TypeError as error:
        raise _unreadable(labels, error) from error


def _of_delta(path: Path) -> TrainedModel:
    recipe = delta_file.read_recipe(path)
    return _checked(
        path,
        TrainedModel(
            f"the delta {path}",
            recipe.backbone,
            recipe.class_names,
            recipe.head == "linear" and not recipe.extra_classes,
            recipe.normalization,
            recipe.image_size,
            recipe.crop_fraction,
            recipe.interpolation,
            fingerprint=recipe.fingerprint,
            dataset=recipe.dataset,
        ),
    )


def _checked(path: Path, trained: TrainedModel) -> TrainedModel:
    """Return `trained` if its values are possible. The file at `path` may be hostile or hand-written."""
    texts = (trained.backbone, trained.normalization, trained.interpolation, trained.fingerprint, trained.dataset, *trained.class_names)
    numbers = (trained.image_size, trained.crop_fraction, trained.temperature)
    valid = all(type(text) is str for text in texts) and all(type(number) in (int, float) for number in numbers)
    valid = valid and type(trained.has_linear_head) is bool
    valid = valid and type(trained.image_size) is int and 0 <= trained.image_size and 0 <= trained.crop_fraction <= 1
    valid = valid and trained.temperature > 0 and math.isfinite(trained.temperature)
    valid = valid and trained.normalization in ("", INTERNAL, *NORMALIZATIONS) and trained.interpolation in ("", *INTERPOLATIONS)
    valid = valid and (not trained.backbone or _is_backbone(trained.backbone))
    valid = valid and len(set(trained.class_names)) == len(trained.class_names)
    if not valid:
        raise _unreadable(path, ValueError("it holds impossible values"))
    return trained


def _is_backbone(name: str) -> bool:
    try:
        return bool(get_backbone(name))
    except ConfigError:
        return False


def _unreadable(path: Path, error: Exception) -> DamagedError:
    return DamagedError(f"{path} cannot be read as the record of a model ({error!r}). Write it again, or give a weights file instead.")


def _facts_of_archive(path: Path) -> dict[str, Any]:
    """Return backbone, normalization and image size as the layers of a `.keras` archive have them, as far as they are ours."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(ARCHIVE_CONFIG).file_size > MAX_JSON_BYTES:
                raise ValueError("its configuration is too large")
            config = _inner_model(json.loads(archive.read(ARCHIVE_CONFIG)))
        layers = {layer["config"]["name"]: layer for layer in config["layers"]}
        name = config["name"]
        if LOGITS not in layers or not _is_backbone(name):
            return {}
        return {
            "backbone": name,
            "image_size": int(layers["image"]["config"]["batch_shape"][1]),
            "normalization": _normalization(name, layers),
        }
    except (*READ_ERRORS, RecursionError):
        return {}  # a model of other software: the arrays decide


def _inner_model(model: Any) -> Any:
    """Return the configuration of the classifier: the model itself, or one of its layers, as in exports."""
    inner = [layer for layer in model["config"]["layers"] if layer["class_name"] == "Functional"]
    return inner[0]["config"] if inner else model["config"]


def _normalization(backbone_name: str, layers: Mapping[str, Any]) -> str:
    """Return the key of the normalization that the layer `normalization` computes, or "" if none does."""
    layer = layers.get("normalization")
    if layer is None or layer["class_name"] != "Rescaling":
        return INTERNAL if get_backbone(backbone_name).normalization == INTERNAL else ""
    scale, offset = layer["config"]["scale"], layer["config"]["offset"]
    for name, entry in NORMALIZATIONS.items():
        wanted = [-mean / std for mean, std in zip(entry.mean, entry.std, strict=True)]
        if _is_close(scale, [1 / std for std in entry.std]) and _is_close(offset, wanted):
            return name
    return ""


def _is_close(values: Sequence[float], wanted: Sequence[float]) -> bool:
    return len(values) == len(wanted) and all(math.isclose(*pair, abs_tol=1e-6) for pair in zip(values, wanted, strict=True))
