"""Part C of "COMP5541 Assignment 1, Question 3": which layers of a pre-trained ResNet18 may be frozen?

Question: ResNet18 fine-tuned on CIFAR-10 with nothing frozen, with its early or its middle stages frozen, and with all frozen
but the last layer.

Command: `make exp-part-c`, or `python -m experiments.part_c`

The report: nothing frozen 94.60 %, loss 0.1713; early (layer1, layer2) 93.58 %, 0.1937; middle (layer2, layer3) 93.50 %,
0.1979; last layer only 79.87 %, 0.5901. Half of the data is not stated, but its 34 s an epoch are those of part B's 25,000
images. Frozen stages run in training mode, as PyTorch leaves them: their BatchNorm goes on normalising with the batch.

What differs: 10 % of the train split is held out for the curves; nothing is selected on it. With another backbone, stages are
matched with ResNet's from the last one up.
"""

import sys
from types import MappingProxyType

from experiments._settings import COMP5541
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, Row, like_resnet

NOTHING, EARLY, MIDDLE, LAST_ONLY = "none frozen", "early frozen", "middle frozen", "last only trained"
REPORTED = MappingProxyType(
    {
        NOTHING: {"test accuracy": 94.60, "test loss": 0.1713, "seconds per epoch": 34.0},
        EARLY: {"test accuracy": 93.58, "test loss": 0.1937, "seconds per epoch": 30.0},
        MIDDLE: {"test accuracy": 93.50, "test loss": 0.1979, "seconds per epoch": 31.0},
        LAST_ONLY: {"test accuracy": 79.87, "test loss": 0.5901},
    }
)
# Training accuracy in per cent alone is reported.
REPORTED_TRAINING_ACCURACY = MappingProxyType({NOTHING: {1: 79.94, 10: 98.88}, EARLY: {1: 76.22, 10: 98.12}})


def rows(base: RunConfig) -> list[Row]:
    """What is frozen, from nothing to all but the head."""
    strategies = {
        NOTHING: "full",
        EARLY: f"freeze:{'+'.join(like_resnet(base, 'layer1', 'layer2'))}",
        MIDDLE: f"freeze:{'+'.join(like_resnet(base, 'layer2', 'layer3'))}",
        LAST_ONLY: "head",
    }
    return [
        Row(label=label, group=label, config=base.replace(strategy=strategy), reported=REPORTED[label])
        for label, strategy in strategies.items()
    ]


EXPERIMENT = Experiment(
    name="part_c",
    title="Part C: which stages of ResNet18 may be frozen",
    question="What does freezing early, middle or all stages cost in accuracy, and what does it save?",
    settings=MappingProxyType({**COMP5541, "backbone": "resnet18", "fraction": 0.5}),
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.1, "epochs": 5}), max_image_size=64),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
