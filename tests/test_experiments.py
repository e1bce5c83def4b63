"""Experiments: their rows and published values, profiles, options, fallbacks and documentation."""

import importlib
import json
import re
import subprocess
from collections import Counter
from itertools import takewhile
from pathlib import Path

import pytest

from experiments.all import experiments
from tl_keras.backbones import get_backbone, resnet_equivalent_stages
from tl_keras.cli import experiment
from tl_keras.errors import ConfigError, MissingError
from tl_keras.report import load_experiment
from tl_keras.runs.experiment import PROFILES, SMOKE, ExperimentOptions, available_rows
from tl_keras.runs.resolve import resolve

ROOT = Path(__file__).parents[1]
EXPERIMENTS = {experiment.name: experiment for experiment in experiments()}

# Every published value that an experiment is compared with, read off the source reports by hand. Accuracies are in per cent, losses in
# nats, times in seconds.
PUBLISHED = json.loads((ROOT / "tests" / "data" / "published.json").read_text())

# Experiment -> number of rows with a published accuracy, and of rows without one.
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

# First words of a table of the source reports -> experiments whose rows hold its accuracies, and accuracies that no row holds.
TABLES = {
    "| data | pre-trained test acc": (("part_a",), ()),
    "| model | test acc | test loss": (("part_b",), ()),
    "| strategy | frozen |": (("part_c",), ()),
    "| approach | trained |": (("adaptation",), ()),
    "| model | input | trained |": (("scratch_stem", "table1"), ()),
    "| l | 1 | 2": (("pets_last_l",), ()),
    "| factor at l = 3 | baseline | higher rate": (("pets_factors",), ()),
    "| factor | baseline | higher rate": (("pets_gradual",), ()),
    "| dog majority, l =": (("pets_imbalance",), ()),
    "| factor at l = 3 | baseline | weighted": (("pets_imbalance",), ()),
    "| optimizer | l = 0": (("pets_resnet50",), (90.32, 90.57, 90.92)),  # l = 1 repeats l = 0
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_number_of_rows(name):
    rows = EXPERIMENTS[name].configure({})
    num_published = sum("test accuracy" in row.published for row in rows)
    assert (num_published, len(rows) - num_published) == NUM_ROWS[name]
    assert len({row.label for row in rows}) == len(rows) == len({row.config.identity().__repr__() for row in rows})


def published_values(name: str) -> dict[tuple[str, str], float]:
    """Return (label of the row, metric) -> published value of an experiment; points of its curves count as metrics."""
    values = {}
    for row in EXPERIMENTS[name].configure({}):
        values |= {(row.label, metric): value for metric, value in row.published.items()}
        for epoch, (loss, accuracy) in row.published_curve.items():
            values |= {(row.label, f"training loss, epoch {epoch}"): loss, (row.label, f"training accuracy, epoch {epoch}"): accuracy}
    return values


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_published_values_of_rows_are_those_of_the_list(name):
    listed = [entry for entry in PUBLISHED if entry["experiment"] == name]
    expected = {(entry["row"], entry["metric"]): entry["value"] for entry in listed}
    assert len(expected) == len(listed), "an entry of published.json is listed twice"
    assert published_values(name) == expected


def test_published_values_belong_to_experiments():
    assert PUBLISHED and {entry["experiment"] for entry in PUBLISHED} <= EXPERIMENTS.keys()


def accuracies(source: str, head: str) -> Counter:
    """Return the test accuracies of the table whose first line begins with `head`.

    They are the numbers of two digits, or with one or two decimals, in the columns that hold accuracies.
    """
    lines = source.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(head))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in takewhile(lambda line: line.startswith("|"), lines[start:])]
    heading, body = table[0], [row for row in table[2:] if not row[0].startswith("seconds")]
    columns = [index for index, title in enumerate(heading) if "test acc" in title]
    columns = columns or [index for index in range(1, len(heading)) if "seconds" not in heading[index]]
    cells = [row[index] for row in body for index in columns]
    return Counter(float(match[0]) for cell in cells if (match := re.match(r"\d\d(\.\d+)?(?= |$)", cell)))


@pytest.mark.parametrize("head", TABLES)
def test_every_accuracy_of_the_source_reports_is_listed(head, shared):
    names, left_out = TABLES[head]
    found = accuracies((shared / "reports.md").read_text(), head)
    listed = Counter(entry["value"] for entry in PUBLISHED if entry["metric"] == "test accuracy" and entry["experiment"] in names)
    assert len(found) > 1 and found - listed == Counter(left_out)


def test_every_listed_value_is_in_the_source_reports(shared):
    numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", (shared / "reports.md").read_text())}
    assert [entry for entry in PUBLISHED if entry["value"] not in numbers] == []


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_of_every_row_are_possible_in_every_profile(name, profile):
    for row in EXPERIMENTS[name].configure({}, profile):
        resolved = resolve(row.config)
        assert sum(phase.epochs for phase in resolved.phases) == row.config.train.epochs
        assert profile != SMOKE or (resolved.geometry.image_size <= 64 and row.config.data.limit_train <= 128)


