"""Cat or dog, with the last layer of ResNet18 alone (source report D, "Transfer Learning Via Default Project 1").

Question: How well does a linear classifier on ImageNet features tell the cats of Oxford-IIIT Pet from its dogs?

Command: `make exp-pets-binary`, or `python -m experiments.pets_binary`

Said by the source report: 98.39 % (99 % was the aim) in 183 s, two class scores, binary cross-entropy.

Shown by its code: one logit with a sigmoid, Adam at a constant 0.001.

Chosen: Adam in the row with two class scores too.

What differs: see source report D in `experiments/_settings.py`.
"""

import sys

from experiments._settings import PETS, PETS_QUICK_CONSTANT, PETS_SMOKE_CONSTANT, row
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, RunSpec
from tl_keras.runs.origins import said, shown


def rows(base: RunConfig) -> list[RunSpec]:
    """Return the row with one logit, as it was run, and the row with two."""
    return [
        row(base, "cat or dog", "last layer", shown(head="one_logit"), {"test accuracy": 98.39, "seconds": 183}),
        row(base, "meant: two class scores", "meant", said(head="linear")),
    ]


EXPERIMENT = Experiment(
    name="pets_binary",
    title="Cat or dog: the last layer of ResNet18",
    question="Are ImageNet features enough to tell cats from dogs?",
    settings=PETS | said(label="species", strategy="head") | shown(optimizer="adam", nesterov=False, schedule="constant"),
    rows=rows,
    quick=PETS_QUICK_CONSTANT,
    smoke=PETS_SMOKE_CONSTANT,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
