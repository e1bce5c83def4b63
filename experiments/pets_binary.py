"""Cat or dog, with the last layer of ResNet18 alone (source report D, "Transfer Learning Via Default Project 1").

Question: How well does a linear classifier on ImageNet features tell the cats of Oxford-IIIT Pet from its dogs?

Command: `make exp-pets-binary`, or `python -m experiments.pets_binary`

Said by the source report: 98.39 % (99 % was the aim), two class scores, binary cross-entropy.

Shown by its code: one logit with a sigmoid, Adam at 0.001 without a schedule, 10 epochs.

What differs: two logits with a softmax. Their difference is the one logit of binary cross-entropy, so the model is the same and its
head has one redundant row of weights. `experiments/_settings.py` describes how BatchNorm differs.
"""

import sys
from types import MappingProxyType

from experiments._settings import PETS, PETS_QUICK
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, RunSpec


def rows(base: RunConfig) -> list[RunSpec]:
    """Return the one row."""
    return [RunSpec(label="cat or dog", line="last layer", config=base, published={"test accuracy": 98.39})]


EXPERIMENT = Experiment(
    name="pets_binary",
    title="Cat or dog: the last layer of ResNet18",
    question="Are ImageNet features enough to tell cats from dogs?",
    settings=MappingProxyType({**PETS, "label": "species", "strategy": "head", "optimizer": "adam", "nesterov": False}),
    rows=rows,
    quick=PETS_QUICK,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
