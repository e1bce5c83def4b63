"""Tables of an experiment: for the terminal, for Markdown and for spreadsheets."""

import csv
import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tl_keras.report.collection import MARKS, ExperimentResults, Row, Run
from tl_keras.report.text import NOTHING, csv_cell, duration, facts, interval_meaning, markdown, plain

WRAPPED = ("row", "test accuracy (%)")  # the columns that give way on a narrow terminal
LOG_WIDTH = 140  # of a table that goes to a file or a pipe


def _accuracy(results: ExperimentResults, row: Row) -> str:
    estimate = row.accuracy()
    if len(row.runs) == 1:
        return f"{estimate.mean:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.mean:.2f} ± {estimate.high - estimate.mean:.2f}"


def _reported(results: ExperimentResults, row: Row) -> str:
    if row.reported_accuracy is None:
        return NOTHING
    return f"({row.reported_accuracy:.2f})" if results.mark else f"{row.reported_accuracy:.2f}"


def _difference(results: ExperimentResults, row: Row) -> str:
    difference = results.difference(row)
    return NOTHING if difference is None else f"{difference:+.2f}"


def _seconds(results: ExperimentResults, row: Row) -> str:
    return duration(sum(run.result["seconds"]["train"] for run in row.runs) / len(row.runs))


# Heading -> the cell of a row.
COLUMNS: Mapping[str, Callable[[ExperimentResults, Row], str]] = {
    "row": lambda results, row: plain(row.label),
    "training images": lambda results, row: f"{row.num_train:,}",
    "test accuracy (%)": _accuracy,
    "reported (%)": _reported,
    "difference (points)": _difference,
    "trained parameters": lambda results, row: f"{row.runs[0].num_trainable:,}",
    "training time": _seconds,
}


def caption(results: ExperimentResults) -> str:
    """The line under the table; it begins with the mark where the figures are not comparable."""
    what = "; ".join(facts(results))
    how = f"± or [ ]: {interval_meaning(results)}. Training time: of one run, over all epochs."
    return f"{results.mark + '. ' if results.mark else ''}{what[0].upper()}{what[1:]}. {how}"


def terminal_table(results: ExperimentResults) -> Table:
    """The table for a terminal; reported figures that are not comparable are dimmed and in brackets."""
    title = Text(f"{plain(results.title)}\n{results.mark}".strip(), "bold red" if results.mark else "bold")
    table = Table(title=title, caption=Text(caption(results)), caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in COLUMNS:
        table.add_column(
            heading.replace(" ", "\n"),
            justify="left" if heading == "row" else "right",
            style="dim" if heading == "reported (%)" and results.mark else None,
            no_wrap=heading not in WRAPPED,
            overflow="fold",
        )
    for row in results.rows:
        table.add_row(*(Text(cell(results, row)) for cell in COLUMNS.values()))
    return table


def print_table(results: ExperimentResults) -> None:
    """Print the table to standard output, as wide as the terminal is."""
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(terminal_table(results))


def print_result(result: Mapping[str, Any], directory: Path) -> None:
    """Print what one run came to."""
    test, data, runtime = result["metrics"]["test"], result["data"], result["runtime"]
    low, high = test["interval"]
    lines = {
        "test accuracy": f"{100 * test['accuracy']:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}, n = {test['num']:,})",
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


def markdown_table(results: ExperimentResults) -> str:
    """The table in Markdown, without its caption."""
    lines = [list(COLUMNS), [":--" if heading == "row" else "--:" for heading in COLUMNS]]
    lines += [[markdown(cell(results, row)) for cell in COLUMNS.values()] for row in results.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _accuracies(results: ExperimentResults, row: Row, run: Run) -> dict[str, Any]:
    test = run.result["metrics"]["test"]
    low, high = test["interval"]
    comparable = not results.mark and row.reported_accuracy is not None
    return {
        "accuracy": round(100 * test["accuracy"], 4),
        "interval_low": round(100 * low, 4),
        "interval_high": round(100 * high, 4),
        "loss": round(test["loss"], 6),
        "reported": row.reported_accuracy,
        "difference": round(100 * test["accuracy"] - row.reported_accuracy, 4) if comparable else None,
    }


def _record(results: ExperimentResults, row: Row, run: Run) -> dict[str, Any]:
    """One run as a line of `results.csv`: accuracies in per cent, seconds of training, `run` the name of the directory."""
    data, model, runtime = (run.result[key] for key in ("data", "model", "runtime"))
    return {
        "experiment": results.name,
        "row": row.label,
        "seed": run.seed,
        **{key: data[key] for key in ("dataset", "embedded")},
        **{key: model[key] for key in ("backbone", "weights")},
        "strategy": run.result["config"]["strategy"],
        **{key: data[key] for key in ("num_train", "num_validation", "num_test")},
        "image_size": model["image_size"],
        "epochs": run.num_epochs,
        **{key: runtime[key] for key in ("precision", "xla", "device")},
        **_accuracies(results, row, run),
        "seconds": round(run.result["seconds"]["train"], 3),
        "run": run.name,
    }


def results_csv(results: ExperimentResults) -> str:
    """A line for each run, safe to open in a spreadsheet."""
    records = [_record(results, row, run) for row in results.rows for run in row.runs]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(records[0])
    writer.writerows([csv_cell(value) for value in record.values()] for record in records)
    return file.getvalue()
