"""ResNet18 against VGG16 (source report A, "COMP5541 Assignment 1, Question 3", part B).

Question: Both models are fully fine-tuned from ImageNet weights on half of CIFAR-10's training images, with identical settings. Which
is better, and what does it cost?

Command: `make exp-part-b`, or `python -m experiments.part_b`

Said by the source report: 25,000 images, 10 epochs. ResNet18 reaches 94.30 % at about 33 s per epoch, VGG16 92.59 % at about 505 s.

Chosen here: the settings of part A; `experiments/_settings.py` lists them.

What differs: VGG16 has 134 million parameters with 10 classes; the source report counts the 138 million of 1,000 classes. 10 % of
the train split is held out for the curves, and nothing is selected on it.
"""

import sys
from types import MappingProxyType

from experiments._settings import COMP5541
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec

PUBLISHED = MappingProxyType(
    {
        "resnet18": {"test accuracy": 94.30, "test loss": 0.1665, "seconds per epoch": 33.0},
        "vgg16": {"test accuracy": 92.59, "test loss": 0.2633, "seconds per epoch": 505.0},
    }
)
PUBLISHED_CURVES = MappingProxyType(
    {
        "resnet18": {1: (0.6968, 78.49), 5: (0.1128, 96.46), 10: (0.0407, 98.94)},
        "vgg16": {1: (0.5862, 79.77), 5: (0.1484, 94.89), 10: (0.0587, 98.04)},
    }
)
# The `imagenet` weights of VGG16 are those of Keras; the source report's are torchvision's.
WEIGHTS = MappingProxyType({"resnet18": "imagenet", "vgg16": "torchvision"})
LABELS = MappingProxyType({"resnet18": "ResNet18", "vgg16": "VGG16"})


def rows(base: RunConfig) -> list[RunSpec]:
    """Return one row per model, with torchvision's weights if `base` has `imagenet` weights, else with those of `base`."""
    return [
        RunSpec(
            label=LABELS[backbone],
            line=LABELS[backbone],
            config=base.replace(backbone=backbone, weights=WEIGHTS[backbone] if base.model.weights == "imagenet" else base.model.weights),
            published=published,
            published_curve=PUBLISHED_CURVES[backbone],
        )
        for backbone, published in PUBLISHED.items()
    ]


EXPERIMENT = Experiment(
    name="part_b",
    title="Part B: ResNet18 against VGG16, fine-tuned on half of the data",
    question="Which of two pre-trained models is better, and what does it cost?",
    settings=MappingProxyType({**COMP5541, "fraction": 0.5, "strategy": "full"}),
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.1, "epochs": 3}), max_image_size=64),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
