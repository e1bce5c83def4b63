"""Learning rate, L2 and augmentation of ResNet18 on pets (source report D, "Transfer Learning Via Default Project 1").

Question: On 37 breeds, with the head and the last three stages trained at once, what does a change of one setting do?

Command: `make exp-pets-factors`, or `python -m experiments.pets_factors`

Said by the source report, for l = 3: baseline 88.91 %, learning rate 0.01 88.25 %, L2 0.01 88.58 %, augmentation (flip, rotation,
jitter) 89.72 %.

Shown by its code: l = 3 trains the head, layer4 and layer3. The higher learning rate is 0.005. Augmentation also crops at random, and
augments the validation images too.

What differs: l = 3 trains layer2 as well, the learning rate is 0.01 and augmentation has no random crop, as the text suggests.
Augmentation happens at the source resolution, before resize and crop. `experiments/_settings.py` lists further differences.
"""

import sys
from types import MappingProxyType

from experiments._settings import PETS, PETS_QUICK, last
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, RunSpec

# Label -> (changed settings, published test accuracy in per cent).
FACTORS = MappingProxyType(
    {
        "baseline": ({}, 88.91),
        "rate 0.01": ({"learning_rate": 0.01}, 88.25),
        "L2 0.01": ({"l2": 0.01}, 88.58),
        "augmentation": ({"augmentation": "flip_rotate20_jitter"}, 89.72),
    }
)


def rows(base: RunConfig) -> list[RunSpec]:
    """Return the baseline and one row per factor."""
    return [
        RunSpec(label=label, line="l = 3", config=base.replace(strategy=last(base, 3), **settings), published={"test accuracy": accuracy})
        for label, (settings, accuracy) in FACTORS.items()
    ]


EXPERIMENT = Experiment(
    name="pets_factors",
    title="Learning rate, L2 and augmentation with the last three stages of ResNet18",
    question="Which change of one setting helps when three stages are fine-tuned?",
    settings=PETS,
    rows=rows,
    quick=PETS_QUICK,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
