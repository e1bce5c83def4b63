"""An experiment: a named list of runs with the reported figures they are compared to, and how to run it to its report."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tl_keras.backbones import get_backbone, resnet_equivalent_stages
from tl_keras.config import RunConfig
from tl_keras.errors import ConfigError, MissingError, unknown
from tl_keras.results.run_directory import RunDirectory
from tl_keras.runs.fallbacks import EMBEDDED_NOTICE, EMBEDDED_SETTINGS, stand_ins_of

PAPER, QUICK, SMOKE = PROFILES = ("paper", "quick", "smoke")


@dataclass(frozen=True)
class Row:
    """One row of an experiment's table; `config` says all but the seed.

    Attributes:
        label: the row's name in the table, and what `--rows` calls it.
        group: rows of one group are one line of a plot.
        x: where the row lies on the plot's axis, a share of the training data; None where rows do not differ by it.
        reported: metric -> the report's figure; `report/collection.py` lists the metrics and their units.
        reported_curve: epoch -> the report's (training loss, training accuracy in per cent).
        stand_ins: what stood in for what was not at hand, e.g. `random weights for imagenet`.
    """

    label: str
    group: str
    config: RunConfig
    x: float | None = None
    reported: Mapping[str, float] = field(default_factory=dict)
    reported_curve: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    stand_ins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """The size of an experiment: settings on top of its own, and the largest side of an image in pixels (0: no limit)."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    max_image_size: int = 0

    def apply(self, row: Row) -> Row:
        """`row` with images no larger than the profile has them."""
        model = row.config.model
        size = model.image_size or get_backbone(model.backbone).image_size
        return replace(row, config=row.config.replace(image_size=self.max_image_size)) if 0 < self.max_image_size < size else row


# Every row for four steps on a handful of images: whether it runs, not how well.
SMOKE_SETTINGS = MappingProxyType(
    {"limit_train": 128, "limit_test": 64, "validation_fraction": 0.01, "batch_size": 32, "epochs": 1, "save_model": False}
)
SMOKE_PROFILE = Profile(SMOKE_SETTINGS, max_image_size=64)


@dataclass(frozen=True)
class Experiment:
    """A question, its settings and its rows.

    Attributes:
        name: of the module and of the directory of its results.
        settings: the report's settings, by flat name, where they differ from the package's defaults: the profile `paper`.
        rows: base configuration -> the rows; with `fractions`, (base configuration, fractions) -> the rows.
        quick: the profile that keeps the shape of the question within half an hour on two cores.
        smoke: the profile that runs every row in seconds.
        embedded: settings of a version on what the package carries, beside EMBEDDED_SETTINGS; empty where there is none.
        fractions: the default of `--fractions`; empty where the rows do not differ by the share of the data.
    """

    name: str
    title: str
    question: str
    settings: Mapping[str, Any]
    rows: Callable[..., list[Row]]
    quick: Profile
    smoke: Profile = SMOKE_PROFILE
    embedded: Mapping[str, Any] = field(default_factory=dict)
    fractions: tuple[float, ...] = ()

    def configure(self, overrides: Mapping[str, Any], profile: str = PAPER, fractions: Sequence[float] = ()) -> list[Row]:
        """The rows of a profile, with `overrides` of its settings.

        Raises:
            ConfigError: an override that the rows themselves set, so that it would change nothing.
        """
        size = {PAPER: Profile(), QUICK: self.quick, SMOKE: self.smoke}[profile]
        rows = self._rows({**self.settings, **size.settings, **overrides}, fractions)
        for name, value in overrides.items():
            without = {key: other for key, other in overrides.items() if key != name}
            if (
                any(row.config.to_dict()[name] != value for row in rows)
                and self._rows({**self.settings, **size.settings, **without}, fractions) == rows
            ):
                choice = f"use `{name}s` to choose them" if name == "fraction" and self.fractions else "leave it out"
                raise ConfigError(f"`{name}`: the rows of {self.name} set it; {choice}.")
        return rows if "image_size" in overrides else [size.apply(row) for row in rows]

    def _rows(self, settings: Mapping[str, Any], fractions: Sequence[float]) -> list[Row]:
        base = RunConfig().replace(**settings)
        return self.rows(base, fractions or self.fractions) if self.fractions else self.rows(base)

    def departures(self, rows: Sequence[Row]) -> list[str]:
        """The settings in which `rows` differ from those of the report, e.g. `epochs 6`."""
        reported = {row.label: row.config.identity() for row in self.configure({}, fractions=[row.x for row in rows if row.x])}
        found: dict[str, None] = {}
        for row in rows:
            paper = reported[row.label]
            found |= {f"{name} {value}": None for name, value in row.config.identity().items() if value != paper[name]}
        return list(found)


