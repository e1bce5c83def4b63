"""Gradual unfreezing of ResNet18 on pets (source report D, "Transfer Learning Via Default Project 1", strategy 2).

Question: On 37 breeds, does unfreezing one stage after the other help, from the head down to the stem, and with which settings?

Command: `make exp-pets-gradual`, or `python -m experiments.pets_gradual`

Said by the source report: baseline 88.77 % in 208 s (GTX 1080), learning rate 0.01 88.85 %, L2 0.01 88.49 %, augmentation 85.34 %,
different learning rates (0.01 on the last layer, divided by ten for each earlier one) 88.69 %.

Shown by its code: the head and layer4 train from epoch 1, layer3 from 3, layer2 from 5, layer1 from 7, the stem never. Each epoch has a
new optimizer. Every row runs at learning rate 0.001, so three of the published values are equal runs. A file of results has 87.49 %
for L2.

What differs: the ten epochs are divided evenly between the head and the five stages, one optimizer serves all of them, and the learning
rates are those of the text. `experiments/_settings.py` lists further differences.
"""

import sys
from types import MappingProxyType

from experiments._settings import GRADUAL_SMOKE, PETS, PETS_QUICK
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, RunSpec

# Label -> (changed settings, published test accuracy in per cent, published seconds on a GTX 1080).
FACTORS = MappingProxyType(
    {
        "baseline": ({}, 88.77, 208),
        "rate 0.01": ({"learning_rate": 0.01}, 88.85, 207),
        "L2 0.01": ({"l2": 0.01}, 88.49, 208),
        "augmentation": ({"augmentation": "flip_rotate20_jitter"}, 85.34, 232),
        "rates by layer": ({"strategy": "gradual:decay=0.1", "learning_rate": 0.01}, 88.69, 208),
    }
)


def rows(base: RunConfig) -> list[RunSpec]:
    """Return the baseline and one row per factor."""
    return [
        RunSpec(label=label, line="gradual", config=base.replace(**settings), published={"test accuracy": accuracy, "seconds": seconds})
        for label, (settings, accuracy, seconds) in FACTORS.items()
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
