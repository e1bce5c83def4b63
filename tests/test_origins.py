"""Origins of settings: how they are written, what changes them, and that every row of every experiment has them."""

import dataclasses

import pytest

from experiments.all import experiments
from tl_keras.config import SETTINGS, RunConfig
from tl_keras.results.experiment_file import CHANGED, CHOSEN, METRICS, SAID, SHOWN
from tl_keras.runs.experiment import PROFILES, SMOKE, Experiment, Profile, RunSpec
from tl_keras.runs.fallbacks import EMBEDDED_SETTINGS
from tl_keras.runs.origins import REQUIRED, Settings, chosen, said, shown

EXPERIMENTS = {experiment.name: experiment for experiment in experiments()}
RELATIVE_METRICS = {"accuracy difference", "parameter ratio", "speed ratio"}


def test_settings_are_merged_with_their_origins():
    merged = said(epochs=10, optimizer="sgd") | shown(momentum=0.9) | chosen(optimizer="adam")
    assert dict(merged) == {"epochs": 10, "optimizer": "adam", "momentum": 0.9}
    assert dict(merged.origins) == {"epochs": SAID, "optimizer": CHOSEN, "momentum": SHOWN}
    assert RunConfig().replace(**merged).train.momentum == 0.9


def test_settings_cannot_be_changed_in_place():
    settings = said(epochs=10)
    with pytest.raises(TypeError):
        settings["epochs"] = 3
    with pytest.raises(TypeError):
        settings.origins["epochs"] = SHOWN


def make_rows(base, fractions=()):
    """Return two rows: one with the settings of the experiment, one that changes three of them."""
    changes = shown(strategy="last:1") | chosen(l2=0.01, epochs=4)
    plain = RunSpec("plain", "plain", base)
    return [plain, RunSpec("changed", "changed", base.replace(**changes), origins=changes.origins)]


EXAMPLE = Experiment(
    name="example",
    title="Example",
    question="?",
    settings=said(backbone="resnet18", epochs=10, strategy="head") | shown(l2=0.0),
    rows=make_rows,
    quick=Profile({"epochs": 2, "limit_train": 100}, max_image_size=64),
)


def settings_of(experiment, *arguments, **keywords):
    """Return label -> settings of the rows that `configure` returns."""
    rows = experiment.configure(*arguments, **keywords)
    return {row.label: settings for row, settings in zip(rows, experiment.settings_of(rows), strict=True)}


def test_origins_of_a_row_win_over_those_of_the_experiment():
    found = settings_of(EXAMPLE, {})
    assert found["plain"].keys() == found["changed"].keys() == {*REQUIRED}
    names = ("backbone", "epochs", "strategy", "l2", "dataset")
    plain, changed = [[found[label][name] for name in names] for label in ("plain", "changed")]
    assert plain == [("resnet18", SAID), (10, SAID), ("head", SAID), (0.0, SHOWN), ("cifar10", CHOSEN)]
    assert changed == [("resnet18", SAID), (4, CHOSEN), ("last:1", SHOWN), (0.01, CHOSEN), ("cifar10", CHOSEN)]


def test_overrides_and_profiles_change_settings():
    quick = settings_of(EXAMPLE, {}, "quick")
    assert {name for name, (_, origin) in quick["plain"].items() if origin == CHANGED} == {"epochs", "limit_train", "image_size"}
    assert {name for name, (_, origin) in quick["changed"].items() if origin == CHANGED} == {"limit_train", "image_size"}
    overridden = settings_of(EXAMPLE, {"l2": 0.5, "backbone": "resnet18"})
    assert overridden["plain"]["l2"] == (0.5, CHANGED) and overridden["plain"]["backbone"] == ("resnet18", SAID)
    assert EXAMPLE.changed_settings(EXAMPLE.configure({}, "quick")) == ["limit_train 100", "image_size 64", "epochs 2"]


def test_a_fallback_changes_a_setting():
    rows = [dataclasses.replace(row, config=row.config.replace(weights="none")) for row in EXAMPLE.configure({})]
    assert [settings["weights"] for settings in EXAMPLE.settings_of(rows)] == [("none", CHANGED)] * 2


