"""Part B of "COMP5541 Assignment 1, Question 3": which pre-trained network is better, ResNet18 or VGG16?

Question: both fine-tuned in full from ImageNet weights on half of CIFAR-10's training images, with identical settings.

Command: `make exp-part-b`, or `python -m experiments.part_b`

The report: 25,000 images resized to 224, 10 epochs. Batch size 64 and the optimizer are taken as in part A, where it states
the one and leaves out the other. ResNet18 94.30 %, loss 0.1665, about 33 s an epoch; VGG16 92.59 %, 0.2633, about 505 s.

What differs: VGG16 has 134 million parameters with 10 classes; the report counts the 138 million of 1,000. Its weights here are
torchvision's, as the report's. 10 % of the train split is held out for the curves; nothing is selected on it.
"""

import sys
from types import MappingProxyType

from experiments._settings import COMP5541
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, Row

REPORTED = MappingProxyType(
    {
        "resnet18": {"test accuracy": 94.30, "test loss": 0.1665, "seconds per epoch": 33.0},
        "vgg16": {"test accuracy": 92.59, "test loss": 0.2633, "seconds per epoch": 505.0},
    }
)
REPORTED_CURVES = MappingProxyType(
    {
        "resnet18": {1: (0.6968, 78.49), 5: (0.1128, 96.46), 10: (0.0407, 98.94)},
        "vgg16": {1: (0.5862, 79.77), 5: (0.1484, 94.89), 10: (0.0587, 98.04)},
    }
)
WEIGHTS = MappingProxyType({"resnet18": "imagenet", "vgg16": "torchvision"})
NAMES = MappingProxyType({"resnet18": "ResNet18", "vgg16": "VGG16"})


def rows(base: RunConfig) -> list[Row]:
    """The two networks; from scratch where `base` has no weights."""
    return [
        Row(
            label=NAMES[backbone],
            group=NAMES[backbone],
            config=base.replace(backbone=backbone, weights=WEIGHTS[backbone] if base.model.weights == "imagenet" else base.model.weights),
            reported=figures,
            reported_curve=REPORTED_CURVES[backbone],
        )
        for backbone, figures in REPORTED.items()
    ]


EXPERIMENT = Experiment(
    name="part_b",
    title="Part B: ResNet18 against VGG16, fine-tuned on half of the data",
    question="Which of two pre-trained networks is better, and at what cost?",
    settings=MappingProxyType({**COMP5541, "fraction": 0.5, "strategy": "full"}),
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.1, "epochs": 3}), max_image_size=64),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
