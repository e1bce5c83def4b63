"""Experiments: named lists of runs with the published values that they are compared with."""

import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tl_keras.backbones import get_backbone
from tl_keras.config import SETTINGS, RunConfig
from tl_keras.errors import ConfigError, MissingError, unknown
from tl_keras.results.experiment_file import (
    CHANGED,
    CHOSEN,
    EXPERIMENT_FILE,
    PAPER,
    ExperimentRecord,
    RowRecord,
    SettingsWithOrigins,
    write_experiment_file,
)
from tl_keras.runs.fallbacks import EMBEDDED_NOTICE, EMBEDDED_SETTINGS, fallbacks_for
from tl_keras.runs.origins import REQUIRED, Settings
from tl_keras.runs.resolve import ResolvedRun, check_available, resolve

if TYPE_CHECKING:
    import keras

QUICK, SMOKE = "quick", "smoke"
PROFILES = (PAPER, QUICK, SMOKE)


@dataclass(frozen=True)
class RunSpec:
    """One row of an experiment: the run of each seed, and the published values.

    Attributes:
        label: name of the row in the table and in `rows`.
        line: rows of the same `line` form one line of a plot.
        config: all settings of the runs. Its seed is added to those of the options, so a row that repeats the settings of another with
            a seed of its own is another run.
        train_fraction: fraction of the training data, or None if the rows do not differ by it.
        published: metric -> value in the source report; `results/experiment_file.py` lists the metrics and their units.
        published_curve: epoch -> (training loss or None, training accuracy in per cent) in the source report.
        fallbacks: replacements of missing data and weights, e.g. `random weights for imagenet`.
        origins: origins of the settings that the row itself sets; they win over those of the experiment.
    """

    label: str
    line: str
    config: RunConfig
    train_fraction: float | None = None
    published: Mapping[str, float] = field(default_factory=dict)
    published_curve: Mapping[int, tuple[float | None, float]] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)


Row = RunSpec  # the public name of earlier versions


