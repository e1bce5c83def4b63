"""Strategies: their text form, their phases on a backbone, and what is refused before a model is built."""

import dataclasses
import re

import pytest

from tl_keras import strategies
from tl_keras.backbones import BACKBONES, get_backbone
from tl_keras.config import TrainConfig
from tl_keras.errors import ConfigError
from tl_keras.strategies import STRATEGIES, Lora, build_phases, check_weight_groups, parse, to_text

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")

ALL = (*STAGES, "head")
FALLING = {"stem": 0.5**5, "layer1": 0.5**4, "layer2": 0.5**3, "layer3": 0.25, "layer4": 0.5, "head": 1.0}

# strategy -> for each phase of 12 epochs at learning rate 0.01: epochs, trained stages, their weight group, multipliers
PHASES = {
    "full": [(12, ALL, "all", {})],
    "head": [(12, ("head",), "all", {})],
    "last:0": [(12, ("head",), "all", {})],
    "last:2": [(12, ("layer3", "layer4", "head"), "all", {})],
    "last:5": [(12, ALL, "all", {})],
    "train:layer3+stem": [(12, ("stem", "layer3", "head"), "all", {})],
    "train:stem/conv1+layer3": [(12, ("stem", "layer3", "head"), "all", {})],
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
    "gradual:start=layer4,end=layer1,every=2": [  # the four phases of source report D at 10 epochs, here with two more
        (6 if number == 4 else 2, ALL[5 - number :], "all", dict.fromkeys(ALL[5 - number :], 1.0)) for number in (1, 2, 3, 4)
    ],
    "gradual:end=layer4": [(6, ("head",), "all", {"head": 1.0}), (6, ("layer4", "head"), "all", {"layer4": 1.0, "head": 1.0})],
    "gradual:start=layer2,end=layer2": [(12, ALL[2:], "all", dict.fromkeys(ALL[2:], 1.0))],
    "head_then_full": [(2, ("head",), "all", {}), (10, ALL, "all", {})],
    "head_then_full:probe=5": [(5, ("head",), "all", {}), (7, ALL, "all", {})],
    "batchnorm": [(12, ALL, "batchnorm", {})],
    "bias": [(12, ALL, "bias", {})],
    "layer_decay:0.5": [(12, ALL, "all", FALLING)],
    "lora": [(12, ALL, "adapters", {})],
    "lora:rank=4,alpha=16,targets=conv1+layer4": [(12, ALL, "adapters", {})],
}


@pytest.mark.parametrize("strategy", PHASES)
@pytest.mark.parametrize("frozen_mode", ["inference", "training"])
def test_a_strategy_has_its_golden_phases(strategy, frozen_mode):
    phases = build_phases(STAGES, TrainConfig(strategy=strategy, epochs=12, learning_rate=0.01, frozen_mode=frozen_mode))
    assert len(phases) == len(PHASES[strategy]) and sum(phase.epochs for phase in phases) == 12
    for phase, (epochs, stages, weight_group, multipliers) in zip(phases, PHASES[strategy], strict=True):
        assert (phase.epochs, tuple(phase.trainable), phase.frozen_mode) == (epochs, stages, frozen_mode)
        assert dict(phase.trainable) == dict.fromkeys(stages, weight_group) | {"head": "all"}
        assert dict(phase.lr_multipliers) == pytest.approx(multipliers)


