import pytest

from tl_keras.config import TrainConfig
from tl_keras.errors import ConfigError
from tl_keras.strategies import STRATEGIES, plan

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")

# --strategy -> the stages it trains
PLANS = {
    "full": ("stem", "layer1", "layer2", "layer3", "layer4", "head"),
    "head": ("head",),
    "last:0": ("head",),
    "last:2": ("layer3", "layer4", "head"),
    "last:5": ("stem", "layer1", "layer2", "layer3", "layer4", "head"),
    "train:layer3+stem": ("stem", "layer3", "head"),
    "train:head": ("head",),
    "freeze:layer1+layer2": ("stem", "layer3", "layer4", "head"),
    "freeze:stem+layer1+layer2+layer3+layer4": ("head",),
}


@pytest.mark.parametrize("strategy", PLANS)
@pytest.mark.parametrize("frozen_mode", ["inference", "training"])
def test_plan(strategy, frozen_mode):
    config = TrainConfig(strategy=strategy, epochs=7, frozen_mode=frozen_mode)
    (phase,) = plan(STAGES, config)
    assert tuple(phase.trainable) == PLANS[strategy]
    assert set(phase.trainable.values()) == {"all"}
    assert (phase.epochs, phase.frozen_mode) == (7, frozen_mode)


def test_every_strategy_has_a_golden_plan():
    assert {name.partition(":")[0] for name in PLANS} == set(STRATEGIES)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("train:layer9", "layer9.*layer1, layer2, layer3, layer4, stem"),
        ("freeze:conv1", "Known: head, layer1"),
        ("freeze:head", "head is new"),
        ("last:6", "5 stages"),
        ("last:-1", "number of stages"),
        ("last", "last:N"),
        ("full:3", "without an argument"),
        ("train:", "stage names"),
        ("train:stem+stem", "different stage names"),
        ("half", "Known: freeze, full, head, last, train"),
    ],
)
def test_impossible_strategies_say_what_is_possible(strategy, message):
    with pytest.raises(ConfigError, match=message):
        plan(STAGES, TrainConfig(strategy=strategy))