@pytest.mark.parametrize("backbone", ["mobilenet_0.75", "resnet50", "vit_b16", "vgg16", "alexnet"])
@pytest.mark.parametrize("name", ["part_c", "pets_last_l", "pets_factors", "pets_gradual", "pets_imbalance"])
def test_another_backbone_can_replace_that_of_the_source_report(name, backbone):
    rows = EXPERIMENTS[name].configure({"backbone": backbone, "epochs": 20})
    assert all(resolve(row.config).backbone.name == backbone for row in rows)


def test_stages_correspond_to_those_of_a_resnet():
    for stage in ("stem", "layer1", "layer2", "layer3", "layer4"):
        assert resnet_equivalent_stages(get_backbone("resnet18"), stage) == (stage,)
    mobilenet = get_backbone("mobilenet_0.75")
    assert resnet_equivalent_stages(mobilenet, "layer3", "layer4") == ("block4", "block5")
    assert resnet_equivalent_stages(mobilenet, "stem") == ("stem", "block1")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_docstring_and_make_target(name):
    text = importlib.import_module(f"experiments.{name}").__doc__
    target = f"exp-{name.replace('_', '-')}"
    assert all(part in text for part in ("Question:", f"make {target}", f"experiments.{name}", "What differs:", "source report"))
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert f"-m experiments.{name} " in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "overrides"), [("part_a", {"fraction": 0.1}), ("part_c", {"strategy": "full"}), ("part_b", {"backbone": "resnet34"})]
)
def test_an_override_that_the_rows_set_is_refused(name, overrides):
    with pytest.raises(ConfigError, match=f"`{next(iter(overrides))}`.*rows of {name} set it"):
        EXPERIMENTS[name].configure(overrides)


def test_changed_settings_are_those_that_differ_from_the_profile_paper():
    experiment = EXPERIMENTS["part_c"]
    assert experiment.changed_settings(experiment.configure({})) == []
    rows = experiment.configure({"epochs": 6}, "quick")
    assert experiment.changed_settings(rows) == ["fraction 0.1", "image_size 64", "epochs 6"]


def test_rows_are_selected_by_label(tmp_path, capsys):
    arguments = [f"--runs_dir={tmp_path}", "--rows=l = 2,l = 9"]
    module = importlib.import_module("experiments.pets_last_l")
    assert experiment.experiment_main(module.EXPERIMENT, module.__doc__, arguments) == ConfigError.exit_code
    message = capsys.readouterr().err
    assert "l = 9" in message and "l = 3" in message


TINY = {"backbone": "mobilenet_0.25", "image_size": 32, "limit_train": 40, "limit_test": 20, "batch_size": 20, "precision": "float32"}


def test_fallbacks_need_consent_and_are_named(offline, tmp_path):
    experiment = EXPERIMENTS["pets_imbalance"]
    options = ExperimentOptions(tmp_path, TINY, profile=SMOKE, labels=["over-sampling"])
    with pytest.raises(MissingError, match="oxford_iiit_pet"):
        available_rows(experiment, options)
    options = ExperimentOptions(tmp_path, TINY, profile=SMOKE, labels=options.labels, on_missing="embedded")
    rows, embedded = available_rows(experiment, options)
    assert not embedded and {row.fallbacks for row in rows} == {("random weights for imagenet", "digits for oxford_iiit_pet")}
    assert {row.config.data.keep for row in rows} == {"even:0.25"}


def test_an_experiment_with_fallbacks_prints_and_writes_a_marked_report(offline, low_resolution, tmp_path, capsys):
    module = importlib.import_module("experiments.pets_imbalance")
    overrides = [f"--{name}={value}" for name, value in TINY.items()]
    arguments = [f"--runs_dir={tmp_path}", "--profile=smoke", "--rows=over-sampling", "--on_missing=embedded", *overrides]
    assert experiment.experiment_main(module.EXPERIMENT, module.__doc__, arguments) == 0
    printed = capsys.readouterr().out
    directory = tmp_path / "pets_imbalance-smoke"
    parts = ("*** FALLBACKS ***", "--rows, --seeds", "[1/1] over-sampling, seed 0: ", module.EXPERIMENT.title, str(directory / "report.md"))
    positions = [printed.find(part) for part in parts]
    assert -1 not in positions and positions == sorted(positions)
    results = load_experiment(directory / "experiment.json")
    assert results.profile == SMOKE and [results.difference(row) for row in results.rows] == [None]
    page = (directory / "report.md").read_text()
    assert "digits for oxford" in page and "random weights" in page
