"""Experiments: their rows and published values, profiles, options, fallbacks and documentation."""

import importlib
import json
import re
import subprocess
from collections import Counter
from itertools import takewhile
from pathlib import Path

import pytest
from plain_config import PLAIN

from experiments.all import experiments
from tl_keras import report
from tl_keras.backbones import get_backbone, resnet_equivalent_stages
from tl_keras.cli import experiment, running_page
from tl_keras.config import SETTINGS
from tl_keras.errors import ConfigError, MissingError
from tl_keras.report import load_experiment
from tl_keras.runs.experiment import PROFILES, SMOKE, Experiment, ExperimentOptions, Profile, RunSpec, available_rows, run_experiment
from tl_keras.runs.origins import CHOSEN, SAID, SHOWN, Settings
from tl_keras.runs.resolve import resolve

ROOT = Path(__file__).parents[1]
EXPERIMENTS = {experiment.name: experiment for experiment in experiments()}

# Every published value that an experiment is compared with, read off the source reports by hand. Accuracies are in per cent, losses in
# nats, times in seconds.
PUBLISHED = json.loads((ROOT / "tests" / "data" / "published.json").read_text())

# Words in the heading of a column -> metric of its values, and their unit. In tables without these words, columns are rows and values
# are test accuracies.
COLUMNS = {
    "test acc": ("test accuracy", 1),
    "test loss": ("test loss", 1),
    "val loss": ("test loss", 1),  # the "validation" images of source report B are the test set
    "difference": ("accuracy difference", 1),
    "drop": ("accuracy difference", 1),
    "parameters": ("parameters", 1e6),
    "s / epoch": ("seconds per epoch", 1),
    "total time": ("seconds", 1),
}

# Experiment -> number of rows with a published accuracy, and of rows without one.
NUM_ROWS = {
    "part_a": (6, 0),
    "part_b": (2, 0),
    "part_c": (4, 0),
    "adaptation": (2, 1),
    "scratch_stem": (2, 1),
    "table1": (17, 1),
    "lora": (1, 4),
    "pets_binary": (1, 1),
    "pets_last_l": (5, 1),
    "pets_factors": (4, 2),
    "pets_gradual": (5, 5),
    "pets_imbalance": (7, 4),
    "pets_resnet50": (9, 13),
    "pets_batchnorm": (2, 3),
    "resnet50": (0, 19),
    "collapse": (0, 14),
    "precision": (0, 2),
}

# First words of a table of the source reports -> experiments whose rows hold its values, and accuracies that no row holds.
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
    "| optimizer | l = 0": (("pets_resnet50",), ()),
}

# Settings of the rows of source reports A, B, C and E, read off the reports by hand: experiment -> (settings of every row, label ->
# further settings of that row). Each setting has its value and its origin. Everything that is not here is chosen.
AUGMENTATION_224 = "resize+rotate:degrees=10,interpolation=nearest+flip"
PART = {"dataset": ("cifar10", SAID), "weights": ("imagenet", SAID), "epochs": (10, SAID), "image_size": (224, CHOSEN),
        "normalization": ("weights", CHOSEN), "optimizer": ("sgd", CHOSEN), "learning_rate": (1e-3, CHOSEN),
        "eval_mode_after": (-1, CHOSEN), "selection": ("last", CHOSEN), "augmentation": ("none", CHOSEN)}  # fmt: skip
PART_C = {
    **PART,
    "backbone": ("resnet18", SAID),
    "fraction": (0.5, CHOSEN),
    "batch_size": (64, CHOSEN),
    "frozen_mode": ("training", CHOSEN),
}
TABLE = {"dataset": ("cifar10", SAID), "normalization": ("cifar10", SAID), "augmentation": (AUGMENTATION_224, CHOSEN),
         "optimizer": ("sgd", CHOSEN), "momentum": (0.9, CHOSEN), "schedule": ("cosine", CHOSEN), "schedule_interval": ("epoch", CHOSEN),
         "epochs": (20, CHOSEN), "learning_rate": (1e-2, CHOSEN), "batch_size": (128, CHOSEN), "frozen_mode": ("training", CHOSEN),
         "batch_norm": ("train", CHOSEN)}  # fmt: skip
