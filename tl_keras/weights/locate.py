"""Find a weights file, verify it, or fetch it. A file that the user has is never deleted or overwritten."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from tl_keras.backbones import get_backbone
from tl_keras.errors import MissingError, unknown
from tl_keras.utils import connectivity
from tl_keras.weights.download import PATIENCE, fetch, how_to_get
from tl_keras.weights.load import READERS
from tl_keras.weights.registry import WEIGHTS
from tl_keras.weights.verify import verify
from tl_keras.weights.weights_file import WeightsFile

EMBEDDED = Path(__file__).parent / "embedded"


def find_weights_file(backbone_name: str, weights: str, weights_dir: str = "") -> Path | None:
    """The weights file that `--weights` names, verified; fetched where it is not at hand and its host answers.

    Args:
        weights: `none`, a variant of the registry (`imagenet`), or the path of a file.
        weights_dir: where files are looked for first and fetched to; empty: the caches of `weights_directories`.

    Returns:
        The file, or None for `none`.

    Raises:
        ConfigError: `weights` is none of these.
        MissingError: the file is neither at hand nor obtainable; the message says how to get it.
        DamagedError: the file's hash is not the published one.
    """
    backbone = get_backbone(backbone_name)
    if weights == "none":
        return None
    for row in WEIGHTS.get(backbone.name, ()):
        if row.variant == weights:
            return _embedded(row) if row.embedded else _obtain(row, weights_directories(row, weights_dir))
    if any(row.variant == weights for rows in WEIGHTS.values() for row in rows):
        raise _no_variant(backbone.name, weights)
    return _own_file(backbone.name, weights)


def found_files(row: WeightsFile, weights_dir: str = "") -> Iterator[Path]:
    """The copies of a row's file that are at hand, unverified; the first is the one that `find_weights_file` takes."""
    directories = [EMBEDDED] if row.embedded else weights_directories(row, weights_dir)
    yield from (path for path in (directory / row.name for directory in directories) if path.is_file())


def _no_variant(backbone_name: str, variant: str) -> MissingError:
    having = ", ".join(name for name, rows in WEIGHTS.items() if any(row.variant == variant for row in rows))
    own = ", ".join(row.variant for row in WEIGHTS.get(backbone_name, ())) or "none"
    return MissingError(
        f"`weights={variant}`: there are no {variant} weights of {backbone_name} that can be fetched; there are: {own}. "
        f"Give the path of a file ({', '.join(READERS)}) that holds them, or use a backbone that has them: {having}.",
    )


def _own_file(backbone_name: str, weights: str) -> Path:
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if path.parent != Path(".") or path.name.endswith(tuple(READERS)):
        raise MissingError(f"`weights={weights}`: there is no such file. Looked for {path.absolute()}.")
    raise unknown(f"weights of {backbone_name}", weights, ["none", *(row.variant for row in WEIGHTS.get(backbone_name, ())), "PATH"])


def _embedded(row: WeightsFile) -> Path:
    path = EMBEDDED / row.name
    if not path.is_file():
        raise MissingError(f"{path}, which the package should carry, is not there. Reinstall the package, or make it anew: make embedded.")
    return path


def _cache(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or default).expanduser()


def _own_cache() -> Path:
    return _cache("TL_KERAS_WEIGHTS", "~/.cache/tl_keras/weights")


def _keras_cache() -> Path:
    return _cache("KERAS_HOME", "~/.keras") / "models"


def _torch_cache() -> Path:
    return _cache("TORCH_HOME", "~/.cache/torch") / "hub" / "checkpoints"


# Who publishes a file -> where it may lie; the first is where it is fetched to. The other programs' caches are shared, not copied.
CACHES: Mapping[str, tuple[Callable[[], Path], ...]] = MappingProxyType(
    {"keras": (_keras_cache, _own_cache), "torchvision": (_own_cache, _torch_cache), "augreg": (_own_cache,)}
)


def weights_directories(row: WeightsFile, weights_dir: str = "") -> list[Path]:
    """Where the file of a row may lie, the first place being the one to fetch to.

    `weights_dir` if given; then for Keras Applications the Keras cache (`$KERAS_HOME` or `~/.keras`, `models/`), for all others
    `$TL_KERAS_WEIGHTS` or `~/.cache/tl_keras/weights`; and, for torchvision, the cache of torch.hub, which is only read.
    """
    caches = [place() for place in CACHES[row.source]]
    return [Path(weights_dir).expanduser(), *caches] if weights_dir else caches


def _obtain(row: WeightsFile, directories: list[Path]) -> Path:
    if row.non_commercial:
        print(f"note: the weights {row.name} are under {row.licence}: for non-commercial use only.", file=sys.stderr, flush=True)
    for path in (directory / row.name for directory in directories):
        if path.is_file():
            verify(path, row)
            return path
    if not connectivity.is_reachable(row.url, PATIENCE.timeout):
        raise MissingError(f"The weights file {row.name} is not at hand, and {row.url} does not answer. {how_to_get(row, directories)}")
    return fetch(row, directories[0])