@pytest.mark.parametrize(
    ("strategy", "first", "expected"),
    [
        ("full", 0, [("full (eval mode)", 12, True)]),
        ("full", 1, [("full", 1, False), ("full (eval mode)", 11, True)]),
        ("full", 12, [("full", 12, False)]),
        ("full", 99, [("full", 12, False)]),
        ("head_then_full", 1, [("head", 1, False), ("head (eval mode)", 1, True), ("full (eval mode)", 10, True)]),
        ("head_then_full", 2, [("head", 2, False), ("full (eval mode)", 10, True)]),
        ("head_then_full", 3, [("head", 2, False), ("full", 1, False), ("full (eval mode)", 9, True)]),
    ],
)
def test_eval_mode_splits_the_phase_that_contains_its_first_epoch(strategy, first, expected):
    config = TrainConfig(strategy=strategy, epochs=12, frozen_mode="training", batch_norm="inference", eval_mode_after=first)
    phases = build_phases(STAGES, config)
    assert [(phase.name, phase.epochs, phase.eval_mode) for phase in phases] == expected
    whole = {phase.name: phase for phase in build_phases(STAGES, dataclasses.replace(config, eval_mode_after=-1))}
    for phase in phases:
        original = whole[phase.name.removesuffix(" (eval mode)")]
        assert dataclasses.replace(original, name=phase.name, epochs=phase.epochs, eval_mode=phase.eval_mode) == phase


def test_every_strategy_has_golden_phases():
    assert {name.partition(":")[0] for name in PHASES} == set(STRATEGIES)


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
        ("half", f"Known: {', '.join(sorted(STRATEGIES))}"),
        ("gradual:every=3", "in 6 phases needs at least 16"),
        ("gradual:step=3", "start, end, every, decay, reset, not step"),
        ("gradual:start=layer1,end=layer4", "`start` is unfrozen first, so it is `end` or a stage after it"),
        ("gradual:start=layer9", "Unknown stage 'layer9'"),
        ("gradual:end=layer9", "Unknown stage 'layer9'"),
        ("gradual:reset=always", "reset=never, reset=phase or reset=epoch"),
        ("gradual:start=layer4,end=layer1,every=4", "in 4 phases needs at least 13"),
        ("train:stem/", "layers of it as stage/layer"),
        ("train:stem+stem/conv1", "layers of it as stage/layer"),
        ("train:head/logits", "The head is always trained"),
        ("train:nowhere/conv1", "Unknown stage 'nowhere'"),
        ("freeze:stem/conv1", "Unknown stage 'stem/conv1'"),
        ("rates:stem=1e-3,*=1", "Unknown strategy 'rates'"),
        ("gradual:decay=2", r"in \(0, 1\]"),
        ("head_then_full:probe=12", "more than its 12"),
        ("layer_decay", "layer_decay:R"),
        ("layer_decay:x", r"expected a factor in \(0, 1\]"),
        ("bias:stem", "without an argument"),
        ("gradual:every=12", "needs at least 61"),
        ("lora:rank=0", "rank of at least 1"),
        ("lora:rank=2.5", "rank of at least 1"),
        ("lora:alpha=0", "alpha above 0"),
        ("lora:alpha=inf", "alpha above 0"),
        ("lora:alpha=a", "expected an alpha above 0"),
        ("lora:targets=", "name=value"),
        ("lora:targets=query+query", "different names"),
        ("lora:dropout=0.1", "arguments rank, alpha, targets, not dropout"),
        ("lora:8", "name=value"),
    ],
)
def test_impossible_strategies_are_refused_with_what_is_possible(strategy, message):
    with pytest.raises(ConfigError, match=message):
        build_phases(STAGES, TrainConfig(strategy=strategy, epochs=12))


@pytest.mark.parametrize("strategy", ["gradual", "gradual:every=2"])
def test_gradual_needs_an_epoch_for_every_phase(strategy):
    """There are six phases: the head, and one for each stage."""
    with pytest.raises(ConfigError, match=f"epochs=5`: .*6 phases needs at least {11 if 'every' in strategy else 6}"):
        build_phases(STAGES, TrainConfig(strategy=strategy, epochs=5))
    needed = 11 if "every" in strategy else 6
    assert [phase.epochs for phase in build_phases(STAGES, TrainConfig(strategy=strategy, epochs=needed))] == (
        [1] * 6 if needed == 6 else [2] * 5 + [1]
    )