PRE_TRAINED = {**TABLE, "backbone": ("resnet18", SAID), "weights": ("imagenet", SAID)}
AT_32, CIFAR_STEM, ORIGINAL_STEM = {"image_size": (32, SAID)}, {"stem": ("cifar", SAID)}, {"stem": ("imagenet", SAID)}
AT_224 = {"image_size": (224, SAID), "augmentation": (AUGMENTATION_224, SAID), "strategy": ("full", SAID)}
FULL, PROBE = {"strategy": ("full", SAID)}, {"strategy": ("head", SAID), **ORIGINAL_STEM}
LISTED = {"optimizer": ("sgd", SHOWN), "momentum": (0.9, SHOWN), "schedule": ("cosine", SHOWN), "schedule_interval": ("epoch", SHOWN),
          "epochs": (20, SHOWN)}  # fmt: skip
VGG16 = {"backbone": ("vgg16", SAID), "weights": ("torchvision", SAID)}
HOMEWORK = {"dataset": ("cifar10", SAID), "backbone": ("alexnet", SAID), "weights": ("imagenet", SAID), "image_size": (224, SAID),
            "crop_fraction": (1.0, SAID), "batch_size": (128, SAID), "epochs": (10, SAID), "optimizer": ("adam", SAID),
            "learning_rate": (1e-3, SAID), "frozen_mode": ("training", SHOWN)}  # fmt: skip
ALL_LAYERS = {"strategy": ("full", SAID), "normalization": ("half", SAID)}
NOTE = {"dataset": ("cifar10", SAID), "backbone": ("resnet50_torch", SAID), "weights": ("imagenet_v1", SHOWN), "image_size": (32, SAID),
        "normalization": ("cifar10", CHOSEN), "optimizer": ("sgd", SAID), "learning_rate": (0.01, SAID), "momentum": (0.9, SAID),
        "schedule": ("constant", SAID), "augmentation": ("none", SAID), "strategy": ("full", SAID), "epochs": (20, CHOSEN),
        "l2": (0.0, CHOSEN), "weight_decay": (0.0, CHOSEN), "batch_size": (128, CHOSEN)}  # fmt: skip


def conv1_and(*stages: str) -> dict[str, tuple[object, str]]:
    """Return the settings of a row of source report C that trains fc, conv1 without its BatchNorm, and `stages`."""
    return {**AT_32, **CIFAR_STEM, "strategy": ("+".join(("train:stem/conv1", *stages)), SAID)}


