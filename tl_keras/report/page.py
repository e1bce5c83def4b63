"""The page of an experiment: `report.md` with its table, figures, and all that is needed to judge and repeat it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tl_keras.report.collection import ExperimentResults, Row, Run
from tl_keras.report.tables import caption, markdown_table, results_csv
from tl_keras.report.text import NOTHING, device, listed, markdown, plain
from tl_keras.results import write_text

PAGE, RUNS_TABLE, ACCURACY_FIGURE, CURVES_FIGURE = "report.md", "results.csv", "accuracy_against_fraction.png", "learning_curves.png"


def write_report(results: ExperimentResults, directory: Path) -> list[Path]:
    """Write the figures, `results.csv` and `report.md` to `directory`; the same results give the same files.

    Returns:
        The files, `report.md` first. Without a row that has an `x` there is no accuracy figure.

    Raises:
        UserError: a file cannot be written.
    """
    from tl_keras.report import figures

    drawn = []
    if any(row.x is not None for row in results.rows):
        drawn.append(figures.draw_accuracy(results, directory / ACCURACY_FIGURE))
    drawn.append(figures.draw_curves(results, directory / CURVES_FIGURE))
    write_text(directory / RUNS_TABLE, results_csv(results))
    write_text(directory / PAGE, page(results, [path.name for path in drawn]))
    return [directory / PAGE, directory / RUNS_TABLE, *drawn]


def page(results: ExperimentResults, figure_names: Sequence[str]) -> str:
    """The text of `report.md`, with the figures as images beside it."""
    mark = f"> **{results.mark}**\n\n" if results.mark else ""
    head = f"# {markdown(results.title)}\n\n{mark}{markdown(results.question)}\n\n    {plain(results.command)}\n"
    table = f"{markdown_table(results)}\n{markdown(caption(results))}\n"
    images = "\n".join(f"![{CAPTIONS[name]}]({name})\n" for name in figure_names)
    sections = "\n".join(f"## {title}\n\n{_bullets(lines(results))}" for title, lines in SECTIONS.items())
    return "\n".join((head, table, images, sections))


CAPTIONS = {
    ACCURACY_FIGURE: "Test accuracy against the share of the training data",
    CURVES_FIGURE: "Accuracy and loss against the epoch",
}


def _bullets(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _how_to_read(results: ExperimentResults) -> list[str]:
    rules = listed(run.result["selection"]["rule"] for run in results.runs)
    lines = [
        "The test split was scored once a run, after training; every image counts once.",
        f"Tested epoch: {markdown(rules)}. `best` is the best on the validation split, `last` the last one whatever it scored.",
        "The validation split, where there is one, is held out of the train split; the test split had no part in any choice.",
        "Reported figures are those of the report that the experiment repeats; its seeds and intervals are not known.",
    ]
    if results.mark:
        return [f"{results.mark}. They stand in brackets, without a difference.", *lines]
    return [*lines, "Difference: ours less the reported one. One that lies within the interval says nothing."]


def _settings(results: ExperimentResults) -> list[str]:
    """The settings that all runs share, then those in which they differ."""
    configs = [run.result["config"] for run in results.runs]
    values = {name: [config.get(name) for config in configs] for name in configs[0]}
    shared = {name: found[0] for name, found in values.items() if all(value == found[0] for value in found)}
    lines = [f"{name}: {markdown(value)}" for name, value in shared.items() if value != ""]
    return lines + [f"{name}: {markdown(listed(found))} (differs by run)" for name, found in values.items() if name not in shared]


def _runtime(results: ExperimentResults) -> list[str]:
    """What the runs ran on; several values where runs differ."""
    runtimes = [run.result["runtime"] for run in results.runs]
    versions = [runtime["versions"] for runtime in runtimes]
    packages = dict.fromkeys(name for found in versions for name in found)
    lines = [
        f"device: {markdown(listed(device(run) for run in results.runs))}",
        *(f"{name}: {markdown(listed(runtime[name] for runtime in runtimes))}" for name in ("precision", "xla", "replicas")),
        *(f"{markdown(name)}: {markdown(listed(found.get(name, NOTHING) for found in versions))}" for name in packages),
    ]
    revisions = listed(runtime["git_revision"] for runtime in runtimes if runtime["git_revision"])
    return [*lines, f"source revision: {markdown(revisions)}"] if revisions else lines


def _runs(results: ExperimentResults) -> list[str]:
    return [_run(row, run) for row in results.rows for run in row.runs]


def _run(row: Row, run: Run) -> str:
    metrics = run.result["metrics"]
    validation = metrics["validation"].get("accuracy")
    scores = f"test {100 * metrics['test']['accuracy']:.2f} %, cross-entropy {metrics['test']['loss']:.4f} nats"
    best = "" if validation is None else f"; best on validation {100 * validation:.2f} % in epoch {metrics['validation']['epoch']}"
    tested = f"epoch {run.result['selection']['epoch']} of {run.num_epochs}"
    return f"{markdown(row.label)}, seed {run.seed}, {tested}: {scores}{best}. In [{markdown(run.name)}]({run.name}/)"


def _notes(results: ExperimentResults) -> list[str]:
    data = [run.result["data"] for run in results.runs]
    notes = dict.fromkeys(str(note) for part in data for note in part["notes"])
    classes = dict.fromkeys(", ".join(part["class_names"]) for part in data)
    fingerprints = listed(part["fingerprint"] for part in data)
    accounts = dict.fromkeys(_weights(run.result["model"]) for run in results.runs)
    return [*accounts, f"Fingerprint of the data: {markdown(fingerprints)}", *(f"Classes: {markdown(names)}" for names in classes)] + [
        markdown(note) for note in notes
    ]


def _weights(model: dict[str, Any]) -> str:
    account = "; ".join(f"{name}: {value}" for name, value in model["weights_account"].items())
    return f"Weights of {markdown(model['backbone'])}: {markdown(account or model['weights'])}"


SECTIONS = {"How to read it": _how_to_read, "Settings": _settings, "Runtime": _runtime, "Runs": _runs, "Notes": _notes}
