"""What is said before a run: multiply-adds against published ones, shares, rates, what could be cached; and what is refused."""

import re

import pytest
from keras import layers

from tl_keras import backbones
from tl_keras.backbones import macs
from tl_keras.cli import verbs
from tl_keras.config import RunConfig
from tl_keras.errors import ConfigError
from tl_keras.runs import explain
from tl_keras.runs.setup import adapt, build, check_strategy, plan
from tl_keras.strategies import STRATEGIES

RATE = 1e9  # multiply-adds a second, where a test wants to know the estimate


@pytest.fixture(autouse=True)
def known_rate(monkeypatch):
    monkeypatch.setattr(macs, "measure_matmul_throughput", lambda dtype: RATE)


@pytest.fixture(autouse=True)
def no_data(tmp_path, monkeypatch):
    """No prepared data set, no weights, and a failure where either is fetched."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for place in ("tl_keras.runs.setup.locate_weights", "tl_keras.utils.connectivity.is_reachable"):
        monkeypatch.setattr(place, lambda *arguments: pytest.fail("asked for what need not be there"))


slow = pytest.mark.slow
# Multiply-adds of one image at 224 px with 1,000 classes: torchvision's table of weights (GFLOPS), and Howard et al. 2017.
PUBLISHED = {
    "alexnet": 0.714e9,
    "resnet18": 1.814e9,
    "resnet50_torch": 4.089e9,
    "mobilenet": 0.569e9,
    "vgg16": 15.47e9,
    "vit_b16": 17.56e9,
}


@pytest.mark.parametrize("name", [*list(PUBLISHED)[:4], *(pytest.param(name, marks=slow) for name in list(PUBLISHED)[4:])])
def test_multiply_adds_are_the_published_ones(name):
    model = backbones.build_classifier(name, 1000)
    costs = macs.count_macs(model, name)
    assert sum(cost.macs for cost in costs.values()) == pytest.approx(PUBLISHED[name], rel=0.01)
    assert not any(cost.uncounted_layers for cost in costs.values())


def test_every_formula_by_hand():
    """conv1 of a ResNet18 at 32 px: 16 x 16 positions, 7 x 7 x 3 inputs, 64 filters; the head: 512 x 10."""
    costs = macs.count_macs(backbones.build_classifier("resnet18", 10, image_size=32), "resnet18")
    assert (costs["stem"].macs, costs["head"].macs) == (16 * 16 * 7 * 7 * 3 * 64, 5120)
    assert (costs["stem"].shape, costs["stem"].num_bytes) == ((8, 8, 64), 4 * 8 * 8 * 64)
    count = macs.FORMULAS
    depthwise = layers.DepthwiseConv2D(3, depth_multiplier=2)
    depthwise.build((None, 8, 8, 4))
    assert count["DepthwiseConv2D"](depthwise, [], (1, 6, 6, 8)) == 6 * 6 * 3 * 3 * 4 * 2
    separable = layers.SeparableConv2D(5, 3)
    separable.build((None, 8, 8, 4))
    assert count["SeparableConv2D"](separable, [], (1, 6, 6, 5)) == 6 * 6 * (3 * 3 * 4 + 4 * 5)
    query = layers.EinsumDense("btd,dhk->bthk", (None, 2, 3))
    query.build((None, 5, 6))
    assert count["EinsumDense"](query, [], (1, 5, 2, 3)) == 5 * 6 * 2 * 3
    assert count["DotProductAttention"](None, [(1, 5, 2, 3), (1, 7, 2, 3), (1, 7, 2, 3)], (1, 5, 2, 3)) == 2 * 2 * 5 * 7 * 3


def test_adapters_cost_what_their_factors_do():
    config = SMALL.replace(strategy="lora:rank=2,targets=fc6")
    model = build(config, plan(config), 10)
    before = macs.count_macs(model, "alexnet_narrow")
    after = macs.count_macs(adapt(model, config), "alexnet_narrow")
    assert {stage: after[stage].macs - before[stage].macs for stage in after} == dict.fromkeys(after, 0) | {
        "fc6": 2 * (6 * 6 * 64 + 384)
    }


def test_a_layer_without_a_formula_is_named(monkeypatch):
    monkeypatch.setattr(macs, "FORMULAS", {key: value for key, value in macs.FORMULAS.items() if key != "Conv2D"})
    assert "Counted as 0, as no formula is known: Conv2D." in explain.explain(SMALL)


SMALL = RunConfig().replace(
    dataset="digits", backbone="alexnet_narrow", weights="none", precision="float32", epochs=8, learning_rate=0.01, fraction=0.5
)
STRATEGY_OF = {
    "full": "full",
    "head": "head",
    "last": "last:2",
    "train": "train:{first}",
    "freeze": "freeze:{first}",
    "gradual": "gradual:decay=0.1",
    "head_then_full": "head_then_full",
    "batchnorm": "batchnorm",
    "bias": "bias",
    "layer_decay": "layer_decay:0.5",
    "rates": "rates:{first}=7e-3,*=5e-3",
    "lora": "lora:rank=2,targets=all",
}
# The five networks at the smallest size they take; those with more than 50 million weights are built by `make test-slow`.
FIVE = {"alexnet": 63, "resnet18": 32, "vgg16": 32, "resnet50": 32, "vit_b16": 32}
BATCH_NORM = ("resnet18", "resnet50")
LARGE = ("alexnet", "vgg16", "vit_b16", "resnet50")


def explained(backbone: str, strategy: str) -> str:
    stages = [stage for stage, _ in backbones.get_backbone(backbone).stages]
    settings = {"dataset": "cifar10", "backbone": backbone, "image_size": FIVE[backbone], "epochs": 2 * len(stages) + 2}
    return explain.explain(SMALL.replace(strategy=STRATEGY_OF[strategy].format(first=stages[0]), **settings))


@pytest.mark.parametrize("backbone", [pytest.param(name, marks=slow) if name in LARGE else name for name in FIVE])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_on_the_five_backbones(strategy, backbone):
    """Every phase lists every stage once, with the parameters that add up to those of the phase; or the strategy is refused."""
    stages = [stage for stage, _ in backbones.get_backbone(backbone).stages]
    if strategy == "batchnorm" and backbone not in BATCH_NORM:
        with pytest.raises(ConfigError, match=f"the stages {', '.join(stages)} have no batchnorm weights"):
            explained(backbone, strategy)
        return
    _, *phases = re.split(r"\nphase \d+ of \d+: ", explained(backbone, strategy))
    assert len(phases) == {"gradual": len(stages) + 1, "head_then_full": 2}.get(strategy, 1)
    for phase in phases:
        rows = [re.split(r" {2,}", line.strip()) for line in phase.splitlines()[2 : 3 + len(stages)]]
        assert [row[0] for row in rows] == [*stages, "head"] and rows[-1][1] == "all"
        total = int(re.search(r"trains ([\d,]+) of", phase)[1].replace(",", ""))
        assert total == sum(int(row[3].replace(",", "")) for row in rows) > 0


@pytest.mark.parametrize("backbone", ["alexnet", "vit_b16", pytest.param("vgg16", marks=slow)])
def test_batch_norm_alone_is_refused_where_there_is_none(backbone):
    stages = ", ".join(stage for stage, _ in backbones.get_backbone(backbone).stages)
    with pytest.raises(ConfigError, match=f"the stages {stages} have no batchnorm weights"):
        check_strategy(SMALL.replace(backbone=backbone, image_size=FIVE[backbone], strategy="batchnorm"))


GOLDEN = """\
model      alexnet_narrow, 64 px, 1,195,738 parameters, 4.49 M multiply-adds
data       648 training images of digits
strategy   gradual:decay=0.1