def test_the_schedule_of_report_d_can_be_given():
    """Ten epochs: layer4 from the first, layer3 from the third, layer2 from the fifth and layer1 from the seventh, never the stem."""
    config = TrainConfig(strategy="gradual:start=layer4,end=layer1,every=2,reset=epoch", epochs=10, eval_mode_after=1)
    phases = build_phases(STAGES, config)
    trained = [tuple(phase.trainable) for phase in phases for _ in range(phase.epochs)]
    assert trained == [ALL[4:]] * 2 + [ALL[3:]] * 2 + [ALL[2:]] * 2 + [ALL[1:]] * 4
    assert [phase.eval_mode for phase in phases for _ in range(phase.epochs)] == [False] + [True] * 9
    assert {phase.reset_optimizer for phase in phases} == {"epoch"}


@pytest.mark.parametrize("reset", ["never", "phase", "epoch"])
def test_evaluation_mode_alone_does_not_reset_the_optimizer(reset):
    config = TrainConfig(strategy=f"gradual:start=layer4,end=layer3,every=2,reset={reset}", epochs=4, eval_mode_after=1)
    after_split = "epoch" if reset == "epoch" else "never"
    assert [(phase.epochs, phase.reset_optimizer) for phase in build_phases(STAGES, config)] == [(1, reset), (1, after_split), (2, reset)]


def test_layers_of_a_stage_are_named_by_the_ends_of_their_names():
    (phase,) = build_phases(STAGES, TrainConfig(strategy="train:stem/conv1+layer3+layer2/conv1+layer2/bn1"))
    assert dict(phase.layers) == {"stem": ("conv1",), "layer2": ("conv1", "bn1")}
    assert tuple(phase.trainable) == ("stem", "layer2", "layer3", "head")


@pytest.mark.parametrize(
    ("strategy", "rates", "expected"),
    [
        ("full", "stem=7e-3,head=2e-2,*=5e-3", [{"stem": 0.7, "head": 2.0} | dict.fromkeys(STAGES[1:], 0.5)]),
        ("full", "stem=7e-3", [{"stem": 0.7}]),
        ("head", "*=5e-3", [{"head": 0.5}]),
        ("layer_decay:0.5", "head=1e-3", [FALLING | {"head": 0.1}]),
        ("layer_decay:0.5", "head=1e-3,*=2e-3", [dict.fromkeys(STAGES, 0.2) | {"head": 0.1}]),
        ("head_then_full", "head=1e-3,layer4=1e-4", [{"head": 0.1}, {"head": 0.1, "layer4": 0.01}]),
        ("batchnorm", "head=1e-3", [{"head": 0.1}]),
    ],
)
def test_stage_learning_rates_replace_those_of_any_strategy(strategy, rates, expected):
    phases = build_phases(STAGES, TrainConfig(strategy=strategy, learning_rate=0.01, stage_learning_rates=rates))
    assert [dict(phase.lr_multipliers) for phase in phases] == [pytest.approx(multipliers) for multipliers in expected]


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ("stem=1e-3", "`strategy=last:1` does not train stem. It trains layer4, head"),
        ("layer9=1,*=1", "does not train layer9"),
        ("head=-1,*=1", "above 0"),
        ("head=x", "expected learning rates above 0"),
        ("head", "name=value"),
    ],
)
def test_learning_rates_of_what_is_not_trained_are_refused(rates, message):
    with pytest.raises(ConfigError, match=f"`stage_learning_rates={re.escape(rates)}`: .*{message}"):
        build_phases(STAGES, TrainConfig(strategy="last:1", stage_learning_rates=rates))