SOURCE_SETTINGS = {
    "part_a": (
        {**PART, "backbone": ("alexnet", SAID), "strategy": ("full", SAID), "batch_size": (64, SAID)},
        {
            f"{line} {percent} %": {"fraction": (percent / 100, SAID), "weights": (weights, SAID)}
            for percent in (10, 20, 50)
            for line, weights in (("pre-trained", "imagenet"), ("from scratch", "none"))
        },
    ),
    "part_b": (
        {**PART, "fraction": (0.5, SAID), "strategy": ("full", CHOSEN), "batch_size": (64, CHOSEN)},
        {"ResNet18": {"backbone": ("resnet18", SAID)}, "VGG16": VGG16},
    ),
    "part_c": (
        {
            **PART,
            "backbone": ("resnet18", SAID),
            "fraction": (0.5, CHOSEN),
            "batch_size": (64, CHOSEN),
            "frozen_mode": ("training", CHOSEN),
        },
        {
            "none frozen": {"strategy": ("full", SAID)},
            "early frozen": {"strategy": ("freeze:layer1+layer2", SAID)},
            "middle frozen": {"strategy": ("freeze:layer2+layer3", SAID)},
            "last only trained": {"strategy": ("head", SAID)},
        },
    ),
    "adaptation": (
        HOMEWORK,
        {
            "representation learning": {
                "strategy": ("head", SAID),
                "normalization": ("imagenet", SAID),
                "validation_fraction": (0.2, SAID),
                "eval_mode_after": (-1, SHOWN),
                "selection": ("best", CHOSEN),
            },
            "full fine-tuning": {
                **ALL_LAYERS,
                "validation_fraction": (0.0, SHOWN),
                "eval_mode_after": (1, SHOWN),
                "selection": ("last", CHOSEN),
            },
            "meant: full fine-tuning": {
                **ALL_LAYERS,
                "validation_fraction": (0.2, SAID),
                "eval_mode_after": (-1, CHOSEN),
                "selection": ("best", CHOSEN),
            },
        },
    ),
    "scratch_stem": (
        {**TABLE, **AT_32, **FULL, "backbone": ("resnet18", SAID), "weights": ("none", SAID)},
        {
            "original stem": {**ORIGINAL_STEM, "extra_classes": (990, SHOWN)},
            "original stem with 10 classes": {**ORIGINAL_STEM, "extra_classes": (0, CHOSEN)},
            "CIFAR stem": {**CIFAR_STEM, "extra_classes": (0, SAID)},
        },
    ),
    "table1": (
        PRE_TRAINED,
        {
            "fc (original stem)": {**AT_32, **PROBE},
            "fc (original stem) after epoch 1": {**AT_32, **PROBE, "epochs": (1, SAID), "schedule": ("constant", CHOSEN)},
            "fc (original stem) at 224 px": {**PROBE, "image_size": (224, CHOSEN)},
            "fc+conv1": conv1_and(),
            "fc+conv1+layer1": conv1_and("layer1"),
            "fc+conv1+layer2": conv1_and("layer2"),
            "fc+conv1+layer3": conv1_and("layer3"),
            "fc+conv1+layer4": conv1_and("layer4"),
            "fc+conv1+layer1+layer4": conv1_and("layer1", "layer4"),
            "fc+conv1+layer2+layer3": conv1_and("layer2", "layer3"),
            "fc+conv1+layer1+layer2": conv1_and("layer1", "layer2"),
            "fc+conv1+layer3+layer4": conv1_and("layer3", "layer4"),
            "full": {**AT_32, **CIFAR_STEM, **FULL},
            "full with different lr": {
                **conv1_and("layer1", "layer2", "layer3", "layer4"),
                **LISTED,
                "strategy": ("train:stem/conv1+layer1+layer2+layer3+layer4", SHOWN),
                "stage_learning_rates": ("stem=7e-3,head=1e-2,*=5e-3", SAID),
            },
            "full at 224 px": {**AT_224, **ORIGINAL_STEM},
            "VGG16 full at 32 px": {**AT_32, **FULL, **VGG16},
            "VGG16 full at 224 px": {**AT_224, **VGG16},
            "ViT-B/16 full at 224 px": {**AT_224, "backbone": ("vit_b16", SAID)},
        },
    ),
    "lora": (
        {**TABLE, "weights": ("imagenet", SAID), "image_size": (224, CHOSEN), "frozen_mode": ("inference", CHOSEN)},
        {
            "head only": {"strategy": ("head", CHOSEN), "optimizer": ("adamw", CHOSEN), "learning_rate": (1e-3, CHOSEN)},
            **{
                f"LoRA rank {rank}": {
                    "strategy": (f"lora:rank={rank},alpha={2 * rank},targets=query+value", CHOSEN),
                    "optimizer": ("adamw", CHOSEN),
                    "learning_rate": (1e-3, CHOSEN),
                }
                for rank in (4, 8, 16)
            },
            "full fine-tuning": {**AT_224, "backbone": ("vit_b16", SAID)},
        },
    ),
    "resnet50": (
        NOTE,
        {
            "baseline": {},
            "schedule plateau": {"schedule": ("plateau:patience=5,factor=0.1", SAID)},
            "schedule step": {"schedule": ("step", SAID)},
            "schedule cosine": {"schedule": ("cosine", SAID)},
            "augmentation crop_flip": {"augmentation": ("crop_flip", SAID), "normalization": ("cifar10", SAID)},
            "augmentation mixup": {"augmentation": ("mixup", SAID)},
            "augmentation cutout": {"augmentation": ("cutout", SAID)},
            "augmentation randaugment": {"augmentation": ("randaugment", SAID)},
            "augmentation jitter": {"augmentation": ("jitter:brightness=0.2,contrast=0.2,saturation=0.2", CHOSEN)},
            "optimizer adam": {"optimizer": ("adam", CHOSEN), "learning_rate": (1e-3, CHOSEN)},
            "optimizer adamw": {"optimizer": ("adamw", CHOSEN), "learning_rate": (1e-3, CHOSEN), "weight_decay": (0.01, CHOSEN)},
            "head dropout": {"head_dropout": (0.5, CHOSEN)},
            "weight decay": {"l2": (5e-4, CHOSEN)},
            "CIFAR stem": {"stem": ("cifar", CHOSEN)},
            "224 px": {"image_size": (224, SAID)},
            **{f"last:{number}": {"strategy": (f"last:{number}", SAID)} for number in (1, 2, 3, 4)},
        },
    ),
    "precision": (
        {**{name: (value, CHOSEN) for name, (value, _) in TABLE.items()}, "weights": ("none", CHOSEN), "image_size": (32, CHOSEN)},
        {name: {"precision": (name, CHOSEN)} for name in ("float32", "mixed_bfloat16")},
    ),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_number_of_rows(name):
    rows = EXPERIMENTS[name].configure({})
    num_published = sum("test accuracy" in row.published for row in rows)
    assert (num_published, len(rows) - num_published) == NUM_ROWS[name]
    assert not any("," in row.label for row in rows), "`rows` is a list separated by commas"
    assert len({row.label for row in rows}) == len(rows) == len({row.config.identity().__repr__() for row in rows})


def published_values(name: str) -> dict[tuple[str, str], float]:
    """Return (label of the row, metric) -> published value of an experiment; points of its curves count as metrics."""
    values = {}
    for row in EXPERIMENTS[name].configure({}):
        values |= {(row.label, metric): value for metric, value in row.published.items()}
        for epoch, (loss, accuracy) in row.published_curve.items():
            values |= {(row.label, f"training loss, epoch {epoch}"): loss, (row.label, f"training accuracy, epoch {epoch}"): accuracy}
    return {key: value for key, value in values.items() if value is not None}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_published_values_of_rows_are_those_of_the_list(name):
    listed = [entry for entry in PUBLISHED if entry["experiment"] == name]
    expected = {(entry["row"], entry["metric"]): entry["value"] for entry in listed}
    assert len(expected) == len(listed), "an entry of published.json is listed twice"
    assert published_values(name) == expected


def test_published_values_belong_to_experiments():
    assert PUBLISHED and {entry["experiment"] for entry in PUBLISHED} <= EXPERIMENTS.keys()


def values(source: str, head: str) -> Counter:
    """Return the (metric, value) pairs of the table whose first line begins with `head`. The value of a cell is its first number.

    A difference of 0, that of the reference row from itself, is left out.
    """
    lines = source.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(head))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in takewhile(lambda line: line.startswith("|"), lines[start:])]
    heading, body = table[0], [row for row in table[2:] if not row[0].startswith("seconds")]
    columns = {index: kind for index, title in enumerate(heading) for words, kind in COLUMNS.items() if words in title}
    columns = columns or {index: COLUMNS["test acc"] for index in range(1, len(heading)) if "seconds" not in heading[index]}
    cells = [(row[index], *kind) for row in body for index, kind in columns.items()]
    numbers = [(metric, unit, re.match(r"~?(-?\d+(?:\.\d+)?)", cell)) for cell, metric, unit in cells]
    return Counter((metric, unit * float(match[1])) for metric, unit, match in numbers if match and float(match[1]))