@dataclass(frozen=True)
class Order:
    """What of an experiment is run, and where.

    Attributes:
        overrides: settings that the user gave, by flat name.
        labels: the rows to run; empty: all.
        on_missing: `error`, or `embedded`: what the package carries stands in for missing data and weights.
        command: how it was started, for the report.
        verbose: 0 silent, 1 a progress bar, 2 a line each epoch.
        explain: only say what each row would train and cost.
    """

    runs_dir: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    profile: str = PAPER
    fractions: Sequence[float] = ()
    labels: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    on_missing: str = "error"
    command: str = ""
    verbose: int = 0
    explain: bool = False


def execute(experiment: Experiment, order: Order) -> list[Path]:
    """Run every row with every seed, print the table and write the report; the files of the report.

    Finished runs are skipped and interrupted ones resumed.

    Raises:
        UserError: before the first run for everything that can be known by then.
    """
    if order.explain:
        return _explain(experiment, order)
    from tl_keras import report
    from tl_keras.runs.run import run

    rows, embedded = available(experiment, order)
    directory = order.runs_dir / _directory_name(experiment, order.profile, embedded)
    jobs = [(row, row.config.replace(seed=seed)) for row in rows for seed in order.seeds]
    for number, (row, config) in enumerate(jobs, start=1):
        place = run_directory(directory, row, config)
        done = " (finished before)" if RunDirectory(place).load_if_finished(config) else ""
        print(f"[{number}/{len(jobs)}] {row.label}, seed {config.seed}: {place}{done}", flush=True)
        run(config, place, name=row.label, verbose=order.verbose)
        gc.collect()  # a model is a cycle of references: the next one would be built beside it
    results = report.collect(
        experiment,
        rows,
        order.seeds,
        directory,
        embedded=embedded,
        command=order.command,
        profile=order.profile,
        departures=[] if embedded else experiment.departures(rows),
    )
    report.print_table(results)
    return report.write_report(results, directory)


def _explain(experiment: Experiment, order: Order) -> list[Path]:
    from tl_keras.runs.explain import explain

    for row in _chosen(experiment.configure(order.overrides, order.profile, order.fractions), order.labels):
        print(f"== {row.label}\n{explain(row.config)}\n", flush=True)
    return []


def _directory_name(experiment: Experiment, profile: str, embedded: bool) -> str:
    return "-".join([experiment.name, *(["embedded"] if embedded else []), *([profile] if profile != PAPER else [])])


def available(experiment: Experiment, order: Order) -> tuple[list[Row], bool]:
    """The rows to run, checked, with stand-ins for what is not at hand; and whether they are the embedded version.

    Raises:
        ConfigError: an impossible setting, or a row that the experiment has not.
        MissingError: data or weights are missing and nothing may stand in for them.
    """
    from tl_keras.runs.setup import plan, require

    rows = _chosen(experiment.configure(order.overrides, order.profile, order.fractions), order.labels)
    for row in rows:
        plan(row.config)
    try:
        for row in rows:
            require(row.config)
    except MissingError as error:
        if order.on_missing == "error":
            raise
        embedded = bool(experiment.embedded) and order.profile != SMOKE
        print(EMBEDDED_NOTICE.format(error=error), flush=True)
        if embedded:
            rows = _chosen(experiment.configure({**EMBEDDED_SETTINGS, **experiment.embedded}, fractions=order.fractions), order.labels)
            return rows, True
        rows = [_with_stand_ins(row) for row in rows]
    return rows, False


def _chosen(rows: list[Row], labels: Sequence[str]) -> list[Row]:
    names = [row.label for row in rows]
    for label in labels:
        if label not in names:
            raise ConfigError(str(unknown("row", label, names)), setting="rows", value=label)
    return [row for row in rows if row.label in labels] if labels else rows


def _with_stand_ins(row: Row) -> Row:
    settings, notes = stand_ins_of(row.config)
    return replace(row, config=row.config.replace(**settings), stand_ins=notes)


def run_directory(directory: Path, row: Row, config: RunConfig) -> Path:
    """Where a run lies: its row, its seed, and a digest that keeps runs of other settings apart."""
    slug = "".join(letter if letter.isalnum() else "-" for letter in row.label.lower())
    slug = "-".join(part for part in slug.split("-") if part)
    return directory / f"{slug}-seed{config.seed}-{config.digest()}"


def like_resnet(base: RunConfig, *names: str) -> tuple[str, ...]:
    """Return the stages of the backbone of `base` that correspond to the stages `names` of a ResNet."""
    return resnet_equivalent_stages(get_backbone(base.model.backbone), *names)
