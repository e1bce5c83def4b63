"""`tl-keras weights ACTION`: what can be had, what is at hand, and what is in it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tl_keras.backbones import LOGITS, Backbone, build_classifier, get_backbone, resolve_image_size
from tl_keras.cli.flags import CommandFlags, dispatch
from tl_keras.errors import ConfigError, DamagedError, MissingError, UserError, unknown
from tl_keras.utils import tensorflow_import
from tl_keras.weights.formats import Entry, list_tensors
from tl_keras.weights.locate import find_weights_file, found_files, weights_directories
from tl_keras.weights.name_maps import FLAX, TORCHVISION
from tl_keras.weights.registry import WEIGHTS, get_weights, normalization_of
from tl_keras.weights.verify import verify
from tl_keras.weights.weights_file import WeightsFile

IMAGENET_CLASSES = 1000
OUTPUT_SUFFIX = ".weights.h5"
NAME_HELP = "NAME is a backbone, for its default weights, or backbone:variant."


def weights(arguments: Sequence[str]) -> None:
    """List, fetch, verify, convert and inspect files of pre-trained weights."""
    dispatch(arguments, ACTIONS, USAGE, "action of weights")


class _Action:
    """The words and flags of one action: a function's docstring is its help, and its operand is the word before the flags."""

    def __init__(self, action: str, operand: str, help: str | None, *, settings: Sequence[str] = (), **extra: tuple[str, str]):
        self._operand, self._needed = operand.strip("[]"), bool(operand) and not operand.startswith("[")
        words = f"tl-keras weights {action} {operand}".strip()
        self._flags = CommandFlags(f"{words} --flags\n\n{help}", settings=settings, extra=extra)
        self.value = self._flags.value

    def parse(self, arguments: Sequence[str]) -> str | None:
        """The operand (empty if left out), the flags being set; None where help is asked for, which is printed."""
        takes = self._operand and arguments and not arguments[0].startswith("-")
        operand, flags = (arguments[0], arguments[1:]) if takes else ("", arguments)
        if self._flags.parse(flags) is None:
            return None
        if self._needed and not operand:
            raise ConfigError(f"{self._operand} is needed. See --help.")
        return operand


WEIGHTS_DIR = ("", "directory where weights files lie and are fetched to, before the caches")


def _list(arguments: Sequence[str]) -> None:
    """List the weights that can be had by name, those of each backbone with its default first."""
    if _Action("list", "", _list.__doc__).parse(arguments) is None:
        return
    for backbone, rows in WEIGHTS.items():
        print(backbone)
        for row in rows:
            print(f"  {row.variant:<12} {', '.join(_facts(backbone, row))}")


def _facts(backbone: str, row: WeightsFile) -> Iterator[str]:
    yield row.name + (f" ({row.size / 2**20:.1f} MiB)" if row.size else "")
    if row.accuracy:
        yield f"ImageNet {' / '.join(f'{value:g}' for value in row.accuracy)} %"
    scaling = f" {row.resize} -> {row.crop} px {row.interpolation}" if row.resize else ""
    yield f"normalisation {normalization_of(backbone, row.variant)}{scaling}"
    yield row.licence + (" (non-commercial)" if row.non_commercial else "")
    yield row.hash_text


def _download(arguments: Sequence[str]) -> None:
    action = _Action("download", "NAME", f"Fetch a weights file, unless it is at hand, and verify it. {NAME_HELP}", weights_dir=WEIGHTS_DIR)
    if name := action.parse(arguments):
        backbone, row = _named(name)
        print(find_weights_file(backbone, row.variant, action.value("weights_dir")))


def _named(name: str) -> tuple[str, WeightsFile]:
    """The backbone and the row that `backbone` or `backbone:variant` names."""
    backbone, _, variant = name.partition(":")
    if backbone not in WEIGHTS:
        raise unknown("backbone with weights", backbone, WEIGHTS)
    row = get_weights(backbone, variant) if variant else WEIGHTS[backbone][0]
    if row is None:
        raise unknown(f"weights of {backbone}", variant, [row.variant for row in WEIGHTS[backbone]])
    return backbone, row


def _verify(arguments: Sequence[str]) -> None:
    help = f"Verify every weights file that is at hand, or those of NAME: hash, size, and that it can be read. {NAME_HELP}"
    action = _Action("verify", "[NAME]", help, weights_dir=WEIGHTS_DIR)
    name = action.parse(arguments)
    if name is None:
        return
    weights_dir = action.value("weights_dir")
    rows = [_named(name)[1]] if name else [row for rows in WEIGHTS.values() for row in rows]
    files = {path: row for row in rows for path in found_files(row, weights_dir)}
    if name and not files:
        raise MissingError(f"{rows[0].name} is not in {' or '.join(map(str, weights_directories(rows[0], weights_dir)))}.")
    num_damaged = sum(not _report(path, row) for path, row in files.items())
    if num_damaged:
        raise DamagedError(f"{num_damaged} of {len(files)} files are not what they should be: see above.")


