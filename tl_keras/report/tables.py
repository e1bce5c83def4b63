"""Tables of an experiment for the terminal, the page and spreadsheets."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as TerminalTable
from rich.text import Text

from tl_keras.report.document import Table
from tl_keras.report.experiment_results import (
    ACCURACY,
    ACCURACY_DIFFERENCE,
    CAVEATS,
    COMPARED_METRICS,
    EPOCH_SECONDS,
    LOSS,
    METRIC_VALUES,
    PARAMETER_RATIO,
    PARAMETERS,
    SECONDS,
    SPEED_RATIO,
    TRIAL,
    ExperimentResults,
    Run,
    TableRow,
)
from tl_keras.report.text import (
    EMPTY_CELL,
    capitalize,
    changed_settings_note,
    csv_cell,
    describe_interval,
    fallback_notes,
    format_duration,
    row_label,
    run_facts,
)
from tl_keras.results.experiment_file import METRICS
from tl_keras.results.metrics import SCALAR_METRICS
from tl_keras.utils.files import csv_text
from tl_keras.utils.text import to_one_line

WRAPPED = ("row", "test accuracy (%)")  # columns that may wrap on a narrow terminal
LOG_WIDTH = 140  # characters in a table that is written to a file or a pipe
Cell = Callable[[ExperimentResults, TableRow], str]  # the text of a row in one column


def _accuracy(results: ExperimentResults, row: TableRow) -> str:
    estimate = row.accuracy()
    if len(row.runs) == 1:
        return f"{estimate.mean:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.mean:.2f} ± {estimate.high - estimate.mean:.2f}"


def _published(metric: str, format_spec: str) -> Cell:
    """Return the column of a published value, in brackets if ours is not comparable."""

    def cell(results: ExperimentResults, row: TableRow) -> str:
        if metric not in row.published:
            return EMPTY_CELL
        text = format(row.published[metric], format_spec)
        return text if results.is_comparable(row, metric) else f"({text})"

    return cell


def _value(metric: str, format_spec: str) -> Cell:
    """Return the column of our value of one of `METRICS`."""

    def cell(results: ExperimentResults, row: TableRow) -> str:
        value = results.value(row, metric)
        return EMPTY_CELL if value is None else format(value, format_spec)

    return cell


def _difference(metric: str, format_spec: str) -> Cell:
    """Return the column of our value minus the published one."""

    def cell(results: ExperimentResults, row: TableRow) -> str:
        difference = results.difference(row, metric)
        return EMPTY_CELL if difference is None else format(difference, format_spec)

    return cell


def _mean(metric_value: Callable[[Run], float | None], format_spec: str) -> Cell:
    """Return the column of the mean over the seeds."""

    def cell(results: ExperimentResults, row: TableRow) -> str:
        mean = row.mean(metric_value)
        return EMPTY_CELL if mean is None else format(mean, format_spec)

    return cell


def _training_time(results: ExperimentResults, row: TableRow) -> str:
    seconds = row.value(SECONDS)
    return EMPTY_CELL if seconds is None else format_duration(seconds)


def _std(results: ExperimentResults, row: TableRow) -> str:
    return f"{row.std():.2f}" if len(row.runs) > 1 else EMPTY_CELL


def _to_percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _scalar_value(name: str, run: Run) -> float | None:
    """Return an entry of SCALAR_METRICS in the unit of its column; None if it is undefined, or newer than the run."""
    value = run.test.get(name)
    return None if value is None else SCALAR_METRICS[name].scale * value


# Heading -> cell of a row. The terminal shows the first table only.
COLUMNS: Mapping[str, Cell] = {
    "row": row_label,
    "training images": lambda results, row: f"{row.num_train:,}",
    "test accuracy (%)": _accuracy,
    "published (%)": _published(ACCURACY, ".2f"),
    "difference (points)": _difference(ACCURACY, "+.2f"),
    "trained parameters": lambda results, row: f"{row.runs[0].num_trainable:,}",
    "training time": _training_time,
}
FURTHER_COLUMNS: Mapping[str, Cell] = {
    "row": row_label,
    "std over seeds (points)": _std,
    **{metric.heading: _mean(partial(_scalar_value, name), f".{metric.digits}f") for name, metric in SCALAR_METRICS.items()},
    "balanced accuracy (%)": _mean(lambda run: 100 * run.test["balanced_accuracy"], ".2f"),
    "calibration error (points)": _mean(lambda run: 100 * run.test["calibration"]["ece"], ".2f"),
    "test loss (nats)": _value(LOSS, ".4f"),
    "published loss (nats)": _published(LOSS, ".4f"),
    "difference (nats)": _difference(LOSS, "+.4f"),
    "last validation loss (nats)": _mean(lambda run: run.history[-1].get("val_loss"), ".4f"),
    "seconds per epoch": _value(EPOCH_SECONDS, ".1f"),
    "published seconds per epoch": _published(EPOCH_SECONDS, "g"),
    "seconds": _value(SECONDS, ".1f"),
    "published seconds": _published(SECONDS, "g"),
    "parameters": _value(PARAMETERS, ",.0f"),
    "published parameters": _published(PARAMETERS, ",.0f"),
}
# Comparisons with the reference row.
REFERENCE_COLUMNS: Mapping[str, Cell] = {
    "row": row_label,
    "accuracy difference (points)": _value(ACCURACY_DIFFERENCE, "+.2f"),
    "published accuracy difference (points)": _published(ACCURACY_DIFFERENCE, "+.2f"),
    "ours minus published (points)": _difference(ACCURACY_DIFFERENCE, "+.2f"),
    "parameter ratio": _value(PARAMETER_RATIO, ".2f"),
    "published parameter ratio": _published(PARAMETER_RATIO, "g"),
    "speed ratio": _value(SPEED_RATIO, ".2f"),
    "published speed ratio": _published(SPEED_RATIO, "g"),
}


def make_table(results: ExperimentResults, columns: Mapping[str, Cell]) -> Table:
    """Return these columns for all rows, without those that are empty in every row, unless a source report lets readers expect them."""
    rows = [[cell(results, row) for cell in columns.values()] for row in results.rows]
    is_expected = [results.has_source and heading in COLUMNS for heading in columns]
    kept = [index for index in range(len(columns)) if is_expected[index] or any(row[index] != EMPTY_CELL for row in rows)]
    return Table([list(columns)[index] for index in kept], [[row[index] for index in kept] for row in rows])


def table_caption(results: ExperimentResults) -> str:
    """Return the caption of the table. The caveat, changed settings and fallbacks come first."""
    notation = f"± or [ ]: {describe_interval(results)}. Training time: all epochs of one run"
    sentences = [results.caveat, changed_settings_note(results), *fallback_notes(results), "; ".join(run_facts(results)), notation]
    return ". ".join(capitalize(text) for text in sentences if text) + "."


def terminal_table(results: ExperimentResults) -> TerminalTable:
    """Return the table for a terminal. Published values that are not comparable are dimmed and in brackets."""
    title = Text(f"{to_one_line(results.title)}\n{results.caveat}".strip(), "bold red" if results.caveat else "bold")
    shown = TerminalTable(
        title=title, caption=Text(table_caption(results)), caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table = make_table(results, COLUMNS)
    for heading in table.headings:
        shown.add_column(
            heading.replace(" ", "\n"),
            justify="left" if heading == "row" else "right",
            style="dim" if heading == "published (%)" and results.caveat else None,
            no_wrap=heading not in WRAPPED,
            overflow="fold",
        )
    for cells in table.rows:
        shown.add_row(*map(Text, cells))
    return shown


def print_table(results: ExperimentResults) -> None:
    """Print the table to standard output, in the width of the terminal."""
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(terminal_table(results))


def describe_result(result: Mapping[str, Any], directory: Path) -> str:
    """Return the result of one run, a line for each value, and caveats before them."""
    test, data, runtime = result["metrics"]["test"], result["data"], result["runtime"]
    top5 = _to_percent(test["top5_accuracy"])
    low, high = test["interval"]
    interval = f"95 % interval {100 * low:.2f} to {100 * high:.2f}"
    lines = {
        "test accuracy": f"{100 * test['accuracy']:.2f} % ({interval}, n = {test['num_examples']:,})",
        "balanced": f"{100 * test['balanced_accuracy']:.2f} %{'' if top5 is None else f'; top-5 accuracy {top5:.2f} %'}",
        "loss": f"{test['loss']:.4f} nats; calibration error {100 * test['calibration']['ece']:.2f} points",
        "data set": f"{to_one_line(data['dataset'])}, {data['num_train']:,} training and {data['num_validation']:,} validation images",
        "tested epoch": f"{result['selection']['epoch']} ({result['selection']['rule']})",
        "training time": f"{format_duration(result['seconds']['train'])} on {runtime['device']}, {runtime['precision']}",
        "directory": str(directory),
    }
    caveats = [f"{caveat}: {TRIAL}" for key, caveat in CAVEATS.items() if data[key]]
    return "\n".join([*caveats, *(f"{name:<14} {text}" for name, text in lines.items())])


def _metric_cells(results: ExperimentResults, row: TableRow, run: Run) -> dict[str, Any]:
    """Return the metrics of one run, the published values, and the differences if they are comparable."""
    test = run.test
    low, high = test["interval"]
    values = {metric: metric_value(run) for metric, metric_value in METRIC_VALUES.items()}
    differences = {
        metric: value - row.published[metric]
        for metric, value in values.items()
        if results.difference(row, metric) is not None and value is not None
    }
    return {
        "accuracy": _rounded(values[ACCURACY], 4),
        "interval_low": round(100 * low, 4),
        "interval_high": round(100 * high, 4),
        **{name: _rounded(_scalar_value(name, run), metric.digits + 2) for name, metric in SCALAR_METRICS.items()},
        "balanced_accuracy": round(100 * test["balanced_accuracy"], 4),
        "calibration_error": round(100 * test["calibration"]["ece"], 4),
        "loss": _rounded(values[LOSS], 6),
        "seconds": _rounded(values[SECONDS], 3),
        "seconds_per_epoch": _rounded(values[EPOCH_SECONDS], 3),
        "parameters": values[PARAMETERS],
        **{f"published_{name}": row.published.get(metric) for metric, name in CSV_NAMES.items()},
        **{f"difference_{CSV_NAMES[metric]}": _rounded(differences.get(metric), 6) for metric in COMPARED_METRICS if metric in values},
    }


# Metric -> its name in `results.csv`.
CSV_NAMES = {metric: metric.removeprefix("test ").replace(" ", "_") for metric in METRICS}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _record(results: ExperimentResults, row: TableRow, run: Run) -> dict[str, Any]:
    """Return one run as a line of `results.csv`: accuracies in per cent, losses in nats, times in seconds."""
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
        **_metric_cells(results, row, run),
        "fallbacks": "; ".join(row.fallbacks),
        "run": run.name,
    }


def results_csv(results: ExperimentResults) -> str:
    """Return `results.csv`: one line per run, without text that a spreadsheet would read as a formula."""
    records = [_record(results, row, run) for row in results.rows for run in row.runs]
    return csv_text(list(records[0]), ([csv_cell(value) for value in record.values()] for record in records))
