"""Settings of the source reports, and sizes of the quick and smoke profiles, that several experiments use.

Every setting is *said* by the text of a source report, *shown* by its code, or *chosen* here.
"""

from collections.abc import Mapping
from types import MappingProxyType

from tl_keras.backbones import get_backbone, resnet_equivalent_stages
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import SMOKE_SETTINGS, Profile, RunSpec
from tl_keras.runs.origins import Settings, chosen, said, shown

RESNET50, DEFAULT_WEIGHTS, FIRST_WEIGHTS = "resnet50_torch", "imagenet", "imagenet_v1"
RESNET_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")

# Settings of source reports A, B, C and E that their texts and listings leave open. Most are defaults, written out for the table of
# settings. Frozen layers run in training mode, as PyTorch leaves them, and the last batch of an epoch may be of any size.
OPEN = chosen(
    crop_fraction=0.0,
    interpolation="weights",
    augmentation="none",
    fraction=1.0,
    validation_fraction=0.1,
    frozen_mode="training",
    batch_norm="train",
    batch_norm_momentum=0.0,
    eval_mode_after=-1,
    momentum=0.9,
    nesterov=False,
    l2=0.0,
    weight_decay=0.0,
    schedule="constant",
    schedule_interval="step",
    selection="last",
    precision="auto",
    head="linear",
    loss="cross_entropy",
    last_batch="keep",
)

# Source report A, "COMP5541 Assignment 1, Question 3". Batches of 64 are said for part A, 10 epochs for part B; the curves of parts A
# and C end at epoch 10. About 33 s per epoch of 25,000 images make the chosen 224 px likely.
COMP5541 = (
    OPEN
    | said(dataset="cifar10", weights="imagenet", epochs=10)
    | chosen(normalization="weights", image_size=224, optimizer="sgd", learning_rate=1e-3, batch_size=64)
)

# Source report C, "Pre-trained Models on ImageNet". A listing for the row with different learning rates shows SGD, its momentum and a
# cosine over 20 epochs, once an epoch. They are chosen for all other rows, with that listing's learning rate of the head. Augmentation
# is said for images of 224 px, and chosen for 32 px, where its resize changes nothing.
CIFAR_TABLE = (
    OPEN
    | said(dataset="cifar10", backbone="resnet18", weights="imagenet", normalization="cifar10")
    | chosen(augmentation="resize+rotate:degrees=10,interpolation=nearest+flip")
    | chosen(optimizer="sgd", learning_rate=1e-2, schedule="cosine", schedule_interval="epoch", epochs=20, batch_size=128)
)

# Source report D, "Transfer Learning Via Default Project 1" (KTH).
# Differences in all its experiments: the validation images are a stratified fifth, where the code draws a fifth at random, anew for each
# set. The code augments validation images as well; ours are not augmented. Nothing is selected on them. The code sets one seed once, so
# each of its runs continues the random numbers of the one before it; each of ours has a seed.
PETS = (
    said(
        dataset="oxford_iiit_pet",
        label="label",
        fraction=1.0,
        validation_fraction=0.2,
        augmentation="none",
        backbone="resnet18",
        weights="imagenet",
        image_size=0,  # The transform of the weights: resize to 256, centre crop of 224.
        crop_fraction=0.0,
        interpolation="weights",
        normalization="weights",
        loss="cross_entropy",
        optimizer="sgd",
        learning_rate=1e-3,
        momentum=0.9,
        nesterov=True,
        weight_decay=0.0,
        l2=0.0,
        epochs=10,
    )
    | shown(
        head="linear",
        batch_size=32,
        # The network is put into training mode once, before the first epoch. The evaluation after that epoch puts it into evaluation mode,
        # and it stays there. So BatchNorm, frozen or not, runs on batches in epoch 1 and on its running statistics from epoch 2 on.
        frozen_mode="training",
        batch_norm="train",
        batch_norm_momentum=0.9,
        eval_mode_after=1,
        schedule="step:every=7,factor=0.1",
        schedule_interval="epoch",
        selection="last",
    )
    | chosen(split="stratified", precision="auto", last_batch="keep")
)
# Steps at the size of the model's input. The text names flip, rotation and jitter; their strengths are those of the code.
MEANT_AUGMENTATION = "resize+flip+rotate:degrees=20,interpolation=nearest+jitter:brightness=0.2,contrast=0.2,saturation=0.2"
PETS_AUGMENTATION = MEANT_AUGMENTATION.replace("resize", "random_resized_crop:scale=0.08-1,ratio=0.75-1.3333")

