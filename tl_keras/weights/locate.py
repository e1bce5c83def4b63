"""Finds the weights file of a setting, verifies it, or downloads it. Existing files are never deleted or overwritten."""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from tl_keras.backbones import get_backbone
from tl_keras.errors import ConfigError, DamagedError, MissingError, unknown
from tl_keras.utils import connectivity
from tl_keras.utils.files import is_path
from tl_keras.weights import delta_file, saved_model
from tl_keras.weights.download import RETRY_POLICY, download_hint, fetch
from tl_keras.weights.formats import FORMATS, split_choice
from tl_keras.weights.registry import WEIGHTS
from tl_keras.weights.trained_model import MODEL, find_trained_model, model_file, require_backbone
from tl_keras.weights.weights_file import WeightsFile, file_hash, verify

EMBEDDED = Path(__file__).parent / "embedded"
MAX_CHAIN = 16  # delta files, each of which is the base of the next


def find_weights_file(backbone_name: str, weights: str, weights_dir: str = "") -> Path | None:
    """Return the verified weights file of the setting `weights`. Download it if no cache has it and its host answers.

    Args:
        weights: `none`, a variant of the registry (`imagenet`), or the path of a weights file, a finished run, an export, a SavedModel or
            a delta file.
        weights_dir: directory that is searched first and receives downloads; empty: the caches of `weights_directories`.

    Returns:
        The path of the file, or of the directory of a SavedModel; None for `none`.

    Raises:
        ConfigError: `weights` is none of these, an unfinished run, or a model with another backbone.
        MissingError: The file is not available and cannot be downloaded. The message says how to get it.
        DamagedError: The hash of the file is not the published one.
    """
    backbone = get_backbone(backbone_name)
    if weights == "none":
        return None
    for entry in WEIGHTS.get(backbone.name, ()):
        if entry.variant == weights:
            return _embedded_file(entry) if entry.embedded else _find_or_fetch(entry, weights_dir)
    if any(entry.variant == weights for entries in WEIGHTS.values() for entry in entries):
        raise _no_variant(backbone.name, weights)
    return _user_file(backbone.name, weights, weights_dir)


def local_files(entry: WeightsFile, weights_dir: str = "") -> Iterator[Path]:
    """Yield the unverified local copies of an entry's file. `find_weights_file` takes the first."""
    directories = [EMBEDDED] if entry.embedded else weights_directories(entry, weights_dir)
    yield from (path for path in (directory / entry.name for directory in directories) if path.is_file())


def _no_variant(backbone_name: str, variant: str) -> MissingError:
    others = ", ".join(name for name, entries in WEIGHTS.items() if any(entry.variant == variant for entry in entries))
    available = ", ".join(entry.variant for entry in WEIGHTS.get(backbone_name, ())) or "none"
    return MissingError(
        f"`weights={variant}`: no {variant} weights are available for {backbone_name}. Available: {available}. "
        f"Give the path of a file ({', '.join(FORMATS)}) with such weights, or use a backbone that has them: {others}.",
    )


def _user_file(backbone_name: str, weights: str, weights_dir: str) -> Path:
    path = Path(weights).expanduser()
    file, choice = split_choice(path)
    if file.is_file() or (is_path(weights) and path.is_dir()):
        require_backbone(find_trained_model(weights), backbone_name)
        if path.is_file() and delta_file.is_delta(path):
            find_base(path, weights_dir)
        return model_file(path) if path.is_dir() else path
    if path.is_dir():
        raise ConfigError(
            f"no variant has this name. A directory is given with a separator: `weights=./{path}`.", setting="weights", value=path
        )
    path = file if choice else path
    if path.parent != Path(".") or path.name.endswith(tuple(FORMATS)):
        raise MissingError(f"`weights={weights}`: there is no such file. Looked for {path.absolute()}.")
    raise unknown(f"weights of {backbone_name}", weights, ["none", *(entry.variant for entry in WEIGHTS.get(backbone_name, ())), "PATH"])


def find_base(path: Path, weights_dir: str = "") -> Path:
    """Return the verified weights file that the delta file at `path` belongs to.

    Raises:
        MissingError: It is not there, and cannot be downloaded. The message says how to get it.
        DamagedError: The delta is damaged, or is its own base.
    """
    recipe = delta_file.read_recipe(path)
    _require_finite_chain(path)
    try:
        base = find_weights_file(recipe.backbone, recipe.weights, weights_dir)
    except MissingError as error:
        raise MissingError(
            f"{path} holds only what was trained, on the weights {recipe.weights} of {recipe.backbone}. {error} "
            f"Or use the {MODEL} of the run."
        ) from error
    if base is None:
        raise DamagedError(f"{path} says that it was trained on new weights, which no file has. Use the {MODEL} of the run.")
    return base


