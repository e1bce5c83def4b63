import pytest

from tl_keras.config import TrainConfig
from tl_keras.errors import ConfigError
from tl_keras.strategies import STRATEGIES, plan

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")

ALL = (*STAGES, "head")
FALLING = {"stem": 0.5**5, "layer1": 0.5**4, "layer2": 0.5**3, "layer3": 0.25, "layer4": 0.5, "head": 1.0}

# --strategy -> for each phase of 12 epochs at rate 0.01: epochs, the stages it trains, their kind but the head's, rate scales
PLANS = {
    "full": [(12, ALL, "all", {})],
    "head": [(12, ("head",), "all", {})],
    "last:0": [(12, ("head",), "all", {})],
    "last:2": [(12, ("layer3", "layer4", "head"), "all", {})],
    "last:5": [(12, ALL, "all", {})],
    "train:layer3+stem": [(12, ("stem", "layer3", "head"), "all", {})],
    "train:head": [(12, ("head",), "all", {})],
    "freeze:layer1+layer2": [(12, ("stem", "layer3", "layer4", "head"), "all", {})],
    "freeze:stem+layer1+layer2+layer3+layer4": [(12, ("head",), "all", {})],
    "gradual": [(2, ALL[5 - number :], "all", dict.fromkeys(ALL[5 - number :], 1.0)) for number in range(6)],
    "gradual:every=1,decay=0.5": [
        (7 if number == 5 else 1, ALL[5 - number :], "all", {stage: FALLING[stage] for stage in ALL[5 - number :]}) for number in range(6)
    ],
    "head_then_full": [(2, ("head",), "all", {}), (10, ALL, "all", {})],
    "head_then_full:probe=5": [(5, ("head",), "all", {}), (7, ALL, "all", {})],
    "batchnorm": [(12, ALL, "batchnorm", {})],
    "bias": [(12, ALL, "bias", {})],
    "layer_decay:0.5": [(12, ALL, "all", FALLING)],
    "rates:stem=7e-3,head=2e-2,*=5e-3": [(12, ALL, "all", {"stem": 0.7, "head": 2.0} | dict.fromkeys(STAGES[1:], 0.5))],
}


@pytest.mark.parametrize("strategy", PLANS)
@pytest.mark.parametrize("frozen_mode", ["inference", "training"])
def test_plan(strategy, frozen_mode):
    phases = plan(STAGES, TrainConfig(strategy=strategy, epochs=12, learning_rate=0.01, frozen_mode=frozen_mode))
    assert len(phases) == len(PLANS[strategy]) and sum(phase.epochs for phase in phases) == 12
    for phase, (epochs, stages, kind, scales) in zip(phases, PLANS[strategy], strict=True):
        assert (phase.epochs, tuple(phase.trainable), phase.frozen_mode) == (epochs, stages, frozen_mode)
        assert dict(phase.trainable) == dict.fromkeys(stages, kind) | {"head": "all"}
        assert dict(phase.rate_scale) == pytest.approx(scales)


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
        ("half", "Known: batchnorm, bias, freeze, full, gradual, head"),
        ("gradual:every=3", "needs at least 16"),
        ("gradual:step=3", "every, decay, not step"),
        ("gradual:decay=2", r"in \(0, 1\]"),
        ("head_then_full:probe=12", "more than its 12"),
        ("layer_decay", "layer_decay:R"),
        ("layer_decay:x", "could not convert"),
        ("rates:stem=1e-3", "no rate for layer1"),
        ("rates:layer9=1,*=1", "layer9"),
        ("rates:stem=-1,*=1", "above 0"),
        ("rates:stem", "name=value"),
        ("bias:stem", "without an argument"),
    ],
)
def test_impossible_strategies_say_what_is_possible(strategy, message):
    with pytest.raises(ConfigError, match=message):
        plan(STAGES, TrainConfig(strategy=strategy, epochs=12))