@pytest.mark.parametrize("head", TABLES)
def test_every_value_of_the_tables_of_the_source_reports_is_listed(head, shared):
    names, left_out = TABLES[head]
    found = values((shared / "reports.md").read_text(), head)
    listed = Counter((entry["metric"], entry["value"]) for entry in PUBLISHED if entry["experiment"] in names)
    assert len(found) > 1 and found - listed == Counter(("test accuracy", accuracy) for accuracy in left_out)


def test_every_listed_value_is_in_the_source_reports(shared):
    numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", (shared / "reports.md").read_text())}
    units = {entry["metric"]: 1e6 if entry["metric"] == "parameters" else 1 for entry in PUBLISHED}
    assert [entry for entry in PUBLISHED if abs(entry["value"]) / units[entry["metric"]] not in numbers] == []


def test_rows_of_what_was_meant_have_no_published_values():
    meant = [row for name in EXPERIMENTS for row in EXPERIMENTS[name].configure({}) if row.label.startswith("meant: ")]
    assert meant and not any(row.published or row.published_curve for row in meant)


@pytest.mark.parametrize("name", SOURCE_SETTINGS)
def test_settings_of_rows_are_those_of_the_source_reports(name):
    rows = EXPERIMENTS[name].configure({})
    common, listed = SOURCE_SETTINGS[name]
    assert [row.label for row in rows] == list(listed)
    for row, settings in zip(rows, EXPERIMENTS[name].settings_of(rows), strict=True):
        expected = {**common, **listed[row.label]}
        assert {setting: settings[setting] for setting in expected} == expected, row.label


