"""The verbs `predict` and `embed`: images in, tables and files out."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.cli.flags import CommandFlags, as_flags
from tl_keras.data.image_inputs import list_images
from tl_keras.errors import ConfigError, MissingError, SkippedError
from tl_keras.results.predicted import Predictions
from tl_keras.results.run_directory import load_result
from tl_keras.utils.files import write_text
from tl_keras.utils.progress import progress_bar
from tl_keras.utils.tensorflow_import import quiet_tensorflow
from tl_keras.utils.text import align_columns, join_names, printable, to_one_line

if TYPE_CHECKING:
    from tl_keras.runs.predict import Predictor

MODEL_FLAGS = {
    "run_dir": ("", "directory of the finished run"),
    "model": (
        "",
        "in place of `run_dir`: a .keras file of a run or an export, a delta file, or the directory of an export",
    ),
    "batch_size": (32, "images per step"),
    "on_corrupt": ("skip", "<skip|error>: leave out files that are no images, and end with exit code 6; or stop at the first"),
}
MAX_LISTED = 20  # files in a message


def predict(arguments: Sequence[str]) -> None:
    """Predict the classes of images, with confidences."""
    command = CommandFlags(
        "tl-keras predict --run_dir=DIR PATH ... --flags\n\n"
        "Predict the classes of images, with confidences. PATH is an image, or a directory, which is searched with all below it.\n"
        "Files that are no images are left out and reported; the exit code is then 6.",
        examples=(
            "tl-keras predict --run_dir=runs/photos new_photo.jpg more_photos",
            "tl-keras predict --run_dir=runs/photos new_photos --threshold=0.8 --output=found.csv",
            "tl-keras predict --model=photos-model new_photo.jpg --json",
        ),
        extra={
            **MODEL_FLAGS,
            "top": (5, "number of the likeliest classes to show"),
            "json": (False, "print JSON instead of a table"),
            "csv": (False, "print CSV instead of a table: file, label, confidence, and a column for each class"),
            "output": ("", "write to this file instead of the terminal; its suffix .json or .csv chooses the format"),
            "threshold": (0.0, "confidence, 0 to 1, below which the label is shown as uncertain"),
            "tta": (False, "average the probabilities of each image and its mirror image"),
            "calibrated": (True, "divide logits by the temperature that was fitted on validation; no label changes"),
            "saliency": ("", "directory for a picture of each image, coloured where it speaks for the class (Grad-CAM)"),
        },
        takes_operands=True,
    )
    if command.parse(arguments) is None:
        return
    form, threshold = _form(command), command.value("threshold")
    if not 0 <= threshold <= 1:
        raise ConfigError("expected a probability, 0 to 1.", setting="threshold", value=threshold)
    if command.value("top") < 1:
        raise ConfigError("expected a positive number of classes.", setting="top", value=command.value("top"))
    predictor = _open(command)
    options = {**_options(command), "calibrated": command.value("calibrated"), "tta": command.value("tta")}
    with progress_bar("predicting") as update:
        predictions = predictor.predict(command.operands, **options, on_progress=update)
    _write(FORMS[form](predictions, command.value("top"), threshold), command.value("output"))
    if command.value("saliency"):
        _draw(predictor, command)
    _report_skipped(predictions.skipped, len(predictions))


def embed(arguments: Sequence[str]) -> None:
    """Write the features of images before the head, for search and clustering."""
    command = CommandFlags(
        "tl-keras embed --run_dir=DIR PATH ... --output=features.npz\n\n"
        "Write the features of images before the head, for search and clustering. PATH is an image, or a directory, which is searched\n"
        "with all below it. The file holds `features`, float32 (n, channels), `files`, and `labels` where folders are classes.",
        examples=("tl-keras embed --run_dir=runs/photos photos --output=features.npz",),
        extra={**MODEL_FLAGS, "output": ("", "file to write; it ends in .npz")},
        takes_operands=True,
    )
    if command.parse(arguments) is None:
        return
    output = Path(command.value("output"))
    if output.suffix != ".npz":
        raise ConfigError("expected a file that ends in .npz.", setting="output", value=command.value("output"))
    predictor = _open(command)
    from tl_keras.runs.embed import embed_images

    with progress_bar("embedding") as update:
        found = embed_images(predictor, command.operands, **_options(command), on_progress=update)
    found.write(output)
    num_images, num_channels = found.features.shape
    labelled = f", labels of {len(set(found.labels) - {''})} classes" if any(found.labels) else ""
    print(f"{output}: features of {num_images:,} images, {num_channels:,} each{labelled}")
    _report_skipped(found.skipped, num_images)


def _form(command: CommandFlags) -> str:
    """Return the form of the output: table, json or csv."""
    asked = [name for name in ("json", "csv") if command.value(name)]
    if len(asked) > 1:
        raise ConfigError("expected `json` or `csv`, not both.")
    suffix = Path(command.value("output")).suffix.lower().removeprefix(".")
    return asked[0] if asked else suffix if suffix in FORMS else "table"


def _open(command: CommandFlags) -> "Predictor":
    """Return the predictor that the flags name. Paths and the run are checked before TensorFlow is loaded."""
    run_dir, model = command.value("run_dir"), command.value("model")
    if bool(run_dir) == bool(model):
        raise ConfigError("expected either `run_dir` or `model`. See --help.")
    if not command.operands:
        raise ConfigError("expected images or directories, e.g. `tl-keras predict --run_dir=DIR photo.jpg`. See --help.")
    list_images(command.operands)
    if run_dir:
        load_result(Path(run_dir))
    elif not Path(model).exists():
        raise MissingError(f"{printable(model)}: there is no such file or directory.")
    quiet_tensorflow()
    from tl_keras.exports.predictor import open_predictor
    from tl_keras.runs.predict import Predictor

    predictor = Predictor.of_run(run_dir) if run_dir else open_predictor(model)
    for note in predictor.notes:
        print(f"note: {as_flags(note)}", file=sys.stderr)
    return predictor


def _options(command: CommandFlags) -> dict[str, Any]:
    return {name: command.value(name) for name in ("batch_size", "on_corrupt")}


def _draw(predictor: "Predictor", command: CommandFlags) -> None:
    from tl_keras.runs.saliency import write_saliency

    directory = Path(command.value("saliency"))
    with progress_bar("drawing") as update:
        paths = write_saliency(predictor, command.operands, directory, **_options(command), on_progress=update)
    print(f"pictures in {directory}: {len(paths)}", file=sys.stderr)


def _table(predictions: Predictions, top: int, threshold: float) -> str:
    """Return an aligned table: file, label, confidence, and the likeliest classes."""
    lines = [("file", "label", "confidence", f"top {min(top, len(predictions.class_names))}")]
    for record in predictions.to_records(top, threshold=threshold):
        classes = ", ".join(f"{to_one_line(name)} {probability:.3f}" for name, probability in record["top"].items())
        lines.append((to_one_line(record["file"]), to_one_line(record["label"]), f"{record['confidence']:.3f}", classes))
    return "".join(f"{line}\n" for line in align_columns(lines))


def _json(predictions: Predictions, top: int, threshold: float) -> str:
    """Return the predictions as JSON, with the temperature and the files that were left out."""
    skipped = {printable(file): reason for file, reason in predictions.skipped.items()}
    records = predictions.to_records(top, threshold=threshold)
    return json.dumps({"temperature": predictions.temperature, "predictions": records, "skipped": skipped}, indent=1) + "\n"


def _csv(predictions: Predictions, top: int, threshold: float) -> str:
    """Return the predictions as CSV; all classes have a column, whatever `top` is."""
    return predictions.table_text(threshold=threshold)


FORMS = {"table": _table, "json": _json, "csv": _csv}


def _write(text: str, output: str) -> None:
    if output:
        write_text(Path(output), text)
        print(output)
    else:
        print(text, end="")


def _report_skipped(skipped: Mapping[str, str], num_done: int) -> None:
    """Raise SkippedError if files were left out."""
    if skipped:
        reasons = join_names(skipped.values(), MAX_LISTED, "\n")
        raise SkippedError(f"{len(skipped)} of {num_done + len(skipped)} files are left out:\n{reasons}")