# All images at 64 px, and half of the epochs. Everything that happens after an epoch happens after half as many, rounded up: the learning
# rate falls after epoch 4 instead of 7, and `gradual` unfreezes a stage every epoch instead of every second one. Evaluation mode begins
# after epoch 1 in both.
PETS_QUICK = Profile(MappingProxyType({"epochs": 5, "schedule": "step:every=4,factor=0.1"}), max_image_size=64)
PETS_QUICK_CONSTANT = Profile(MappingProxyType({"epochs": 5}), max_image_size=64)

# Two epochs, one before the switch to evaluation mode and one after it.
PETS_SMOKE = Profile(MappingProxyType({**SMOKE_SETTINGS, "epochs": 2, "schedule": "step:every=1,factor=0.1"}), max_image_size=64)
PETS_SMOKE_CONSTANT = Profile(MappingProxyType({**SMOKE_SETTINGS, "epochs": 2}), max_image_size=64)
# Gradual unfreezing from layer4 to layer1 has four phases.
GRADUAL_SMOKE = Profile(MappingProxyType({**SMOKE_SETTINGS, "epochs": 4}), max_image_size=64)

# Source report D ran some rows twice or three times with equal settings. Their seeds differ by this, so they measure the noise.
REPEAT = 1000


def row(base: RunConfig, label: str, line: str, changes: Settings, published: Mapping[str, float] = MappingProxyType({})) -> RunSpec:
    """Return a row with `changes` of `base`. `published` is the metrics of `RunSpec.published`."""
    return RunSpec(label, line, base.replace(**changes), published=published, origins=changes.origins)


def with_available_weights(base: RunConfig) -> RunConfig:
    """Return `base` with the default ImageNet weights if it has torchvision's first ones of ResNet50 on another backbone."""
    is_missing = base.model.weights == FIRST_WEIGHTS and base.model.backbone != RESNET50
    return base.replace(weights=DEFAULT_WEIGHTS) if is_missing else base


def stages(base: RunConfig, *names: str) -> tuple[str, ...]:
    """Return the stages of the backbone of `base` that correspond to the stages `names` of a ResNet."""
    return resnet_equivalent_stages(get_backbone(base.model.backbone), *names)


def last(base: RunConfig, number: int) -> str:
    """Return the strategy that trains the head and the equivalent of the last `number` stages of a ResNet; 0: the head alone."""
    num_stages = len(stages(base, *RESNET_STAGES[len(RESNET_STAGES) - number :]))
    return f"last:{num_stages}" if num_stages else "head"


def last_children(base: RunConfig, number: int) -> str:
    """Return the strategy that source report D ran as `l = number`, at most 5.

    Its code trains the last `number + 1` children of a ResNet: conv1, bn1, relu, maxpool, layer1 to layer4, avgpool, fc. Pooling has no
    weights, so 0 and 1 are the head alone, 2 adds layer4, and 5 trains layer1 to layer4. The stem is never trained.
    """
    return last(base, max(0, number - 1))


def stage_learning_rates(base: RunConfig, head: float, **learning_rates: float) -> str:
    """Return the setting `stage_learning_rates` for the head and the equivalents of stages of a ResNet."""
    values = {"head": head} | {stage: value for name, value in learning_rates.items() for stage in stages(base, name)}
    return ",".join(f"{stage}={value:g}" for stage, value in values.items())