def _require_finite_chain(path: Path) -> None:
    """Raise DamagedError if a delta file is, through others, its own base."""
    for _ in range(MAX_CHAIN):
        path = Path(delta_file.read_recipe(path).weights)
        if not path.is_file() or not delta_file.is_delta(path):
            return
    raise DamagedError(f"{path} has more than {MAX_CHAIN} delta files below it, or is its own base.")


def hash_of_weights(backbone_name: str, weights: str) -> str:
    """Return the SHA-256 of the file that `weights` gives by its path, also that of a run or an export; "" for others."""
    path, _ = split_choice(Path(weights).expanduser())
    if any(entry.variant == weights for entry in WEIGHTS.get(get_backbone(backbone_name).name, ())):
        return ""
    if is_path(weights) and path.is_dir():
        path = model_file(path)
    if path.is_dir():
        return saved_model.hash_files(path)
    return file_hash(path) if path.is_file() else ""


def _embedded_file(entry: WeightsFile) -> Path:
    path = EMBEDDED / entry.name
    if not path.is_file():
        raise MissingError(f"{path}, which the package bundles, is absent. Reinstall the package, or recreate the file: make embedded.")
    return path


def _cache(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or default).expanduser()


def _package_cache() -> Path:
    return _cache("TL_KERAS_WEIGHTS", "~/.cache/tl_keras/weights")


def _keras_cache() -> Path:
    return _cache("KERAS_HOME", "~/.keras") / "models"


def _torch_cache() -> Path:
    return _cache("TORCH_HOME", "~/.cache/torch") / "hub" / "checkpoints"


# Publisher of a file -> caches to search; the first one receives downloads. Caches of other programs are shared, not copied.
CACHES: Mapping[str, tuple[Callable[[], Path], ...]] = MappingProxyType(
    {
        "keras": (_keras_cache, _package_cache),
        "torchvision": (_package_cache, _torch_cache),
        "augreg": (_package_cache,),
        "package_index": (_package_cache,),
    }
)


def weights_directories(entry: WeightsFile, weights_dir: str = "") -> list[Path]:
    """Return the directories that may hold the file of an entry. The first one receives downloads.

    They are `weights_dir` if given; for Keras Applications the Keras cache (`$KERAS_HOME` or `~/.keras`, `models/`); for all
    others `$TL_KERAS_WEIGHTS` or `~/.cache/tl_keras/weights`; for torchvision also the cache of torch.hub, which is only read; and
    the Python package that contains the file, if it is installed.
    """
    given = [Path(weights_dir).expanduser()] if weights_dir else []
    return [*given, *(cache() for cache in CACHES[entry.source]), *_package_directories(entry)]


def _package_directories(entry: WeightsFile) -> list[Path]:
    """Return where the installed Python package of an entry has its files; nothing is imported. Return [] if it is not installed."""
    spec = importlib.util.find_spec(entry.package.replace("-", "_")) if entry.package else None
    return [Path(location) / "models" for location in (spec.submodule_search_locations or ())] if spec else []


def describe_search(entry: WeightsFile, weights_dir: str = "") -> str:
    """Return, for a message, all that is searched for the file of an entry: directories, and a Python package that is not installed."""
    absent = [f"the Python package {entry.package} (not installed)"] if entry.package and not _package_directories(entry) else []
    return " or ".join([*map(str, weights_directories(entry, weights_dir)), *absent])


def _find_or_fetch(entry: WeightsFile, weights_dir: str) -> Path:
    directories = weights_directories(entry, weights_dir)
    if entry.non_commercial:
        print(f"note: the weights {entry.name} are under {entry.licence}: for non-commercial use only.", file=sys.stderr, flush=True)
    for path in (directory / entry.name for directory in directories):
        if path.is_file():
            verify(path, entry)
            return path
    if not entry.url:
        writable = [directory for directory in directories if directory not in _package_directories(entry)]
        raise MissingError(
            f"The weights file {entry.name} is not in {describe_search(entry, weights_dir)}. {download_hint(entry, writable)}"
        )
    if not connectivity.is_reachable(entry.url, RETRY_POLICY.timeout):
        raise MissingError(
            f"The weights file {entry.name} is not available, and {entry.url} does not answer. {download_hint(entry, directories)}"
        )
    return fetch(entry, directories[0])
