"""Prints what each format and quantization makes of a run: size, times, largest difference in probability, and accuracy.

    python -m tools.export_table --run_dir=runs/photos

All installed formats are exported to a temporary directory and checked as `tl-keras export` does, except that quantized models are
measured even if they lose accuracy. Accuracy is that on the whole test split, so the data set is needed; the difference is from the trained
model in float32, image by image, with its 95 % interval.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tl_keras.errors import MissingError, UserError
from tl_keras.exports.export import write_export
from tl_keras.exports.formats import FORMATS, NONE, QUANTIZATIONS, choose_formats
from tl_keras.exports.trained import TrainedRun
from tl_keras.utils.tensorflow_import import quiet_tensorflow

COLUMNS = (
    "format", "quantization", "size (MB)", "load (s)", "batch 1 (ms)", "batch 64 (ms)", "largest difference", "accuracy (%)",
    "difference (points)",
)  # fmt: skip


def export_row(trained: TrainedRun, format: str, quantize: str) -> list[str]:
    """Return the cells of one export, or what was refused."""
    name = [format, QUANTIZATIONS[quantize].partition(",")[0] if quantize == NONE else quantize]
    try:
        (one,) = choose_formats(format, quantize)
        with tempfile.TemporaryDirectory() as temporary:
            record = write_export(trained, one, quantize, Path(temporary) / "export", force=True)
    except MissingError as error:
        return [*name, *[""] * 6, str(error)]
    return [*name, *_cells(record)]


def _cells(record: dict[str, Any]) -> list[str]:
    accuracy, latency = record["accuracy"], record["latency_seconds"]
    low, high = (100 * bound for bound in accuracy["interval"])
    return [
        f"{record['bytes'] / 1e6:.2f}",
        f"{record['load_seconds']:.2f}",
        *(f"{1000 * latency[size]:.1f}" for size in ("1", "64")),
        f"{record['max_difference']:.1e}",
        f"{100 * accuracy['exported']:.2f}",
        f"{100 * accuracy['difference']:+.2f} [{low:+.2f}, {high:+.2f}]",
    ]


def table_lines(trained: TrainedRun) -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "---|" * len(COLUMNS)
    for format, known in FORMATS.items():
        for quantize in QUANTIZATIONS if not known.no_quantization else (NONE,):
            yield "| " + " | ".join(export_row(trained, format, quantize)) + " |"


def heading(trained: TrainedRun) -> str:
    """Return one line on the run: backbone, data and accuracy."""
    data, model, num_test = trained.result["data"], trained.result["model"], len(trained.test or ())
    calibrated = f"temperature {trained.temperature:.3f}" if trained.temperature else "not calibrated"
    return f"{model['backbone']} on {data['dataset']}, {model['image_size']} px, {num_test} test images, {calibrated}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run_dir", required=True, type=Path)
    parser.add_argument("--data_dir", help="prepared data sets, if they are not where the run found them")
    arguments = parser.parse_args()
    quiet_tensorflow()
    settings = {"data_dir": arguments.data_dir} if arguments.data_dir else {}
    try:
        trained = TrainedRun.load(arguments.run_dir, calibrated=True, data_settings=settings, with_data=True)
    except UserError as error:
        parser.error(str(error))
    print(heading(trained) + "\n")
    for line in table_lines(trained):
        print(line, flush=True)


if __name__ == "__main__":
    main()
