"""The defaults: those of the candidate that docs/defaults.md chooses, possible with every backbone, and the table of the candidates."""

import json
import shutil
from pathlib import Path

import pytest

from tl_keras.backbones.registry import BACKBONES
from tl_keras.config import RunConfig
from tl_keras.runs.resolve import resolve
from tools import measure_defaults
from tools.measure_defaults import CANDIDATES, CHOSEN, DATA

PAGE = (Path(__file__).parents[1] / "docs" / "defaults.md").read_text()


def test_the_defaults_are_those_of_the_chosen_candidate():
    defaults = RunConfig().to_dict()
    assert {name: defaults[name] for name in CANDIDATES[CHOSEN]} == CANDIDATES[CHOSEN]
    assert defaults["backbone"] in measure_defaults.BACKBONES and defaults["epochs"] == max(data["epochs"] for data in DATA.values())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_default_strategy_suits_every_backbone(backbone):
    (phase,) = resolve(RunConfig().replace(dataset="digits", backbone=backbone)).phases
    assert len(phase.trainable) == 3 and "head" in phase.trainable


@pytest.mark.parametrize("name", CANDIDATES)
def test_every_candidate_names_the_same_settings_and_is_on_the_page(name):
    assert CANDIDATES[name].keys() == CANDIDATES["before"].keys()
    resolve(RunConfig().replace(**CANDIDATES[name], dataset="digits"))
    assert f"| {name} |" in PAGE


def test_the_table_has_means_over_seeds_and_dashes(finished_run, tmp_path):
    for seed, seconds in enumerate((3.0, 5.0, 100.0)):
        directory = measure_defaults.run_dir(tmp_path, "before", "pets", "tiny", seed)
        shutil.copytree(finished_run.directory, directory)
        (directory / measure_defaults.COST).write_text(json.dumps({"processor_seconds": seconds}))
    text = measure_defaults.table(tmp_path, ["before", CHOSEN], ["pets"], ["tiny"], [0, 1, 2])
    lines, metrics = text.splitlines(), finished_run.result["metrics"]
    assert lines[2] == f"| before | {100 * metrics['validation']['accuracy']:.1f}, 5 s |"
    assert lines[3] == f"| {CHOSEN} | - |" == lines[-1]
    assert lines[-2].startswith(f"| before | {100 * metrics['test']['accuracy']:.1f} [")


def test_a_finished_run_is_not_measured_again(tmp_path):
    (tmp_path / measure_defaults.COST).write_text("{}")
    measure_defaults.measure(tmp_path, {"dataset": "no such data set"}, "")
    assert list(tmp_path.iterdir()) == [tmp_path / measure_defaults.COST]
