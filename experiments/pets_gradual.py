"""Report D, "Transfer Learning Via Default Project 1", strategy 2: gradual unfreezing, from the last layers to the first.

Question: ResNet18 on 37 breeds, one stage more unfrozen at a time; what do rate, L2, augmentation and rates by layer change?

Command: `make exp-pets-gradual`, or `python -m experiments.pets_gradual`

The report: baseline 88.77 % in 208 s (GTX 1080), rate 0.01 88.85, L2 0.01 88.49, augmentation 85.34 in 232 s, different rates
(0.01 on the last, divided by ten for each earlier layer) 88.69.

What differs: when a stage is unfrozen is not given; the ten epochs are spread evenly over the head and the five stages. The
batch size is not given, 32 is taken. Frozen stages run in training mode, as PyTorch leaves them.
"""

import sys
from types import MappingProxyType

from experiments._settings import GRADUAL_SMOKE, PETS, PETS_QUICK
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Row

# Label -> what changes, the reported test accuracy in per cent, and the seconds on a GTX 1080.
FACTORS = MappingProxyType(
    {
        "baseline": ({}, 88.77, 208),
        "rate 0.01": ({"learning_rate": 0.01}, 88.85, 207),
        "L2 0.01": ({"l2": 0.01}, 88.49, 208),
        "augmentation": ({"augmentation": "flip_rotate20_jitter"}, 85.34, 232),
        "rates by layer": ({"strategy": "gradual:decay=0.1", "learning_rate": 0.01}, 88.69, 208),
    }
)


def rows(base: RunConfig) -> list[Row]:
    """The baseline and one row for each factor."""
    return [
        Row(label=label, group="gradual", config=base.replace(**changes), reported={"test accuracy": accuracy, "seconds": seconds})
        for label, (changes, accuracy, seconds) in FACTORS.items()
    ]


EXPERIMENT = Experiment(
    name="pets_gradual",
    title="Gradual unfreezing of ResNet18 on 37 breeds",
    question="Does unfreezing one stage after the other help, and with which settings?",
    settings=MappingProxyType({**PETS, "strategy": "gradual"}),
    rows=rows,
    quick=PETS_QUICK,
    smoke=GRADUAL_SMOKE,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
