"""Tables of an experiment: for the terminal, for the page and for spreadsheets."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as TerminalTable
from rich.text import Text

from tl_keras.report.document import Table
from tl_keras.report.experiment_results import (
    ACCURACY,
    COMPARED,
    EPOCH_SECONDS,
    FIGURES,
    LOSS,
    MARKS,
    SECONDS,
    VALIDATION_LOSS,
    ExperimentResults,
    Row,
    Run,
)
from tl_keras.report.text import (
    NOTHING,
    csv_cell,
    departure_note,
    duration,
    facts,
    interval_meaning,
    label,
    plain,
    sentence,
    stand_in_notes,
)
from tl_keras.utils.files import csv_text

WRAPPED = ("row", "test accuracy (%)")  # the columns that give way on a narrow terminal
LOG_WIDTH = 140  # of a table that goes to a file or a pipe
Cell = Callable[[ExperimentResults, Row], str]


def _accuracy(results: ExperimentResults, row: Row) -> str:
    estimate = row.accuracy()
    if len(row.runs) == 1:
        return f"{estimate.mean:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.mean:.2f} ± {estimate.high - estimate.mean:.2f}"


def _reported(metric: str, form: str) -> Cell:
    """A reported figure, in brackets where ours must not be held against it."""

    def cell(results: ExperimentResults, row: Row) -> str:
        if metric not in row.reported:
            return NOTHING
        text = format(row.reported[metric], form)
        return text if results.is_comparable(row) else f"({text})"

    return cell


def _difference(metric: str, form: str) -> Cell:
    def cell(results: ExperimentResults, row: Row) -> str:
        difference = results.difference(row, metric)
        return NOTHING if difference is None else format(difference, form)

    return cell


def _mean(figure: Callable[[Run], float | None], form: str) -> Cell:
    """The mean over the seeds."""

    def cell(results: ExperimentResults, row: Row) -> str:
        mean = row.mean(figure)
        return NOTHING if mean is None else format(mean, form)

    return cell


def _deviation(results: ExperimentResults, row: Row) -> str:
    return f"{row.deviation():.2f}" if len(row.runs) > 1 else NOTHING


def _per_cent(share: float | None) -> float | None:
    return None if share is None else 100 * share


# Heading -> the cell of a row. The first table is that of the terminal too.
COLUMNS: Mapping[str, Cell] = {
    "row": label,
    "training images": lambda results, row: f"{row.num_train:,}",
    "test accuracy (%)": _accuracy,
    "reported (%)": _reported(ACCURACY, ".2f"),
    "difference (points)": _difference(ACCURACY, "+.2f"),
    "trained parameters": lambda results, row: f"{row.runs[0].num_trainable:,}",
    "training time": lambda results, row: duration(row.figure(SECONDS)),
}
FURTHER_COLUMNS: Mapping[str, Cell] = {
    "row": label,
    "deviation over seeds (points)": _deviation,
    "top-5 accuracy (%)": _mean(lambda run: _per_cent(run.test["top5_accuracy"]), ".2f"),
    "balanced accuracy (%)": _mean(lambda run: 100 * run.test["balanced_accuracy"], ".2f"),
    "calibration error (points)": _mean(lambda run: 100 * run.test["calibration"]["ece"], ".2f"),
    "test loss (nats)": _mean(FIGURES[LOSS], ".4f"),
    "reported loss (nats)": _reported(LOSS, ".4f"),
    "difference (nats)": _difference(LOSS, "+.4f"),
    "last validation loss (nats)": _mean(FIGURES[VALIDATION_LOSS], ".4f"),
    "reported validation loss (nats)": _reported(VALIDATION_LOSS, ".4f"),
    "seconds per epoch": _mean(FIGURES[EPOCH_SECONDS], ".1f"),
    "reported seconds per epoch": _reported(EPOCH_SECONDS, "g"),
    "seconds": _mean(FIGURES[SECONDS], ".1f"),
    "reported seconds": _reported(SECONDS, "g"),
}


def table(results: ExperimentResults, columns: Mapping[str, Cell]) -> Table:
    """These columns of all rows, but for columns that have nothing to say of any row."""
    rows = [[cell(results, row) for cell in columns.values()] for row in results.rows]
    kept = [index for index, heading in enumerate(columns) if heading in COLUMNS or any(row[index] != NOTHING for row in rows)]
    return Table([list(columns)[index] for index in kept], [[row[index] for index in kept] for row in rows])


def caption(results: ExperimentResults) -> str:
    """The line under the table; it begins with why figures cannot be compared, where they cannot."""
    how = f"± or [ ]: {interval_meaning(results)}. Training time: of one run, over all epochs"
    sentences = [results.mark, departure_note(results), *stand_in_notes(results), "; ".join(facts(results)), how]
    return ". ".join(sentence(text) for text in sentences if text) + "."


def terminal_table(results: ExperimentResults) -> TerminalTable:
    """The table for a terminal; reported figures that are not comparable are dimmed and in brackets."""
    title = Text(f"{plain(results.title)}\n{results.mark}".strip(), "bold red" if results.mark else "bold")
    shown = TerminalTable(title=title, caption=Text(caption(results)), caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in COLUMNS:
        shown.add_column(
            heading.replace(" ", "\n"),
            justify="left" if heading == "row" else "right",
            style="dim" if heading == "reported (%)" and results.mark else None,
            no_wrap=heading not in WRAPPED,
            overflow="fold",
        )
    for cells in table(results, COLUMNS).rows:
        shown.add_row(*map(Text, cells))
    return shown


def print_table(results: ExperimentResults) -> None:
    """Print the table to standard output, as wide as the terminal is."""
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(terminal_table(results))


def print_result(result: Mapping[str, Any], directory: Path) -> None:
    """Print what one run came to."""
    test, data, runtime = result["metrics"]["test"], result["data"], result["runtime"]
    top5 = _per_cent(test["top5_accuracy"])
    low, high = test["interval"]
    lines = {
        "test accuracy": f"{100 * test['accuracy']:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}, n = {test['num_examples']:,})",
        "balanced": f"{100 * test['balanced_accuracy']:.2f} %{'' if top5 is None else f'; among the first five {top5:.2f} %'}",
        "loss": f"{test['loss']:.4f} nats; calibration error {100 * test['calibration']['ece']:.2f} points",
        "data set": f"{plain(data['dataset'])}, {data['num_train']:,} training and {data['num_validation']:,} validation images",
        "tested epoch": f"{result['selection']['epoch']} ({result['selection']['rule']})",
        "training time": f"{duration(result['seconds']['train'])} on {runtime['device']}, {runtime['precision']}",
        "directory": str(directory),
    }
    console = Console(soft_wrap=True, highlight=False)
    for kind, mark in MARKS.items():
        if data[kind]:
            console.print(Text(mark, "bold red"))
    for name, text in lines.items():
        console.print(Text(f"{name:<14} {text}"))


def _figures(results: ExperimentResults, row: Row, run: Run) -> dict[str, Any]:
    """Our figures of one run, then the reported ones and the differences where they are comparable."""
    test = run.test
    low, high = test["interval"]
    own = {metric: figure(run) for metric, figure in FIGURES.items()}
    differences = {metric: own[metric] - row.reported[metric] for metric in COMPARED if results.difference(row, metric) is not None}
    return {
        "accuracy": round(own[ACCURACY], 4),
        "interval_low": round(100 * low, 4),
        "interval_high": round(100 * high, 4),
        "top5_accuracy": _rounded(_per_cent(test["top5_accuracy"]), 4),
        "balanced_accuracy": round(100 * test["balanced_accuracy"], 4),
        "calibration_error": round(100 * test["calibration"]["ece"], 4),
        "loss": round(own[LOSS], 6),
        "seconds": round(own[SECONDS], 3),
        "seconds_per_epoch": round(own[EPOCH_SECONDS], 3),
        **{f"reported_{name}": row.reported.get(metric) for metric, name in NAMES.items()},
        **{f"difference_{NAMES[metric]}": _rounded(differences.get(metric), 6) for metric in COMPARED},
    }


# Metric -> its name in `results.csv`.
NAMES = {ACCURACY: "accuracy", LOSS: "loss", VALIDATION_LOSS: "validation_loss", SECONDS: "seconds", EPOCH_SECONDS: "seconds_per_epoch"}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _record(results: ExperimentResults, row: Row, run: Run) -> dict[str, Any]:
    """One run as a line of `results.csv`: accuracies in per cent, losses in nats, `run` the name of the directory."""
    data, model, runtime = (run.result[key] for key in ("data", "model", "runtime"))
    return {
        "experiment": results.name,
        "profile": results.profile,
        "row": row.label,
        "seed": run.seed,
        **{key: data[key] for key in ("dataset", "embedded")},
        **{key: model[key] for key in ("backbone", "weights")},
        "strategy": run.result["config"]["strategy"],
        **{key: data[key] for key in ("num_train", "num_validation", "num_test")},
        "image_size": model["image_size"],
        "epochs": run.num_epochs,
        **{key: runtime[key] for key in ("precision", "xla", "device")},
        "trained_parameters": run.num_trainable,
        **_figures(results, row, run),
        "stand_ins": "; ".join(row.stand_ins),
        "run": run.name,
    }


def results_csv(results: ExperimentResults) -> str:
    """A line for each run, safe to open in a spreadsheet."""
    records = [_record(results, row, run) for row in results.rows for run in row.runs]
    return csv_text(list(records[0]), ([csv_cell(value) for value in record.values()] for record in records))
