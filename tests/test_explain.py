"""The description before a run: MACs against published ones, parameters, learning rates, the cache; and what is refused."""

import re

import pytest
from keras import layers
from plain_config import PLAIN

from tl_keras import backbones
from tl_keras.backbones import macs
from tl_keras.cli import verbs
from tl_keras.errors import ConfigError
from tl_keras.runs import explain
from tl_keras.runs.resolve import check_strategy, resolve
from tl_keras.runs.setup import add_adapters, build_model
from tl_keras.strategies import STRATEGIES


@pytest.fixture(autouse=True)
def no_data(tmp_path, monkeypatch):
    """Fail if a data set or weights are looked for; neither is prepared."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for name in ("tl_keras.runs.resolve.locate_weights", "tl_keras.utils.connectivity.is_reachable"):
        monkeypatch.setattr(name, lambda *arguments: pytest.fail("looked for what need not exist"))


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
def test_macs_equal_the_published_ones(name):
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
    model = build_model(resolve(config), 10)
    before = macs.count_macs(model, "alexnet_narrow")
    after = macs.count_macs(add_adapters(model, resolve(config)), "alexnet_narrow")
    assert {stage: after[stage].macs - before[stage].macs for stage in after} == dict.fromkeys(after, 0) | {"fc6": 2 * (6 * 6 * 64 + 384)}


def test_a_layer_without_a_formula_is_named(monkeypatch):
    monkeypatch.setattr(macs, "FORMULAS", {key: value for key, value in macs.FORMULAS.items() if key != "Conv2D"})
    assert "Layers without a formula for MACs, counted as 0: Conv2D." in explain.explain(SMALL)


SMALL = PLAIN.replace(
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
    "lora": "lora:rank=2,targets=all",
}
# The five networks of the source reports at the smallest size they take, in the slow set, and a small one with all their kinds of weights.
FIVE = {"alexnet": 63, "resnet18": 32, "vgg16": 32, "resnet50": 32, "vit_b16": 32}
SIZES = FIVE | {"tiny": 16}
BATCH_NORM = ("resnet18", "resnet50", "tiny")


def explained(backbone: str, strategy: str) -> str:
    stages = [stage for stage, _ in backbones.get_backbone(backbone).stages]
    settings = {"dataset": "cifar10", "backbone": backbone, "image_size": SIZES[backbone], "epochs": 2 * len(stages) + 2}
    return explain.explain(SMALL.replace(strategy=STRATEGY_OF[strategy].format(first=stages[0]), **settings))


@pytest.mark.parametrize("backbone", ["tiny", *(pytest.param(name, marks=slow) for name in FIVE)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_lists_every_stage_of_every_phase(strategy, backbone):
    """The parameters of the stages add up to those of the phase. A strategy that the backbone does not support is refused."""
    stages = [stage for stage, _ in backbones.get_backbone(backbone).stages]
    if strategy == "batchnorm" and backbone not in BATCH_NORM:
        with pytest.raises(ConfigError, match=f"{backbone} has no batchnorm weights"):
            explained(backbone, strategy)
        return
    _, *phases = re.split(r"\nphase \d+ of \d+: ", explained(backbone, strategy))
    assert len(phases) == {"gradual": len(stages) + 1, "head_then_full": 2}.get(strategy, 1)
    for phase in phases:
        rows = [re.split(r" {2,}", line.strip()) for line in phase.splitlines()[2 : 3 + len(stages)]]
        assert [row[0] for row in rows] == [*stages, "head"] and rows[-1][1] == "all"
        total = int(re.search(r"trains ([\d,]+) of", phase)[1].replace(",", ""))
        assert total == sum(int(row[3].replace(",", "")) for row in rows) > 0


@pytest.mark.parametrize("backbone", ["alexnet", "vit_b16", "vgg16"])
def test_batch_norm_alone_is_refused_where_there_is_none(backbone):
    with pytest.raises(ConfigError, match=f"{backbone} has no batchnorm weights"):
        resolve(SMALL.replace(backbone=backbone, image_size=FIVE[backbone], strategy="batchnorm"))


GOLDEN = """\
model      alexnet_narrow, 64 px (bilinear), 1,195,738 parameters, 4.49 M MACs
data       648 training images of digits
strategy   gradual:decay=0.1

phase 1 of 8: gradual 0, 1 epoch, trains 3,850 of 1,195,738 parameters (0.32 %)
  stage  trained                     learning rate  parameters  MACs
  conv1  nothing, in inference mode  -              0           1.31 M
  conv2  nothing, in inference mode  -              0           941 k
  conv3  nothing, in inference mode  -              0           373 k
  conv4  nothing, in inference mode  -              0           498 k
  conv5  nothing, in inference mode  -              0           332 k
  fc6    nothing, in inference mode  -              0           885 k
  fc7    nothing, in inference mode  -              0           147 k
  head   all                         0.01           3,850       3.84 k
  cache    split after features, 1.5 kB per image, 1.2 MB (memory), saves 4.5 M MACs per image and epoch
