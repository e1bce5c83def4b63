"""Frozen stages of a pre-trained ResNet18 (source report A, "COMP5541 Assignment 1, Question 3", part C).

Question: ResNet18 is fine-tuned on CIFAR-10 with nothing frozen, with its early or its middle stages frozen, and with everything
frozen except the last layer. What does freezing cost, and what does it save?

Command: `make exp-part-c`, or `python -m experiments.part_c`

Said by the source report: nothing frozen 94.60 %, early stages (layer1, layer2) 93.58 %, middle stages (layer2, layer3) 93.50 %, all
but the last layer 79.87 %. From epoch 1 to 10, the training accuracy rises from 79.94 to 98.88 % with nothing frozen, and from 76.22 to
98.12 % with early stages frozen. Freezing early or middle stages saves 10 to 15 % of the time.

Chosen here: half of the training images, because 34 s per epoch are close to the 33 s of part B's 25,000 images.
The settings of part A; `experiments/_settings.py` lists them.

What differs: 10 % of the train split is held out for the curves, and nothing is selected on it. The source report scores the test set
in every epoch and prints the best; here the last epoch is tested. Another backbone freezes the
stages that correspond to ResNet's, counted from the last.
"""

import sys
from types import MappingProxyType

from experiments._settings import COMP5541
from tl_keras.backbones import get_backbone, resnet_equivalent_stages
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec
from tl_keras.runs.origins import Settings, chosen, said

NOTHING, EARLY, MIDDLE, LAST_ONLY = "none frozen", "early frozen", "middle frozen", "last only trained"
# Accuracy differences are in points, from the row with nothing frozen.
PUBLISHED = MappingProxyType(
    {
        NOTHING: {"test accuracy": 94.60, "test loss": 0.1713, "seconds per epoch": 34.0},
        EARLY: {"test accuracy": 93.58, "test loss": 0.1937, "accuracy difference": -1.02, "seconds per epoch": 30.0},
        MIDDLE: {"test accuracy": 93.50, "test loss": 0.1979, "accuracy difference": -1.10, "seconds per epoch": 31.0},
        LAST_ONLY: {"test accuracy": 79.87, "test loss": 0.5901, "accuracy difference": -14.73},
    }
)
# Epoch -> (no published loss, training accuracy in per cent).
PUBLISHED_CURVES = MappingProxyType({NOTHING: {1: (None, 79.94), 10: (None, 98.88)}, EARLY: {1: (None, 76.22), 10: (None, 98.12)}})


def rows(base: RunConfig) -> list[RunSpec]:
    """Return one row per choice of frozen stages."""
    backbone = get_backbone(base.model.backbone)
    strategies = {
        NOTHING: "full",
        EARLY: f"freeze:{'+'.join(resnet_equivalent_stages(backbone, 'layer1', 'layer2'))}",
        MIDDLE: f"freeze:{'+'.join(resnet_equivalent_stages(backbone, 'layer2', 'layer3'))}",
        LAST_ONLY: "head",
    }
    return [_row(base, label, said(strategy=strategy)) for label, strategy in strategies.items()]


def _row(base: RunConfig, label: str, changes: Settings) -> RunSpec:
    return RunSpec(
        label=label,
        line=label,
        config=base.replace(**changes),
        origins=changes.origins,
        published=PUBLISHED[label],
        published_curve=PUBLISHED_CURVES.get(label, {}),
    )


EXPERIMENT = Experiment(
    name="part_c",
    title="Part C: frozen stages of ResNet18",
    question="What does freezing early, middle or all stages cost in accuracy, and what does it save?",
    settings=COMP5541 | said(backbone="resnet18") | chosen(fraction=0.5),
    reference=NOTHING,
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.1, "epochs": 5}), max_image_size=64),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
