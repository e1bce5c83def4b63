"""Settings of the source reports, and sizes of the quick and smoke profiles, that several experiments use.

Every setting is *said* by the text of a source report, *shown* by its code, or *chosen* here.
"""

from types import MappingProxyType

from tl_keras.backbones import get_backbone, resnet_equivalent_stages
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import SMOKE_SETTINGS, Profile

RESNET_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")

# Source report A, "COMP5541 Assignment 1, Question 3".
# Said: CIFAR-10, ImageNet weights, batches of 64 (for part A), 10 epochs (for part B; the curves of A and C end at epoch 10).
# Chosen: 224 px, the normalization of the weights, SGD at learning rate 0.001 with momentum 0.9, a test of the last epoch, and frozen
# stages in training mode, as PyTorch leaves them. About 33 s per epoch of 25,000 images make 224 px likely.
COMP5541 = MappingProxyType(
    {
        "dataset": "cifar10",
        "weights": "imagenet",
        "optimizer": "sgd",
        "learning_rate": 1e-3,
        "momentum": 0.9,
        "epochs": 10,
        "batch_size": 64,
        "selection": "last",
        "frozen_mode": "training",
    }
)

# Source report C, "Pre-trained Models on ImageNet".
# Said: CIFAR-10 and its normalization; for one experiment SGD, momentum 0.9 and a cosine over 20 epochs; at 224 px rotation and flip.
# Chosen: the same optimizer, schedule and augmentation for all rows, batches of 128, a test of the last epoch, and frozen stages in
# training mode. The learning rate is that of the head in the row "different lr".
CIFAR_TABLE = MappingProxyType(
    {
        "dataset": "cifar10",
        "backbone": "resnet18",
        "weights": "imagenet",
        "normalization": "cifar10",
        "augmentation": "rotate10_flip",
        "optimizer": "sgd",
        "learning_rate": 1e-2,
        "momentum": 0.9,
        "schedule": "cosine",
        "epochs": 20,
        "batch_size": 128,
        "selection": "last",
        "frozen_mode": "training",
    }
)

# Source report D, "Transfer Learning Via Default Project 1" (KTH).
# Said: Oxford-IIIT Pet, a fifth of trainval for validation, resize to 256 and crop to 224, 10 epochs at learning rate 0.001, one test at
# the end. Shown: batches of 32, SGD with momentum 0.9 and Nesterov.
# Differences of every experiment with these settings: the learning rate is constant, where the code of most tables divides it by ten
# after epoch 7. BatchNorm of frozen and trained stages runs in training mode throughout, where the code runs it on its running
# statistics from epoch 2 on.
PETS = MappingProxyType(
    {
        "dataset": "oxford_iiit_pet",
        "backbone": "resnet18",
        "weights": "imagenet",
        "validation_fraction": 0.2,
        "optimizer": "sgd",
        "learning_rate": 1e-3,
        "momentum": 0.9,
        "nesterov": True,
        "epochs": 10,
        "batch_size": 32,
        "selection": "last",
        "frozen_mode": "training",
    }
)

# All pets at 96 px. Gradual unfreezing of a ResNet has six phases; seven epochs give at least one to each.
PETS_QUICK = Profile(MappingProxyType({"epochs": 7}), max_image_size=96)

# Gradual unfreezing needs at least one epoch per phase; eight are enough for every backbone that is tested.
GRADUAL_SMOKE = Profile(MappingProxyType({**SMOKE_SETTINGS, "epochs": 8}), max_image_size=64)


def last(base: RunConfig, number: int) -> str:
    """Return the strategy that trains the head and the equivalent of the last `number` stages of a ResNet; 0: the head alone."""
    stages = resnet_equivalent_stages(get_backbone(base.model.backbone), *RESNET_STAGES[len(RESNET_STAGES) - number :])
    return f"last:{len(stages)}"