"""


def test_the_whole_text_of_a_phase():
    text = explain.explain(SMALL.replace(strategy="gradual:decay=0.1"))
    assert text.startswith(GOLDEN)
    assert re.search(r"fc7 +all +0\.001 ", text) and re.search(r"conv1 +all +1e-09 ", text)
    assert text.count("\nphase ") == 8 and "phase 8 of 8: gradual 7, 1 epoch, trains 1,195,738 of" in text


@pytest.mark.parametrize(
    ("settings", "stem", "body"),
    [
        ({"strategy": "last:1"}, "nothing, in inference mode", "all"),
        ({"strategy": "last:1", "frozen_mode": "training"}, "nothing, in training mode", "all"),
        ({"strategy": "last:1", "batch_norm": "inference"}, "nothing, in inference mode", "all, BatchNorm in inference mode"),
        (
            {"strategy": "last:1", "frozen_mode": "training", "eval_mode_after": 0},
            "nothing, in inference mode",
            "all, BatchNorm and dropout in inference mode",
        ),
        ({"strategy": "batchnorm"}, "batchnorm", "batchnorm"),
        ({"strategy": "lora:targets=body"}, "nothing, in inference mode", "adapters, BatchNorm and dropout in inference mode"),
        ({"strategy": "train:body/conv"}, "nothing, in inference mode", "conv, BatchNorm and dropout in inference mode"),
        ({"strategy": "train:body/conv+body/bn"}, "nothing, in inference mode", "conv+bn, dropout in inference mode"),
        ({"strategy": "train:body/conv", "frozen_mode": "training"}, "nothing, in training mode", "conv"),
    ],
    ids=str,
)
def test_modes_are_listed_where_they_differ(settings, stem, body):
    text = explain.explain(SMALL.replace(backbone="tiny", **settings))
    assert re.search(rf"  stem +{stem}  ", text) and re.search(rf"  body +{re.escape(body)}  ", text)


def test_some_layers_of_a_stage_may_run_in_another_mode():
    config = SMALL.replace(backbone="resnet18", image_size=32, strategy="train:stem/conv1+layer1/bn1")
    text = explain.explain(config)
    assert re.search(r"stem +conv1, BatchNorm in inference mode ", text) and re.search(
        r"layer1 +bn1, some BatchNorm in inference mode ", text
    )


def test_evaluation_mode_is_a_phase_of_its_own():
    text = explain.explain(SMALL.replace(backbone="tiny", strategy="head", frozen_mode="training", eval_mode_after=1))
    assert "phase 1 of 2: head, 1 epoch," in text and "phase 2 of 2: head (eval mode), 7 epochs," in text
    first, second = text.split("phase 2 of 2")
    assert "not cached: the first stage is trained or random" in first and "split after features" in second


def test_layers_that_the_model_lacks_are_refused_before_training():
    with pytest.raises(ConfigError, match=r"train:stem/conv9`: no layer .* Layers of stem: bn1, conv1\."):
        check_strategy(resolve(SMALL.replace(backbone="resnet18", image_size=32, strategy="train:stem/conv9+layer1")))
    with pytest.raises(ConfigError, match=r"train:stem/conv9`: no layer"):
        explain.explain(SMALL.replace(backbone="resnet18", image_size=32, strategy="train:stem/conv9"))


@pytest.mark.parametrize(
    ("settings", "cache"),
    [
        ({"strategy": "full"}, "not cached: the first stage is trained"),
        ({"strategy": "train:conv1"}, "not cached: the first stage is trained"),
        ({"strategy": "head", "cache": "off"}, "not cached: `cache=off`"),
        ({"strategy": "head", "frozen_mode": "training"}, "split after conv5, 0.3 kB per image"),
        ({"strategy": "bias"}, "not cached: the first stage is trained or random"),
        ({"strategy": "last:1"}, "split after fc6, 1.5 kB per image, 2.0 MB (memory)"),
        ({"strategy": "train:conv2"}, "split after conv1, 3.1 kB per image, 4.0 MB (memory), saves 1.3 M MACs"),
        ({"strategy": "lora:targets=fc6"}, "split after conv5, 0.3 kB per image"),
        ({"strategy": "head", "precision": "mixed_bfloat16"}, "split after features, 0.8 kB per image"),
        ({"strategy": "head", "augmentation": "flip"}, "not cached: augmentation flip makes new images in each epoch"),
        ({"strategy": "head", "augmentation": "flip", "cache_views": 2}, "split after features, 1.5 kB per image, 3.0 MB (memory)"),
    ],
)
def test_what_is_cached(settings, cache):
    (line,) = [line for line in explain.explain(SMALL.replace(**settings)).splitlines() if line.startswith("  cache")]
    assert cache in line


@pytest.mark.parametrize(
    ("settings", "noted"),
    [
        ({"strategy": "last:2"}, "Conv1, conv2, conv3, conv4, conv5 keep random weights"),
        ({"strategy": "full"}, ""),
        ({"strategy": "gradual"}, ""),
        ({"strategy": "last:2", "weights": "glyphs"}, ""),
    ],
    ids=str,
)
def test_random_weights_that_are_never_trained_are_noted(settings, noted):
    text = explain.explain(SMALL.replace(**settings))
    assert noted in text and ("random weights" in text) == bool(noted)


def test_without_the_data_set_it_says_what_is_assumed(capsys):
    assert verbs.main(["train", "--explain", "--dataset=cifar10", "--backbone=alexnet_narrow", "--strategy=head"]) == 0
    text = capsys.readouterr().out
    assert "cifar10 is not available: 10 classes and 1,000 training images are assumed" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--strategy=last:9"], "7 stages (conv1, conv2, conv3, conv4, conv5, fc6, fc7)"),
        (
            ["--strategy=lora"],
            "alexnet_narrow has no attention weights. Use --strategy=lora:targets=all, or as targets the stages conv1, conv2",
        ),
        (["--strategy=batchnorm"], "alexnet_narrow has no batchnorm weights"),
        (["--strategy=gradual", "--epochs=7"], "needs at least 8"),
    ],
)
def test_impossible_runs_are_refused(flags, message, capsys):
    assert verbs.main(["train", "--explain", "--dataset=digits", "--backbone=alexnet_narrow", *flags]) == 2
    assert message in capsys.readouterr().err