@dataclass(frozen=True)
class Profile:
    """Size of an experiment.

    Attributes:
        settings: settings that replace those of the experiment, by flat name.
        max_image_size: largest side of an image in pixels; 0: no limit.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    max_image_size: int = 0

    def apply(self, row: RunSpec) -> RunSpec:
        """Return `row` with images of at most `max_image_size`."""
        model = row.config.model
        size = model.image_size or get_backbone(model.backbone).image_size
        return replace(row, config=row.config.replace(image_size=self.max_image_size)) if 0 < self.max_image_size < size else row


# Four steps on a few images show that a row runs. Its accuracy means nothing.
SMOKE_SETTINGS = MappingProxyType(
    {"limit_train": 128, "limit_test": 64, "validation_fraction": 0.01, "batch_size": 32, "epochs": 1, "save_model": False}
)
SMOKE_PROFILE = Profile(SMOKE_SETTINGS, max_image_size=64)


@dataclass(frozen=True)
class Experiment:
    """A question, its settings and its rows.

    Attributes:
        name: name of the module and of the directory of results.
        title, question: headline and question of the report.
        settings: settings of the profile `paper`, with their origins. All that matter are named, also those that equal the defaults.
        rows: base configuration -> rows; with `fractions`, (base configuration, fractions) -> rows.
        quick: profile that answers the question in miniature, within half an hour on two cores.
        smoke: profile that runs every row in seconds.
        embedded: settings of the version on bundled data and weights, besides EMBEDDED_SETTINGS; empty: there is no such version.
        fractions: default of the flag `fractions`; empty if the rows do not differ by the fraction of the training data.
        reference: label of the row that `accuracy difference`, `parameter ratio` and `speed ratio` compare the others with, or its
            line, which stands for the row with the same fraction; empty: there is none.
        callbacks: (configuration, run directory) -> Keras callbacks of that run.
        write_files: writes tables and plots beside those of the report into the directory of results, and returns their paths.
    """

    name: str
    title: str
    question: str
    settings: Settings
    rows: Callable[..., list[RunSpec]]
    quick: Profile
    smoke: Profile = SMOKE_PROFILE
    embedded: Mapping[str, Any] = field(default_factory=dict)
    fractions: tuple[float, ...] = ()
    reference: str = ""
    callbacks: "Callable[[RunConfig, Path], Sequence[keras.callbacks.Callback]]" = lambda config, run_dir: ()
    write_files: Callable[[Path], Sequence[Path]] = lambda directory: ()

    def configure(self, overrides: Mapping[str, Any], profile: str = PAPER, fractions: Sequence[float] = ()) -> list[RunSpec]:
        """Return the rows of a profile with `overrides` of its settings.

        Raises:
            ConfigError: The rows themselves set an override, so it would change nothing.
        """
        size = {PAPER: Profile(), QUICK: self.quick, SMOKE: self.smoke}[profile]
        settings = {**self.settings, **size.settings}
        rows = self._rows({**settings, **overrides}, fractions)
        for name, value in overrides.items():
            others = {key: other for key, other in overrides.items() if key != name}
            is_overruled = any(row.config.to_dict()[name] != value for row in rows)
            if is_overruled and self._rows({**settings, **others}, fractions) == rows:
                advice = f"use `{name}s` to choose them" if name == "fraction" and self.fractions else "leave it out"
                raise ConfigError(f"`{name}`: the rows of {self.name} set it; {advice}.")
        return rows if "image_size" in overrides else [size.apply(row) for row in rows]

    def _rows(self, settings: Mapping[str, Any], fractions: Sequence[float]) -> list[RunSpec]:
        base = RunConfig().replace(**settings)
        return self.rows(base, fractions or self.fractions) if self.fractions else self.rows(base)

    def settings_of(self, rows: Sequence[RunSpec]) -> list[SettingsWithOrigins]:
        """Return the settings of each row that matter, with their origins.

        A setting matters if it is in `REQUIRED`, if the experiment or a row names it, or if a row does not have its default. Its origin
        is `changed` if the row has another value in the profile `paper`, and `chosen` if neither the row nor the experiment names it.
        """
        fractions = [row.train_fraction for row in rows if row.train_fraction]
        paper = {row.label: row for row in self.configure({}, fractions=fractions)}
        configs = [spec.config for row in rows for spec in (row, paper[row.label])]
        matters = {*REQUIRED, *self.settings, *(name for row in rows for name in row.origins)}
        matters |= {name for config in configs for name, value in config.identity().items() if value != SETTINGS[name].default}
        return [self._with_origins(row, paper[row.label].config, matters) for row in rows]

    def _with_origins(self, row: RunSpec, paper: RunConfig, names: Collection[str]) -> SettingsWithOrigins:
        origins = {**self.settings.origins, **row.origins}
        if row.train_fraction not in (None, *self.fractions):
            origins["fraction"] = CHANGED
        values, published = row.config.identity(), paper.identity()
        same = {name: values[name] == published[name] for name in values if name in names}
        return {name: (values[name], origins.get(name, CHOSEN) if is_same else CHANGED) for name, is_same in same.items()}

    def changed_settings(self, rows: Sequence[RunSpec]) -> list[str]:
        """Return the settings of `rows` that differ from the profile `paper`, e.g. `epochs 6`."""
        pairs = [(name, *setting) for settings in self.settings_of(rows) for name, setting in settings.items()]
        return list(dict.fromkeys(f"{name} {value}" for name, value, origin in pairs if origin == CHANGED))


@dataclass(frozen=True)
class ExperimentOptions:
    """Choice of what to run of an experiment, and of the directory for the results.

    Attributes:
        runs_dir: directory of all results.
        overrides: settings that the user gave, by flat name.
        profile: one of PROFILES.
        fractions: fractions of the training data; empty: those of the experiment.
        labels: labels of the rows to run; empty: all.
        seeds: seeds of the runs of each row.
        on_missing: `error`, or `embedded` to replace missing data and weights by bundled ones.
        command: command line that started the experiment, for the report.
        verbose: 0: silent; 1: a progress bar; 2: one line per epoch.
        log: called with the messages for the user.
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
    log: Callable[[str], None] = print


def run_experiment(experiment: Experiment, options: ExperimentOptions, on_run: Callable[[Path], None] = lambda directory: None) -> Path:
    """Write `experiment.json`, run every row with every seed, and return the directory.

    Finished runs are skipped and interrupted runs are resumed.

    Args:
        on_run: called with the directory before each run that is not finished.

    Raises:
        UserError: Before the first run for every error that can be found by then.
    """
    from tl_keras.runs.run import load_finished, run_resolved

    rows, embedded = available_rows(experiment, options)
    directory = options.runs_dir / _directory_name(experiment, options.profile, embedded)
    jobs = [(row, _seeded(row, seed)) for row in rows for seed in options.seeds]
    write_experiment_file(directory / EXPERIMENT_FILE, _record(experiment, options, rows, embedded))
    for number, (row, config) in enumerate(jobs, start=1):
        run_dir, resolved = directory / _run_dir_name(row, config), resolve(config)
        is_finished = load_finished(resolved, run_dir) is not None
        if not is_finished:
            on_run(directory)
        done = " (finished before)" if is_finished else ""
        options.log(f"[{number}/{len(jobs)}] {row.label}, seed {config.seed}: {run_dir}{done}")
        if not is_finished:
            run_resolved(resolved, run_dir, name=row.label, callbacks=experiment.callbacks(config, run_dir), verbose=options.verbose)
            gc.collect()  # A model is a cycle of references and would still be in memory while the next one is built.
    return directory


