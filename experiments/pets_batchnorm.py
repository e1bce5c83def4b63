"""Batch normalization of ResNet18 on pets (source report D, "Transfer Learning Via Default Project 1").

Question: On 37 breeds, is it worth training the BatchNorm layers besides the last layer?

Command: `make exp-pets-batchnorm`, or `python -m experiments.pets_batchnorm`

Said by the source report: the last layer alone reaches 88.31 %, the last layer and all BatchNorm layers 88.72 %, with the optimizer of
strategy 1.

Shown by its code: Adam at 0.001. BatchNorm got no gradient, so the two published values are the same run twice.

What differs: these rows use SGD with Nesterov momentum 0.9 and do train BatchNorm. The third row has no published value; its
BatchNorm runs on the running statistics of ImageNet, as in evaluation. `experiments/_settings.py` lists further differences.
"""

import sys
from types import MappingProxyType

from experiments._settings import PETS, PETS_QUICK
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, RunSpec

# Label -> (changed settings, published values).
TABLE = MappingProxyType(
    {
        "final layer": ({"strategy": "head"}, {"test accuracy": 88.31}),
        "final layer and batch norm": ({"strategy": "batchnorm"}, {"test accuracy": 88.72}),
        "final layer on fixed statistics": ({"strategy": "head", "frozen_mode": "inference"}, {}),
    }
)


def rows(base: RunConfig) -> list[RunSpec]:
    """Return one row per entry of TABLE."""
    return [
        RunSpec(label=label, line=label, config=base.replace(**settings), published=published)
        for label, (settings, published) in TABLE.items()
    ]


EXPERIMENT = Experiment(
    name="pets_batchnorm",
    title="The last layer of ResNet18 with and without its BatchNorm layers",
    question="Is it worth training the BatchNorm layers besides the head?",
    settings=PETS,
    rows=rows,
    quick=PETS_QUICK,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
