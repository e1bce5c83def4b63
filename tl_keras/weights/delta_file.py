"""The record in a delta file: the base that its arrays are applied to, and the model that they make. No Keras.

A delta file is an `.npz` with the variables that a run has changed, each under its path, float32, and `meta`, JSON. Two files of a run
have this form: `delta.npz`, and `adapters.npz` of LoRA, whose `meta` has the further keys of `strategies.lora.save`.
"""

import json
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import DamagedError
from tl_keras.utils.files import META, READ_ERRORS
from tl_keras.utils.hashing import fingerprint

FILE = "delta.npz"
FORMAT, BASE_HASH, RECIPE = "format", "base_sha256", "recipe"
FORMAT_NAME = "tl_keras delta 1"
MAX_META_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Recipe:
    """The settings that make the model of a run again, up to its training.

    Attributes:
        backbone, stem, image_size, normalization, head: arguments of `build_classifier`.
        weights: value of the setting `weights` of the run: a variant, or an absolute path.
        class_names: names of the logits, those of `extra_classes` last.
        crop_fraction, interpolation: crop and resize of the images.
        dataset, fingerprint: the data that the run was trained on.
    """

    backbone: str
    weights: str
    stem: str
    image_size: int
    normalization: str
    head: str
    extra_classes: int
    class_names: tuple[str, ...]
    crop_fraction: float
    interpolation: str
    dataset: str
    fingerprint: str


def hash_arrays(arrays: Mapping[str, Any]) -> str:
    """Return the SHA-256 of arrays by variable path, whatever file they come from. They are compared as float32."""
    parts: list[bytes | np.ndarray] = []
    for path in sorted(arrays):
        array = np.ascontiguousarray(arrays[path], "float32")
        parts += [f"{path} {array.shape}".encode(), array]
    return fingerprint("weights", parts)


def meta_of(recipe: Recipe, base_hash: str) -> dict[str, Any]:
    """Return the `meta` of a delta file."""
    return {FORMAT: FORMAT_NAME, BASE_HASH: base_hash, RECIPE: asdict(recipe)}


def is_delta(path: Path) -> bool:
    """Return True if the file at `path` says that it is a delta file."""
    with suppress(DamagedError):
        return read_meta(path).get(FORMAT) == FORMAT_NAME
    return False


def read_meta(path: Path) -> dict[str, Any]:
    """Return the `meta` of a delta file. The file may be hostile: nothing else is read, and nothing is unpickled.

    Raises:
        DamagedError: The file has none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(f"{META}.npy").file_size > MAX_META_BYTES:
                raise ValueError("its record is too large")
            with archive.open(f"{META}.npy") as file:
                meta = json.loads(str(np.lib.format.read_array(file, allow_pickle=False)))
        if not isinstance(meta, dict):
            raise ValueError("its record is no mapping")
        return meta
    except (*READ_ERRORS, MemoryError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read as a delta file ({error}). Expected the {FILE} of a finished run.") from error


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a delta file. Raise DamagedError if its values have other types than those of a recipe."""
    stored: Any = read_meta(path).get(RECIPE)
    try:
        recipe = Recipe(**{**stored, "class_names": tuple(stored["class_names"])})
        types = {name: getattr(recipe, name) for name in Recipe.__dataclass_fields__}
        if any(type(value) is not Recipe.__annotations__[name] for name, value in types.items() if name != "class_names"):
            raise TypeError("a value has another type")
        if any(type(name) is not str for name in recipe.class_names) or len(recipe.class_names) < 2:
            raise TypeError("the class names are no texts")
        return recipe
    except (TypeError, LookupError) as error:
        raise DamagedError(f"{path} cannot be read as a delta file ({error}). Expected the {FILE} of a finished run.") from error