phase 1 of 8: gradual 0, 1 epoch, trains 3,850 of 1,195,738 parameters (0.32 %)
  stage  trained                     rate  parameters  multiply-adds
  conv1  nothing, in inference mode  -     0           1.31 M
  conv2  nothing, in inference mode  -     0           941 k
  conv3  nothing, in inference mode  -     0           373 k
  conv4  nothing, in inference mode  -     0           498 k
  conv5  nothing, in inference mode  -     0           332 k
  fc6    nothing, in inference mode  -     0           885 k
  fc7    nothing, in inference mode  -     0           147 k
  head   all                         0.01  3,850       3.84 k
  cache    cut at features, 1.5 kB an image, 1.2 MB (memory), saves 4.5 M multiply-adds an image and epoch
  time     about 5.8 seconds
"""


def test_the_whole_text_of_a_phase():
    text = explain.explain(SMALL.replace(strategy="gradual:decay=0.1"))
    assert text.startswith(GOLDEN)
    assert re.search(r"fc7 +all +0\.001 ", text) and re.search(r"conv1 +all +1e-09 ", text)
    assert text.count("\nphase ") == 8 and "phase 8 of 8: gradual 7, 1 epoch, trains 1,195,738 of" in text
    assert "in all     about" in text


@pytest.mark.parametrize(
    ("settings", "cache"),
    [
        ({"strategy": "full"}, "nothing is kept, as the first stage is trained"),
        ({"strategy": "train:conv1"}, "nothing is kept, as the first stage is trained"),
        ({"strategy": "head", "cache": "off"}, "nothing is kept, as --cache=off"),
        ({"strategy": "head", "frozen_mode": "training"}, "cut at conv5, 0.3 kB an image"),
        ({"strategy": "bias"}, "nothing is kept, as the first stage is trained, or random"),
        ({"strategy": "last:1"}, "cut at fc6, 1.5 kB an image, 2.0 MB (memory)"),
        ({"strategy": "train:conv2"}, "cut at conv1, 3.1 kB an image, 4.0 MB (memory), saves 1.3 M multiply-adds"),
        ({"strategy": "lora:targets=fc6"}, "cut at conv5, 0.3 kB an image"),
        ({"strategy": "head", "precision": "mixed_bfloat16"}, "cut at features, 0.8 kB an image"),
        ({"strategy": "head", "augmentation": "flip"}, "nothing is kept, as augmentation flip makes new images in each epoch"),
        ({"strategy": "head", "augmentation": "flip", "cache_views": 2}, "cut at features, 1.5 kB an image, 3.0 MB (memory)"),
    ],
)
def test_what_is_cached(settings, cache):
    (line,) = [line for line in explain.explain(SMALL.replace(**settings)).splitlines() if line.startswith("  cache")]
    assert cache in line


@pytest.mark.parametrize(("cache", "times"), [("auto", 1), ("off", 8)])
def test_the_estimate_counts_passes_over_each_stage(cache, times):
    """Frozen before all that is trained: once, and once for all epochs where it is kept; passing gradients on: twice; trained: three."""
    config = SMALL.replace(strategy="train:conv2", cache=cache)
    costs = macs.count_macs(build(config, plan(config), 10), "alexnet_narrow")
    passes = {"conv1": 1 * times, "conv2": 3 * 8, "head": 3 * 8}
    total = sum(cost.macs * passes.get(stage, 2 * 8) for stage, cost in costs.items())
    facts = explain._gather(config)
    (phase,) = facts.planned.phases
    assert explain._seconds(facts, phase) == pytest.approx(total * 648 / (RATE * explain.EFFICIENCY))


def test_without_the_data_set_it_says_what_is_assumed(capsys):
    assert verbs.main(["train", "--explain", "--dataset=cifar10", "--backbone=alexnet_narrow", "--strategy=head"]) == 0
    text = capsys.readouterr().out
    assert "cifar10 is not at hand: 10 classes assumed, and figures are for 1,000 images" in text
    assert "for each 1,000 training images" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--strategy=last:9"], "7 stages (conv1, conv2, conv3, conv4, conv5, fc6, fc7)"),
        (["--strategy=lora"], "Available: all; the stages conv1, conv2, conv3, conv4, conv5, fc6, fc7; layers whose names end in conv1"),
        (["--strategy=batchnorm"], "the stages conv1, conv2, conv3, conv4, conv5, fc6, fc7 have no batchnorm weights"),
        (["--strategy=gradual", "--epochs=7"], "needs at least 8"),
    ],
)
def test_impossible_runs_are_refused(flags, message, capsys):
    assert verbs.main(["train", "--explain", "--dataset=digits", "--backbone=alexnet_narrow", *flags]) == 2
    assert message in capsys.readouterr().err


def test_the_measured_rate_is_of_this_machine(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(macs, "MATRIX_SIZE", 64)
    monkeypatch.setattr(macs, "MEASURED_SECONDS", 0.01)
    assert macs.measure_matmul_throughput("float32") > 1e6
