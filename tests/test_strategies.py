import pytest

from tl_keras.backbones import BACKBONES
from tl_keras.config import TrainConfig
from tl_keras.errors import ConfigError
from tl_keras.strategies import STRATEGIES, Lora, parse, plan

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
    "gradual:decay=0.1": [
        (2, ALL[5 - number :], "all", {stage: 10.0 ** (position - 5) for position, stage in enumerate(ALL) if position >= 5 - number})
        for number in range(6)
    ],
    "head_then_full": [(2, ("head",), "all", {}), (10, ALL, "all", {})],
    "head_then_full:probe=5": [(5, ("head",), "all", {}), (7, ALL, "all", {})],
    "batchnorm": [(12, ALL, "batchnorm", {})],
    "bias": [(12, ALL, "bias", {})],
    "layer_decay:0.5": [(12, ALL, "all", FALLING)],
    "lora": [(12, ALL, "adapters", {})],
    "lora:rank=4,alpha=16,targets=conv1+layer4": [(12, ALL, "adapters", {})],
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
        ("train:", "different names"),
        ("train:stem+stem", "different names"),
        ("half", "Known: batchnorm, bias, freeze, full, gradual, head, head_then_full, last, layer_decay, lora"),
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
        ("gradual:every=12", "needs at least 61"),
        ("lora:rank=0", "rank of at least 1"),
        ("lora:rank=2.5", "rank of at least 1"),
        ("lora:alpha=0", "alpha above 0"),
        ("lora:alpha=inf", "alpha above 0"),
        ("lora:targets=", "name=value"),
        ("lora:targets=query+query", "different names"),
        ("lora:dropout=0.1", "of rank, alpha, targets, not dropout"),
        ("lora:8", "name=value"),
    ],
)
def test_impossible_strategies_say_what_is_possible(strategy, message):
    with pytest.raises(ConfigError, match=message):
        plan(STAGES, TrainConfig(strategy=strategy, epochs=12))


@pytest.mark.parametrize("strategy", ["gradual", "gradual:every=2"])
def test_gradual_needs_an_epoch_for_every_phase(strategy):
    """Six phases: the head, and one for each stage."""
    with pytest.raises(ConfigError, match=f"epochs=5`: .*5 stages needs at least {11 if 'every' in strategy else 6}"):
        plan(STAGES, TrainConfig(strategy=strategy, epochs=5))
    needed = 11 if "every" in strategy else 6
    assert [phase.epochs for phase in plan(STAGES, TrainConfig(strategy=strategy, epochs=needed))] == (
        [1] * 6 if needed == 6 else [2] * 5 + [1]
    )


def test_report_d_rates_are_divided_by_ten_for_each_earlier_layer():
    """0.01 on the last, divided by ten for each earlier layer; the rate of a stage does not change when the next one is unfrozen."""
    rates = [
        {stage: 0.01 * scale for stage, scale in phase.rate_scale.items()}
        for phase in plan(STAGES, TrainConfig(strategy="gradual:decay=0.1", learning_rate=0.01, epochs=10))
    ]
    assert rates[-1] == pytest.approx({"head": 1e-2, "layer4": 1e-3, "layer3": 1e-4, "layer2": 1e-5, "layer1": 1e-6, "stem": 1e-7})
    assert all(phase == {stage: rates[-1][stage] for stage in phase} for phase in rates)


def test_lora_says_what_is_adapted():
    assert parse("lora") == Lora(rank=8, alpha=0.0, targets=("attention",))
    assert parse("lora:rank=4,alpha=16,targets=query+mlp1") == Lora(4, 16.0, ("query", "mlp1"))


FIVE = ("alexnet", "resnet18", "vgg16", "resnet50", "vit_b16")


@pytest.mark.parametrize("backbone", FIVE)
@pytest.mark.parametrize("strategy", ["last:{too_many}", "train:nowhere", "freeze:nowhere", "rates:nowhere=1,*=1", "freeze:head"])
def test_impossible_strategies_are_refused_with_the_stages_of_the_backbone(strategy, backbone):
    """Fast, as neither the network is built nor TensorFlow loaded."""
    stages = [stage for stage, _ in BACKBONES[backbone].stages]
    with pytest.raises(ConfigError) as caught:
        plan(stages, TrainConfig(strategy=strategy.format(too_many=len(stages) + 1)))
    assert all(stage in str(caught.value) for stage in stages)


@pytest.mark.parametrize("backbone", FIVE)
def test_gradual_with_too_few_epochs_is_refused_on_every_backbone(backbone):
    stages = [stage for stage, _ in BACKBONES[backbone].stages]
    with pytest.raises(ConfigError, match=f"needs at least {len(stages) + 1} to reach the first"):
        plan(stages, TrainConfig(strategy="gradual", epochs=len(stages)))