def explain_experiment(experiment: Experiment, options: ExperimentOptions) -> Iterator[str]:
    """Yield a description of each row: what it would train, and what that would cost. Nothing is run."""
    from tl_keras.runs.explain import explain

    for row in _rows(experiment, options):
        yield f"== {row.label}\n{explain(row.config)}\n"


def resolve_rows(experiment: Experiment, options: ExperimentOptions) -> list[ResolvedRun]:
    """Return the resolved rows that `options` select. Loads neither TensorFlow nor data.

    Raises:
        ConfigError: A setting is impossible, or the experiment has no such row.
    """
    return [resolve(row.config) for row in _rows(experiment, options)]


def _rows(experiment: Experiment, options: ExperimentOptions) -> list[RunSpec]:
    return _select_rows(experiment.configure(options.overrides, options.profile, options.fractions), options.labels)


def available_rows(experiment: Experiment, options: ExperimentOptions) -> tuple[list[RunSpec], bool]:
    """Return the rows to run, and whether they are the embedded version of the experiment.

    With `on_missing=embedded`, fallbacks replace missing data and weights.

    Raises:
        ConfigError: A setting is impossible, or the experiment has no such row.
        MissingError: Data or weights are missing, and `on_missing` is `error`.
    """
    rows = _rows(experiment, options)
    try:
        for resolved in resolve_rows(experiment, options):
            check_available(resolved)
    except MissingError as error:
        if options.on_missing == "error":
            raise
        options.log(EMBEDDED_NOTICE.format(error=error))
        if experiment.embedded and options.profile != SMOKE:
            embedded = {**EMBEDDED_SETTINGS, **experiment.embedded}
            return _select_rows(experiment.configure(embedded, fractions=options.fractions), options.labels), True
        rows = [_with_fallbacks(row) for row in rows]
    return rows, False


def _select_rows(rows: list[RunSpec], labels: Sequence[str]) -> list[RunSpec]:
    known = [row.label for row in rows]
    for label in labels:
        if label not in known:
            raise unknown("row", label, known, setting="rows", value=label)
    return [row for row in rows if row.label in labels] if labels else rows


def _with_fallbacks(row: RunSpec) -> RunSpec:
    settings, fallbacks = fallbacks_for(row.config)
    return replace(row, config=row.config.replace(**settings), fallbacks=fallbacks)


def _directory_name(experiment: Experiment, profile: str, embedded: bool) -> str:
    return "-".join([experiment.name, *(["embedded"] if embedded else []), *([profile] if profile != PAPER else [])])


def _seeded(row: RunSpec, seed: int) -> RunConfig:
    return row.config.replace(seed=row.config.seed + seed)


def _run_dir_name(row: RunSpec, config: RunConfig) -> str:
    """Return the row, the seed, and a digest that separates runs with other settings."""
    letters = "".join(letter if letter.isalnum() else "-" for letter in row.label.lower())
    slug = "-".join(part for part in letters.split("-") if part)
    return f"{slug}-seed{config.seed}-{config.config_id()}"


def _record(experiment: Experiment, options: ExperimentOptions, rows: Sequence[RunSpec], embedded: bool) -> ExperimentRecord:
    return ExperimentRecord(
        name=experiment.name,
        title=experiment.title,
        question=experiment.question,
        command=options.command,
        profile=options.profile,
        embedded=embedded,
        changed_settings=() if embedded else tuple(experiment.changed_settings(rows)),
        reference=experiment.reference,
        rows=tuple(_row_record(row, settings, options.seeds) for row, settings in zip(rows, experiment.settings_of(rows), strict=True)),
    )


def _row_record(row: RunSpec, settings: SettingsWithOrigins, seeds: Sequence[int]) -> RowRecord:
    return RowRecord(
        label=row.label,
        line=row.line,
        train_fraction=row.train_fraction,
        published=dict(row.published),
        published_curve=dict(row.published_curve),
        settings=settings,
        fallbacks=row.fallbacks,
        runs=tuple(_run_dir_name(row, _seeded(row, seed)) for seed in seeds),
    )