def test_only_what_the_source_reports_name_is_attributed_to_them():
    for name, (common, listed) in SOURCE_SETTINGS.items():
        rows = EXPERIMENTS[name].configure({})
        for row, settings in zip(rows, EXPERIMENTS[name].settings_of(rows), strict=True):
            attributed = {setting for setting, (_, origin) in settings.items() if origin != CHOSEN}
            assert attributed <= {**common, **listed[row.label]}.keys(), (name, row.label)


def page_rows() -> list[list[str]]:
    """Return the cells of the tables of docs/what-the-reports-ran.md with the columns printed, run, ours and our figure."""
    tables = re.split(r"\n\n", (ROOT / "docs" / "what-the-reports-ran.md").read_text())
    lines = [line for table in tables if table.startswith("| printed |") for line in table.splitlines()[2:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_on_what_was_run_names_rows_and_settings_that_exist():
    rows, named = [], set()
    for cells in page_rows():
        for span in re.findall(r"`([^`]+)`", cells[2]):
            if span.startswith("exp-"):
                named.add(name := span.removeprefix("exp-").replace("-", "_"))
                rows = EXPERIMENTS[name].configure({})
                continue
            setting, equals, value = span.partition("=")
            if equals and setting in SETTINGS:
                assert value in {str(row.config.to_dict()[setting]) for row in rows}, span
            elif not span.endswith("..."):
                assert span in [row.label for row in rows], span
    assert named == EXPERIMENTS.keys() - {"lora", "precision"}  # a report describes LoRA and does not run it


def test_the_page_on_what_was_run_prints_values_of_the_source_reports(shared):
    known = set(re.findall(r"\d+(?:\.\d+)?", (shared / "reports.md").read_text()))
    printed = {number for cells in page_rows() for number in re.findall(r"\d+\.\d+", " ".join(cells[:2]))}
    assert len(printed) > 30 and not {number for number in printed if number not in known and number + "0" not in known}


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


REFRESH = '<meta http-equiv="refresh" content="30">'


@pytest.fixture
def no_plots(monkeypatch):
    """Pages without plots, which take a tenth of the time."""
    monkeypatch.setattr("tl_keras.report.plots.write_plots", lambda *arguments, **options: [])


class Watched:
    """An experiment of two runs of a second, and its pages as they are when a run begins.

    Args:
        interrupted: label of the run that Ctrl-C ends.
    """

    SETTINGS = {name: value for name, value in PLAIN.to_dict().items() if value != SETTINGS[name].default} | {
        "dataset": "digits", "backbone": "tiny", "weights": "none", "epochs": 1, "limit_train": 64, "limit_test": 32,
        "precision": "float32", "save_model": False,
    }  # fmt: skip

    def __init__(self, runs_dir, interrupted=""):
        self.runs_dir, self._interrupted, self.pages = runs_dir, interrupted, []
        self.experiment = Experiment(
            "watched",
            "Watched",
            "?",
            Settings(self.SETTINGS, dict.fromkeys(self.SETTINGS, CHOSEN)),
            self._rows,
            Profile(),
            callbacks=self._see,
        )

    @staticmethod
    def _rows(base):
        return [RunSpec(label, label, base.replace(seed=seed)) for seed, label in enumerate(("first", "second"))]

    def _see(self, config, run_dir):
        self.pages.append(self.page())
        if config.seed and self._interrupted:
            raise KeyboardInterrupt
        return ()

    def page(self):
        path = self.runs_dir / "watched" / "report.html"
        return path.read_text() if path.exists() else ""

    def run(self, *flags):
        return experiment.experiment_main(self.experiment, None, [f"--runs_dir={self.runs_dir}", *flags])


def test_the_page_of_a_running_experiment_has_the_finished_runs(tmp_path, monkeypatch, no_plots, capsys):
    monkeypatch.setattr(running_page, "MAX_FRACTION", 1e9)
    watched = Watched(tmp_path)
    assert watched.run("--refresh=30") == 0
    notes = [re.search(r"\d of 2 runs finished; to come: [^<.]*", text)[0] for text in watched.pages]
    assert notes == ["0 of 2 runs finished; to come: first (1), second (1)", "1 of 2 runs finished; to come: second (1)"]
    assert all(REFRESH in text for text in watched.pages)
    assert "to come" not in watched.page() and 'http-equiv="refresh"' not in watched.page()
    assert "second" in watched.page() and (tmp_path / "watched" / "report.md").exists()


def test_a_finished_run_is_not_begun_again(tmp_path, monkeypatch):
    watched, messages = Watched(tmp_path), []
    options = ExperimentOptions(tmp_path, labels=["first"], log=messages.append)
    run_experiment(watched.experiment, options)
    monkeypatch.setattr("tl_keras.runs.run.run_resolved", lambda *arguments, **options: pytest.fail("begun again"))
    run_experiment(watched.experiment, options, on_run=lambda directory: pytest.fail("not finished"))
    assert [message.endswith("(finished before)") for message in messages] == [False, True] and len(watched.pages) == 1
    monkeypatch.setattr("tl_keras.runs.run.hash_of_weights", lambda config: "of another file")
    with pytest.raises(ConfigError, match="another content"):
        run_experiment(watched.experiment, options)
    assert len(messages) == 2  # It is not called finished.


def test_an_interrupted_experiment_leaves_the_page_of_its_finished_runs(tmp_path, no_plots, capsys):
    watched = Watched(tmp_path, interrupted="second")
    assert watched.run("--refresh=30") == 130
    assert "1 of 2 runs finished; to come: second (1)" in watched.page() and 'http-equiv="refresh"' not in watched.page()
    assert [REFRESH in text for text in watched.pages] == [True, True]
    assert watched.pages[0] == watched.pages[1]  # runs of a second do not pay for a page each
    results = load_experiment(tmp_path / "watched" / "experiment.json", allow_pending=True)
    assert [row.label for row in results.rows] == ["first"]


def test_a_page_that_cannot_be_written_stops_no_run(tmp_path, monkeypatch, no_plots, capsys):
    write_report = report.write_report

    def fail(results, directory, **options):
        if results.pending:
            raise ValueError("no page")
        return write_report(results, directory, **options)

    monkeypatch.setattr(report, "write_report", fail)
    watched = Watched(tmp_path)
    assert watched.run() == 0
    assert watched.pages == ["", ""] and "second" in watched.page()
    assert "the page of the runs so far cannot be written: no page" in capsys.readouterr().err


def test_a_page_is_not_loaded_again_in_negative_time(tmp_path, capsys):
    assert Watched(tmp_path).run("--refresh=-1") == ConfigError.exit_code
    assert "--refresh=-1" in capsys.readouterr().err
