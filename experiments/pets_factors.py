"""Report D, "Transfer Learning Via Default Project 1": what do rate, L2 and augmentation change at l = 3?

Question: ResNet18 on 37 breeds, the head and the last three stages trained at once; one factor changed at a time.

Command: `make exp-pets-factors`, or `python -m experiments.pets_factors`

The report: baseline 88.91, rate 0.01 88.25, L2 0.01 88.58, augmentation (flip, rotation by 20 degrees, colour jitter) 89.72 %.

What differs: the batch size is not given, 32 is taken, and the strength of the jitter is ours. Augmentation happens at the
source resolution, before resize and crop. Frozen stages run in training mode, as PyTorch leaves them.
"""

import sys
from types import MappingProxyType

from experiments._settings import PETS, PETS_QUICK, last
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Row

# Label -> what changes, and the reported test accuracy in per cent.
FACTORS = MappingProxyType(
    {
        "baseline": ({}, 88.91),
        "rate 0.01": ({"learning_rate": 0.01}, 88.25),
        "L2 0.01": ({"l2": 0.01}, 88.58),
        "augmentation": ({"augmentation": "flip_rotate20_jitter"}, 89.72),
    }
)


def rows(base: RunConfig) -> list[Row]:
    """The baseline and one row for each factor."""
    return [
        Row(label=label, group="l = 3", config=base.replace(strategy=last(base, 3), **changes), reported={"test accuracy": figure})
        for label, (changes, figure) in FACTORS.items()
    ]


EXPERIMENT = Experiment(
    name="pets_factors",
    title="Rate, L2 and augmentation with the last three stages of ResNet18",
    question="Which change of one setting helps when three stages are fine-tuned?",
    settings=PETS,
    rows=rows,
    quick=PETS_QUICK,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
