"""An experiment: a named list of runs with the reported figures they are compared to, and how to run it to its report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tl_keras.config import RunConfig
from tl_keras.errors import ConfigError, MissingError
from tl_keras.results import RunDirectory

# What the package carries, so that a machine without network still shows the whole job. Always all of it, never a mixture.
EMBEDDED_SETTINGS = MappingProxyType(
    {
        "dataset": "digits",
        "data_dir": "",
        "label": "label",
        "crop_fraction": 0.0,
        "backbone": "alexnet_narrow",
        "weights": "glyphs",
        "weights_dir": "",
        "stem": "imagenet",
        "image_size": 0,
        "normalization": "weights",
    }
)


@dataclass(frozen=True)
class Row:
    """One row of an experiment's table; `config` says all but the seed.

    Attributes:
        label: the row's name in the table.
        group: rows of one group are one line of a plot.
        x: where the row lies on the plot's axis.
        reported: metric -> the report's figure, in per cent.
        reported_curve: epoch -> the report's (training loss, training accuracy in per cent).
    """

    label: str
    group: str
    x: float
    config: RunConfig
    reported: Mapping[str, float] = field(default_factory=dict)
    reported_curve: Mapping[int, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A question, its settings and its rows.

    Attributes:
        name: of the module and of the directory of its results.
        settings: the report's settings, by flat name, where they differ from the package's defaults.
        embedded: further settings of the embedded version.
        fractions: the default of `--fractions`; empty where the rows do not differ by the share of the data.
        row_settings: settings that the rows themselves set, so that no flag may.
        rows: (base configuration, fractions) -> the rows.
    """

    name: str
    title: str
    question: str
    settings: Mapping[str, Any]
    embedded: Mapping[str, Any]
    fractions: tuple[float, ...]
    row_settings: tuple[str, ...]
    rows: Callable[[RunConfig, Sequence[float]], list[Row]]

    def configure(self, overrides: Mapping[str, Any], fractions: Sequence[float]) -> list[Row]:
        """The rows with `overrides` of the settings; ConfigError where an override is one that the rows set."""
        base = RunConfig().replace(**self.settings).replace(**overrides)
        if taken := [name for name in self.row_settings if name in overrides]:
            raise ConfigError(f"flag --{taken[0]}: the rows of {self.name} set it; use --{taken[0]}s to choose the rows.")
        return self.rows(base, fractions)

    def departures(self, overrides: Mapping[str, Any]) -> list[str]:
        """The overrides that make the runs other ones than the report's, e.g. `epochs 6`."""
        report = RunConfig().replace(**self.settings)
        identity = report.replace(**overrides).identity()
        return [f"{name} {value}" for name, value in identity.items() if value != report.identity()[name]]

    def configure_embedded(self, fractions: Sequence[float]) -> list[Row]:
        """The rows on the embedded data and weights."""
        return self.configure({**EMBEDDED_SETTINGS, **self.embedded}, fractions)


def execute(
    experiment: Experiment,
    overrides: Mapping[str, Any],
    *,
    fractions: Sequence[float],
    seeds: Sequence[int],
    runs_dir: Path,
    on_missing: str,
    command: str,
    verbose: int,
) -> list[Path]:
    """Run every row with every seed, print the table and write the report.

    Finished runs are skipped and interrupted ones resumed. Where data or weights are missing and `on_missing` is
    `embedded`, the whole experiment runs on what the package carries, in a directory of its own.

    Returns:
        The files of the report.

    Raises:
        UserError: before the first run for everything that can be known by then.
    """
    from tl_keras import report
    from tl_keras.run import plan, run

    rows = experiment.configure(overrides, fractions)
    for row in rows:
        plan(row.config)
    rows, embedded = _available(experiment, rows, fractions, on_missing)
    directory = runs_dir / (f"{experiment.name}-embedded" if embedded else experiment.name)
    jobs = [(row, row.config.replace(seed=seed)) for row in rows for seed in seeds]
    for number, (row, config) in enumerate(jobs, start=1):
        place = run_directory(directory, row, config)
        done = " (finished before)" if RunDirectory(place).finished(config) else ""
        print(f"[{number}/{len(jobs)}] {row.label}, seed {config.seed}: {place}{done}", flush=True)
        run(config, place, name=row.label, verbose=verbose)
    departures = [] if embedded else experiment.departures(overrides)
    results = report.collect(experiment, rows, seeds, directory, embedded=embedded, command=command, departures=departures)
    report.print_table(results)
    return report.write_report(results, directory)


def run_directory(directory: Path, row: Row, config: RunConfig) -> Path:
    """Where a run lies: its row, its seed, and a digest that keeps runs of other settings apart."""
    slug = "".join(letter if letter.isalnum() else "-" for letter in row.label.lower())
    slug = "-".join(part for part in slug.split("-") if part)
    return directory / f"{slug}-seed{config.seed}-{config.digest()}"


def _available(experiment: Experiment, rows: list[Row], fractions: Sequence[float], on_missing: str) -> tuple[list[Row], bool]:
    """The rows to run and whether they are the embedded ones."""
    from tl_keras.run import require

    try:
        for row in rows:
            require(row.config)
    except MissingError as error:
        if on_missing == "error":
            raise
        print(EMBEDDED_NOTICE.format(error=error), flush=True)
        return experiment.configure_embedded(fractions), True
    return rows, False


EMBEDDED_NOTICE = """
{error}

*** EMBEDDED RUN ***  The experiment runs on what the package carries instead: scikit-learn's handwritten digits, and a narrow
AlexNet pre-trained on rendered glyphs. It shows the same question at small size. Its figures are NOT comparable with the reported
ones, and every table, plot and directory of it says so. Other flags than --fractions, --seeds and --runs_dir do not apply to it.
"""
