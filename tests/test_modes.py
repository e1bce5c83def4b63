"""The table of docs/modes.md: each of its cells against the modes that the layers of a built model run in."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from tl_keras import backbones
from tl_keras.config import TrainConfig
from tl_keras.strategies import Phase, build_phases, freezing

PAGE = Path(__file__).parents[1] / "docs" / "modes.md"

# Row of the table -> strategy, stage and layer of `classifier`.
ROWS = {
    "BatchNorm of a frozen stage": ("last:1", "stem", "stem_bn"),
    "BatchNorm of a trained stage": ("last:1", "body", "body_bn"),
    "frozen BatchNorm of a partly trained stage": ("train:body/conv", "body", "body_bn"),
    "trained BatchNorm of a partly trained stage": ("train:body/bn", "body", "body_bn"),
    "BatchNorm of a stage with adapters": ("lora", "body", "body_bn"),
    "dropout of a frozen stage": ("last:1", "stem", "stem_out"),
    "dropout of a trained stage": ("last:1", "body", "body_out"),
    "dropout of a partly trained stage": ("train:body/conv", "body", "body_out"),
    "dropout of the head": ("head", "head", "head_dropout"),
}
COLUMNS = {
    "defaults": {},
    "`frozen_mode=training`": {"frozen_mode": "training"},
    "`batch_norm=inference`": {"batch_norm": "inference"},
    "after `eval_mode_after`": {"eval_mode_after": 0},
}


def classifier() -> tuple[keras.Model, dict]:
    model = backbones.build_classifier("tiny", 3, head_dropout=0.5)
    return model, backbones.stage_layers(model, "tiny")


def read_table() -> dict[str, dict[str, str]]:
    """Return layer -> column -> mode."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    lines = lines[: next(index for index, line in enumerate(lines) if line.startswith("| there"))]
    header, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def phase_of(strategy: str, **settings) -> Phase:
    return build_phases(("stem", "body"), TrainConfig(strategy=strategy, **settings))[0]


def observed_mode(model: keras.Model, stages: dict, layer: keras.layers.Layer, phase: Phase) -> str:
    """Return the mode of `layer` in a training step of `phase`: BatchNorm moves its statistics, dropout changes its input."""
    images = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype("float32")
    before = freezing.weight_hashes(stages)
    with freezing.apply_phase(stages, phase):
        inputs, outputs = keras.Model(model.input, [layer.input, layer.output])(images, training=True)
    changed = {path for path, value in freezing.weight_hashes(stages).items() if value != before[path]}
    is_norm = isinstance(layer, keras.layers.BatchNormalization)
    moved = any(path.startswith(f"{layer.name}/moving") for path in changed)
    assert not is_norm or moved == (f"{layer.name}/moving_mean" in freezing.updated_paths(stages, phase))
    return "training" if (moved if is_norm else not np.array_equal(inputs, outputs)) else "inference"


def test_the_table_has_every_row_and_column():
    table = read_table()
    assert list(table) == list(ROWS) and all(list(row) == list(COLUMNS) for row in table.values())


@pytest.mark.parametrize("row", ROWS)
def test_layers_run_in_the_mode_of_the_table(row):
    model, stages = classifier()
    strategy, stage, name = ROWS[row]
    layer = next(layer for layer in stages[stage] if layer.name == name)
    for column, mode in read_table()[row].items():
        phase = phase_of(strategy, **COLUMNS[column])
        assert ("training" if freezing.runs_in_training_mode(layer, stage, phase) else "inference") == mode, column
        assert observed_mode(model, stages, layer, phase) == mode, column


@pytest.mark.parametrize("row", ROWS)
def test_evaluation_mode_wins_over_the_other_settings(row):
    _, stages = classifier()
    strategy, stage, name = ROWS[row]
    layer = next(layer for layer in stages[stage] if layer.name == name)
    phase = phase_of(strategy, frozen_mode="training", batch_norm="train", eval_mode_after=0)
    assert not freezing.runs_in_training_mode(layer, stage, phase)


def test_settings_of_the_page_are_those_of_the_configuration():
    """Names in backticks with a value are settings, and their values are allowed."""
    for name, value in re.findall(r"`(frozen_mode|batch_norm|eval_mode_after)=(\w+)`", PAGE.read_text()):
        TrainConfig(**{name: int(value) if value.isdecimal() else value} if value != "N" else {})
