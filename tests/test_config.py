import json

import pytest

from tl_keras.config import SETTINGS, RunConfig
from tl_keras.errors import ConfigError

IMPOSSIBLE = [
    {"fraction": 0},
    {"fraction": 1.5},
    {"fraction": 0.95},  # with validation_fraction 0.1, more than there is
    {"validation_fraction": 1},
    {"limit_train": -1},
    {"limit_test": -1},
    {"crop_fraction": 2.0},
    {"on_corrupt": "ignore"},
    {"stem": "large"},
    {"image_size": -3},
    {"frozen_mode": "eval"},
    {"optimizer": "lamb"},
    {"learning_rate": 0},
    {"learning_rate": float("nan")},
    {"momentum": 1},
    {"nesterov": True, "momentum": 0},
    {"weight_decay": -1},
    {"l2": -1},
    {"schedule": "zigzag"},
    {"schedule": "step:every=0"},
    {"warmup_epochs": 0.5, "schedule_interval": "epoch"},
    {"epochs": 0},
    {"epochs": 2.5},
    {"warmup_epochs": 10},
    {"batch_size": 0},
    {"selection": "first"},
    {"precision": "float64"},
    {"xla": "maybe"},
    {"distribution": "tpu"},
    {"seed": -1},
]


@pytest.mark.parametrize("settings", IMPOSSIBLE, ids=str)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        RunConfig().replace(**settings)


def test_settings_survive_json():
    config = RunConfig().replace(dataset="digits", fraction=0.2, nesterov=True, epochs=3, seed=7)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_setting_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        RunConfig().replace(epoch=3)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_but_the_local_ones_changes_the_config_id(name):
    other = {str: "other", int: 7, float: 0.25, bool: not SETTINGS[name].default}[SETTINGS[name].type]
    choices = SETTINGS[name].metadata["choices"]
    value = choices[-1] if choices and choices[-1] != SETTINGS[name].default else (choices[0] if choices else other)
    changed = RunConfig().replace(**{name: "step" if name == "schedule" else value})
    assert (changed.config_id() == RunConfig().config_id()) == SETTINGS[name].metadata["is_local"]


def test_settings_are_documented():
    assert all(setting.metadata["help"] for setting in SETTINGS.values())
