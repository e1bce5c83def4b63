"""Every experiment by name: its rows are those of the reports' tables, all can be resolved at every size, and stand-ins are marked."""

import importlib
import re
from collections import Counter
from itertools import takewhile
from pathlib import Path

import pytest

from experiments.all import experiments
from tl_keras.backbones import get_backbone, resnet_equivalent_stages
from tl_keras.cli import experiment
from tl_keras.errors import ConfigError, MissingError
from tl_keras.report import load_experiment, write_report
from tl_keras.runs.experiment import PROFILES, SMOKE, ExperimentOptions, resolve_rows, run_experiment
from tl_keras.runs.resolve import resolve

ROOT = Path(__file__).parents[1]
EXPERIMENTS = {experiment.name: experiment for experiment in experiments()}

EXPERIMENT_TARGETS = re.search(r"EXPERIMENTS := ((?:\\\n|.)*)", (ROOT / "Makefile").read_text())[1].replace("\\", " ").split()

# Experiment -> rows with a reported accuracy, and rows without one: ours, and runs that the report does not print.
NUM_ROWS = {
    "part_a": (6, 0),
    "part_b": (2, 0),
    "part_c": (4, 0),
    "adaptation": (2, 0),
    "scratch_stem": (2, 0),
    "table1": (16, 0),
    "lora": (1, 4),
    "pets_binary": (1, 0),
    "pets_last_l": (5, 0),
    "pets_factors": (4, 0),
    "pets_gradual": (5, 0),
    "pets_imbalance": (7, 2),
    "pets_resnet50": (6, 7),
    "pets_batchnorm": (2, 1),
    "resnet50": (0, 10),
    "precision": (0, 2),
}

# Heading or first words before a table of the reports -> the experiments that its accuracies are rows of.
TABLES = {
    "| data | pre-trained test acc": ("part_a",),
    "| model | test acc | test loss": ("part_b",),
    "| strategy | frozen |": ("part_c",),
    "| approach | trained |": ("adaptation",),
    "| model | input | trained |": ("scratch_stem", "table1"),
    "| l | 1 | 2": ("pets_last_l",),
    "| factor at l = 3 | baseline | lr 0.01": ("pets_factors",),
    "| factor | test acc | time": ("pets_gradual",),
    "| dog majority, l =": ("pets_imbalance",),
    "| factor at l = 3 | baseline | weighted": ("pets_imbalance",),
    "| optimizer | l = 0": ("pets_resnet50",),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_number_of_rows(name):
    rows = EXPERIMENTS[name].configure({})
    reported = sum("test accuracy" in row.published for row in rows)
    assert (reported, len(rows) - reported) == NUM_ROWS[name]
    assert len({row.label for row in rows}) == len(rows) == len({row.config.identity().__repr__() for row in rows})


def accuracies(report: str, head: str) -> Counter:
    """The test accuracies of the table whose first line begins with `head`: numbers of two digits, or with one or two decimals, in
    the columns that hold accuracies."""
    lines = report.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(head))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in takewhile(lambda line: line.startswith("|"), lines[start:])]
    heading, body = table[0], table[2:]
    columns = [index for index, title in enumerate(heading) if "test acc" in title] or range(1, len(heading))
    cells = [row[index] for row in body for index in columns]
    return Counter(float(match[0]) for cell in cells if (match := re.match(r"\d\d(\.\d+)?(?= |$)", cell)))


@pytest.mark.parametrize("head", TABLES)
def test_every_accuracy_of_the_reports_is_a_row(head, shared):
    reported = accuracies((shared / "reports.md").read_text(), head)
    ours = Counter(
        row.published["test accuracy"]
        for name in TABLES[head]
        for row in EXPERIMENTS[name].configure({})
        if "test accuracy" in row.published
    )
    assert len(reported) > 1 and not reported - ours, reported - ours


def test_accuracies_that_stand_in_the_text_of_the_reports_are_rows(shared):
    report = (shared / "reports.md").read_text()
    for name in ("pets_binary", "pets_batchnorm", "pets_imbalance", "lora"):
        for row in EXPERIMENTS[name].configure({}):
            assert all(f"{value:g}" in report or f"{value:.2f}" in report for value in row.published.values()), row


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_row_of_every_profile_can_be_planned(name, profile):
    for row in EXPERIMENTS[name].configure({}, profile):
        resolved = resolve(row.config)
        assert sum(phase.epochs for phase in resolved.phases) == row.config.train.epochs
        assert profile != SMOKE or (resolved.geometry.image_size <= 64 and row.config.data.limit_train <= 128)


