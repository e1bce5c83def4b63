"""What several experiments share: the settings of each report, and how small their quick and smoke profiles are."""

from types import MappingProxyType

from tl_keras.config import RunConfig
from tl_keras.runs.experiment import SMOKE_SETTINGS, Profile, like_resnet

RESNET_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")

# Report A, COMP5541: 224 px, ImageNet weights, 10 epochs, batches of 64. The optimizer is not named; see part_a.
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

# Report C, "Pre-trained Models on ImageNet": SGD with momentum 0.9 and a cosine over 20 epochs, normalised by CIFAR-10's statistics.
# The rate is that of its newest layer under "different lr"; the batch size is not given. Rotation and flip are named for the
# runs at 224 px and taken for all.
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

# Report D, KTH: Oxford-IIIT Pet, a fifth of trainval for validation, resize 256, crop 224, 10 epochs at rate 0.001, tested once
# at the end. The batch size is not given.
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

# All images of the pets at 96 px, and one epoch for each phase of gradual unfreezing over a ResNet and one more.
PETS_QUICK = Profile(MappingProxyType({"epochs": 7}), max_image_size=96)

# Enough images for one of each breed where only a quarter of the cats is kept, and an epoch for each phase of any backbone at hand.
GRADUAL_SMOKE = Profile(MappingProxyType({**SMOKE_SETTINGS, "epochs": 8}), max_image_size=64)


def last(base: RunConfig, number: int) -> str:
    """The strategy that trains the head and what lies where a ResNet has its last `number` stages; 0 is the head alone."""
    stages = like_resnet(base, *RESNET_STAGES[len(RESNET_STAGES) - number :])
    return f"last:{len(stages)}"
