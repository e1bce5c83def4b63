"""ResNet18 against VGG16 (source report A, "COMP5541 Assignment 1, Question 3", part B).

Question: Both models are fully fine-tuned from ImageNet weights on half of CIFAR-10's training images, with identical settings. Which
is better, and what does it cost?

Command: `make exp-part-b`, or `python -m experiments.part_b`

Said by the source report: 25,000 images, 10 epochs. ResNet18 reaches 94.30 % at about 33 s per epoch, VGG16 92.59 % at about 505 s.
So ResNet18 has a twelfth of the parameters and is fifteen times as fast.

Chosen here: full fine-tuning, which training accuracies of 98 % suggest, and the settings of part A. `experiments/_settings.py` lists
them.

What differs: VGG16 has 134 million parameters with 10 classes, and ResNet18 11.2 million. The source report counts the 138 and 11.7
million of 1,000 classes. 10 % of the train split is held out for the curves, and nothing is selected on it. The source report scores
the test set in every epoch and prints the best; here the last epoch is tested.
"""

import sys
from types import MappingProxyType

from experiments._settings import COMP5541
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec
from tl_keras.runs.origins import chosen, said

PUBLISHED = MappingProxyType(
    {
        "resnet18": {
            "test accuracy": 94.30,
            "test loss": 0.1665,
            "parameters": 11.7e6,
            "parameter ratio": 12.0,
            "seconds per epoch": 33.0,
            "speed ratio": 15.0,
        },
        "vgg16": {"test accuracy": 92.59, "test loss": 0.2633, "parameters": 138e6, "seconds per epoch": 505.0},
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
    return [_row(base, backbone) for backbone in PUBLISHED]


def _row(base: RunConfig, backbone: str) -> RunSpec:
    changes = said(backbone=backbone, weights=WEIGHTS[backbone] if base.model.weights == "imagenet" else base.model.weights)
    return RunSpec(
        label=LABELS[backbone],
        line=LABELS[backbone],
        config=base.replace(**changes),
        origins=changes.origins,
        published=PUBLISHED[backbone],
        published_curve=PUBLISHED_CURVES[backbone],
    )


EXPERIMENT = Experiment(
    name="part_b",
    title="Part B: ResNet18 against VGG16, fine-tuned on half of the data",
    question="Which of two pre-trained models is better, and what does it cost?",
    settings=COMP5541 | said(fraction=0.5) | chosen(strategy="full"),
    reference=LABELS["vgg16"],
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.1, "epochs": 3}), max_image_size=64),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