@pytest.mark.parametrize("backbone", ["mobilenet_0.75", "resnet50", "vit_b16", "vgg16", "alexnet"])
@pytest.mark.parametrize("name", ["part_c", "pets_last_l", "pets_factors", "pets_gradual", "pets_imbalance"])
def test_another_backbone_can_stand_in(name, backbone):
    rows = EXPERIMENTS[name].configure({"backbone": backbone, "epochs": 20})
    assert all(resolve(row.config).backbone.name == backbone for row in rows)


def test_stages_that_lie_where_a_resnet_has_them():
    for stage in ("stem", "layer1", "layer2", "layer3", "layer4"):
        assert resnet_equivalent_stages(get_backbone("resnet18"), stage) == (stage,)
    mobilenet = get_backbone("mobilenet_0.75")
    assert resnet_equivalent_stages(mobilenet, "layer3", "layer4") == ("block4", "block5")
    assert resnet_equivalent_stages(mobilenet, "stem") == ("stem", "block1")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_docstring_and_make_target(name):
    text = importlib.import_module(f"experiments.{name}").__doc__
    target = f"exp-{name.replace('_', '-')}"
    assert all(part in text for part in ("Question:", f"make {target}", f"experiments.{name}", "What differs:", "eport"))
    assert target == "exp-part-a" or target.removeprefix("exp-") in EXPERIMENT_TARGETS


@pytest.mark.parametrize(
    ("name", "overrides"), [("part_a", {"fraction": 0.1}), ("part_c", {"strategy": "full"}), ("part_b", {"backbone": "resnet34"})]
)
def test_an_override_that_the_rows_set_is_refused(name, overrides):
    with pytest.raises(ConfigError, match=f"--{next(iter(overrides))}.*rows of {name} set it"):
        EXPERIMENTS[name].configure(overrides)


def test_departures_are_what_differs_from_the_report():
    experiment = EXPERIMENTS["part_c"]
    assert experiment.changed_settings(experiment.configure({})) == []
    rows = experiment.configure({"epochs": 6}, "quick")
    assert experiment.changed_settings(rows) == ["fraction 0.1", "image_size 64", "epochs 6"]


def test_rows_are_chosen_by_label(tmp_path, capsys):
    arguments = [f"--runs_dir={tmp_path}", "--rows=l = 2,l = 9"]
    module = importlib.import_module("experiments.pets_last_l")
    assert experiment.experiment_main(module.EXPERIMENT, module.__doc__, arguments) == ConfigError.exit_code
    message = capsys.readouterr().err
    assert "l = 9" in message and "l = 3" in message


TINY = {"backbone": "mobilenet_0.25", "image_size": 32, "limit_train": 40, "limit_test": 20, "batch_size": 20, "precision": "float32"}


def test_stand_ins_are_needed_named_and_marked(offline, tmp_path):
    experiment = EXPERIMENTS["pets_imbalance"]
    options = ExperimentOptions(tmp_path, TINY, profile=SMOKE, labels=["over-sampling"])
    with pytest.raises(MissingError, match="oxford_iiit_pet"):
        resolve_rows(experiment, options)
    options = ExperimentOptions(tmp_path, TINY, profile=SMOKE, labels=options.labels, on_missing="embedded")
    rows, embedded = resolve_rows(experiment, options)
    assert not embedded and {row.fallbacks for row in rows} == {("random weights for imagenet", "digits for oxford_iiit_pet")}
    assert {row.config.data.keep for row in rows} == {"even:0.25"}
    directory = run_experiment(experiment, options)
    assert directory == tmp_path / "pets_imbalance-smoke"
    results = load_experiment(directory / "experiment.json")
    assert results.profile == SMOKE and [results.difference(row) for row in results.rows] == [None]
    write_report(results, directory)
    page = (directory / "report.md").read_text()
    assert "digits for oxford" in page and "random weights" in page