def _report(path: Path, row: WeightsFile) -> bool:
    """Print a line on a file; whether it is sound."""
    try:
        verify(path, row)
        state = f"sound: {row.hash_text}; {len(list_tensors(path))} tensors"
    except UserError as error:
        print(f"DAMAGED  {path}\n         {error}", flush=True)
        return False
    print(f"ok       {path}\n         {state}, {path.stat().st_size:,} bytes, {row.licence}", flush=True)
    return True


def _inspect(arguments: Sequence[str]) -> None:
    action = _Action("inspect", "FILE", "List the tensors of a weights file: names, shapes, dtypes. Nothing in it is executed.")
    if file := action.parse(arguments):
        entries = list_tensors(_existing(file))
        width = max((len(entry.name) for entry in entries), default=0)
        for entry in entries:
            print(f"{_printable(entry.name):<{width}}  {entry.dtype:<8}  {entry.shape}")
        print(f"{len(entries)} tensors")


def _printable(text: str) -> str:
    """Names come from outside: no control characters reach the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _existing(file: str) -> Path:
    path = Path(file).expanduser()
    if not path.is_file():
        raise MissingError(f"There is no file {path.absolute()}.")
    return path


def _convert(arguments: Sequence[str]) -> None:
    action = _Action(
        "convert",
        "FILE",
        f"Write the weights of a file as {OUTPUT_SUFFIX} of a backbone with all its classes, every tensor accounted for.",
        settings=("stem", "image_size"),
        backbone=("", "backbone whose weights they are; see `list backbones`"),
        output=("", f"file to write; it ends in {OUTPUT_SUFFIX}"),
    )
    if not (file := action.parse(arguments)):
        return
    path, output, backbone = _existing(file), Path(action.value("output")), get_backbone(action.value("backbone"))
    if not output.name.endswith(OUTPUT_SUFFIX):
        raise ConfigError(f"expected a file that ends in {OUTPUT_SUFFIX}.", setting="output", value=output)
    row = get_weights(backbone.name, path.name)
    options = {"image_size": action.value("image_size") or (row.crop if row else 0), "stem": action.value("stem")}
    resolve_image_size(backbone, **options)
    num_classes = _num_classes(backbone, list_tensors(path))
    tensorflow_import.quiet_tensorflow()
    from tl_keras.utils.files import atomic_write
    from tl_keras.weights.load import load_weights

    model = build_classifier(backbone.name, num_classes, **options)
    account = load_weights(model, backbone.name, path)
    with atomic_write(output) as temporary:
        model.save_weights(temporary)
    print(f"{output}: {account['loaded']} of {len(model.weights)} variables from {path.name}; {num_classes} classes")
    for kind in ("left_out", "resized", "unused"):
        for name, reason in account.get(kind, {}).items():
            print(f"  {kind.replace('_', ' ')}: {_printable(name)}: {reason}")


def _num_classes(backbone: Backbone, entries: Sequence[Entry]) -> int:
    """As many as the head in the file has; ImageNet's where there is none that fits, and the head then stays new."""
    biases = set(_head_biases(backbone))
    hidden = any(entry.name.startswith("pre_logits/") for entry in entries)
    found = [entry.shape[0] for entry in entries if entry.name in biases and len(entry.shape) == 1 and not hidden]
    return found[0] if found else IMAGENET_CLASSES


def _head_biases(backbone: Backbone) -> Iterator[str]:
    """What the bias of the classifier is called, by this package, by Keras's stores, and by those who publish weights."""
    yield from (f"{LOGITS}/bias", f"{LOGITS}/1")
    for naming in (TORCHVISION, FLAX):
        if backbone.name in naming.moves:
            moves = naming.moves[backbone.name](**backbone.options)
            yield from (move.tensor for move in moves if move.variable == f"{LOGITS}/bias")


ACTIONS: Mapping[str, Callable[[Sequence[str]], None]] = MappingProxyType(
    {"list": _list, "download": _download, "verify": _verify, "convert": _convert, "inspect": _inspect}
)

USAGE = f"""tl-keras weights ACTION

{weights.__doc__}

  list             what can be had by name
  download NAME    fetch a file, unless it is at hand, and verify it
  verify [NAME]    check every file that is at hand
  convert FILE     write its weights as {OUTPUT_SUFFIX} of a --backbone to --output
  inspect FILE     names, shapes and dtypes of its tensors

{NAME_HELP}
Files lie in --weights_dir if given; those of Keras Applications in KERAS_HOME (or ~/.keras), models/; all others in
TL_KERAS_WEIGHTS (or ~/.cache/tl_keras/weights). What torch.hub has already fetched (TORCH_HOME) is found too.

`tl-keras weights ACTION --help` lists the flags of an action."""