def test_learning_rates_of_report_d_are_divided_by_ten_for_each_earlier_layer():
    """A stage keeps its learning rate when the next one is unfrozen."""
    learning_rates = [
        {stage: 0.01 * factor for stage, factor in phase.lr_multipliers.items()}
        for phase in build_phases(STAGES, TrainConfig(strategy="gradual:decay=0.1", learning_rate=0.01, epochs=10))
    ]
    assert learning_rates[-1] == pytest.approx({"head": 1e-2, "layer4": 1e-3, "layer3": 1e-4, "layer2": 1e-5, "layer1": 1e-6, "stem": 1e-7})
    assert all(phase == {stage: learning_rates[-1][stage] for stage in phase} for phase in learning_rates)


def test_lora_parses_rank_alpha_and_targets():
    assert parse("lora") == Lora(rank=8, alpha=0.0, targets=("attention",))
    assert parse("lora:rank=4,alpha=16,targets=query+mlp1") == Lora(4, 16.0, ("query", "mlp1"))


FIVE = ("alexnet", "resnet18", "vgg16", "resnet50", "vit_b16")


@pytest.mark.parametrize("backbone", FIVE)
@pytest.mark.parametrize("strategy", ["last:{too_many}", "train:nowhere", "freeze:nowhere", "freeze:head"])
def test_impossible_strategies_are_refused_with_the_stages_of_the_backbone(strategy, backbone):
    """Fast: no model is built and TensorFlow is not loaded."""
    stages = [stage for stage, _ in BACKBONES[backbone].stages]
    with pytest.raises(ConfigError) as caught:
        build_phases(stages, TrainConfig(strategy=strategy.format(too_many=len(stages) + 1)))
    assert all(stage in str(caught.value) for stage in stages)


@pytest.mark.parametrize("backbone", FIVE)
def test_gradual_with_too_few_epochs_is_refused_on_every_backbone(backbone):
    stages = [stage for stage, _ in BACKBONES[backbone].stages]
    with pytest.raises(ConfigError, match=f"needs at least {len(stages) + 1}"):
        build_phases(stages, TrainConfig(strategy="gradual", epochs=len(stages)))


@pytest.mark.parametrize("strategy, weight_group", [("batchnorm", "batchnorm"), ("bias", "bias"), ("lora", "attention")])
@pytest.mark.parametrize("backbone", (*FIVE, "tiny"))
def test_a_weight_group_that_the_backbone_lacks_is_refused_before_a_model_is_built(strategy, weight_group, backbone):
    backbone, config = get_backbone(backbone), TrainConfig(strategy=strategy)
    if weight_group in backbone.weight_groups:
        check_weight_groups(backbone, config)
    else:
        with pytest.raises(ConfigError, match=f"`strategy={strategy}`: {backbone.name} has no {weight_group} weights"):
            check_weight_groups(backbone, config)


@pytest.mark.parametrize("strategy", ["full", "head", "gradual", "lora:targets=conv1"])
def test_other_strategies_need_no_weight_group(strategy):
    check_weight_groups(get_backbone("vgg16"), TrainConfig(strategy=strategy))


@pytest.mark.parametrize(
    "strategy",
    [
        strategies.Full(),
        strategies.HeadOnly(),
        strategies.Last(2),
        strategies.Train(("stem/conv1", "layer3")),
        strategies.Freeze(("layer1", "layer2")),
        strategies.Gradual(),
        strategies.Gradual(start="layer4", end="layer2", every=2, decay=0.5, reset="phase"),
        strategies.HeadThenFull(),
        strategies.HeadThenFull(probe=3),
        strategies.BatchNorm(),
        strategies.Bias(),
        strategies.LayerDecay(0.75),
        strategies.Lora(),
        strategies.Lora(rank=4, alpha=0.1, targets=("mlp1", "mlp2")),
    ],
    ids=str,
)
def test_the_text_of_a_strategy_reads_back_as_itself(strategy):
    assert parse(str(strategy)) == strategy


def test_every_strategy_has_a_text():
    assert all("__str__" in dir(spec.create) and spec.create.__str__ is not object.__str__ for spec in STRATEGIES.values())
    with pytest.raises(ConfigError, match="expected a strategy of full, head"):
        to_text(object())