def test_a_fraction_that_the_experiment_does_not_have_is_a_change():
    found = settings_of(EXPERIMENTS["part_a"], {}, fractions=[0.1, 0.3]).values()
    assert [settings["fraction"] for settings in found] == [(0.1, SAID), (0.1, SAID), (0.3, CHANGED), (0.3, CHANGED)]


def test_a_setting_that_matters_in_one_row_is_listed_in_all():
    def rows(base):
        changes = said(stem="cifar")
        return [RunSpec("a", "a", base), RunSpec("b", "b", base.replace(**changes), origins=changes.origins)]

    found = settings_of(dataclasses.replace(EXAMPLE, rows=rows), {})
    assert found["a"]["stem"] == ("imagenet", CHOSEN) and found["b"]["stem"] == ("cifar", SAID)


def test_required_settings_are_settings():
    assert set(REQUIRED) <= SETTINGS.keys() and len(set(REQUIRED)) == len(REQUIRED)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_setting_of_every_row_has_an_origin(name):
    """A setting that a row sets itself needs an origin of the row: that of the experiment belongs to the experiment's value."""
    experiment = EXPERIMENTS[name]
    rows, defaults = experiment.configure({}), RunConfig().identity()
    assert isinstance(experiment.settings, Settings)
    for row, settings in zip(rows, experiment.settings_of(rows), strict=True):
        values = row.config.identity()
        own = {setting for setting in values if values[setting] != experiment.settings.get(setting, defaults[setting])}
        assert own <= row.origins.keys(), f"{row.label}: {own - row.origins.keys()} without an origin in the row"
        needed = {*REQUIRED, *(setting for setting in values if values[setting] != defaults[setting])}
        needed -= experiment.settings.origins.keys() | row.origins.keys()
        assert not needed, f"{row.label}: {needed} without an origin"
        assert {origin for _, origin in settings.values()} <= {SAID, SHOWN, CHOSEN}


def other_value(name):
    """Return a value of a setting that is not its default."""
    choices, default = SETTINGS[name].metadata["choices"], SETTINGS[name].default
    if choices:
        return next(choice for choice in choices if choice != default)
    if type(default) is str:
        return "step" if name == "schedule" else f"not {default}"  # schedules are checked at once, other names when they are used
    if type(default) is bool:
        return not default
    return default + 7 if type(default) is int else default / 2 or 0.125


def all_rows(experiment):
    """Yield the rows of every profile and those of the embedded version."""
    for profile in PROFILES:
        yield from experiment.configure({}, profile)
    if experiment.embedded:
        yield from experiment.configure({**EMBEDDED_SETTINGS, **experiment.embedded})


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_rows_do_not_depend_on_the_defaults_of_settings_that_matter(name, monkeypatch):
    """Defaults suit a first user and may change. The rows keep their identity, so what was run before is still theirs."""
    rows = list(all_rows(EXPERIMENTS[name]))
    other_defaults = RunConfig().replace(**{setting: other_value(setting) for setting in REQUIRED})
    assert all(other_defaults.to_dict()[setting] != SETTINGS[setting].default for setting in REQUIRED)
    monkeypatch.setattr("tl_keras.runs.experiment.RunConfig", lambda: other_defaults)
    assert list(all_rows(EXPERIMENTS[name])) == rows


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_of_every_profile_are_those_of_the_paper_or_changed(name):
    experiment = EXPERIMENTS[name]
    paper = settings_of(experiment, {})
    for profile in PROFILES:
        for label, settings in settings_of(experiment, {}, profile).items():
            kept = {setting: pair for setting, pair in settings.items() if pair[1] != CHANGED}
            assert all(paper[label].get(setting, pair) == pair for setting, pair in kept.items())
            assert profile != SMOKE or kept.keys() < settings.keys()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_published_values_have_known_metrics_and_a_reference(name):
    experiment = EXPERIMENTS[name]
    rows = experiment.configure({})
    found = {metric for row in rows for metric in row.published}
    assert found <= set(METRICS)
    assert bool(experiment.reference) >= bool(found & RELATIVE_METRICS)
    assert not experiment.reference or experiment.reference in {name for row in rows for name in (row.label, row.line)}
