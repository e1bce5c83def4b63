"""Batch normalization of ResNet18 on pets (source report D, "Transfer Learning Via Default Project 1").

Question: On 37 breeds, is it worth training the BatchNorm layers besides the last layer?

Command: `make exp-pets-batchnorm`, or `python -m experiments.pets_batchnorm`

Said by the source report: the last layer alone reaches 88.31 %, the last layer and all BatchNorm layers 88.72 %, with the optimizer of
strategy 1.

Shown by its code: Adam at 0.001. Everything but the last layer is frozen before, so BatchNorm gets no gradient.

So both published values belong to one run, and their difference is noise. Ours have equal settings too, and seeds that differ by 1000.

Chosen: Adam for two of the rows `meant: ...`. They train the scale and shift of every BatchNorm, with SGD as in strategy 1 and with Adam.

What differs: see source report D in `experiments/_settings.py`.
"""

import sys
from types import MappingProxyType

from experiments._settings import PETS, PETS_QUICK, PETS_SMOKE, REPEAT, row
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, RunSpec
from tl_keras.runs.origins import chosen, said, shown

# Label -> (changed settings, published test accuracy in per cent).
AS_RUN = MappingProxyType(
    {
        "final layer": (said(strategy="head"), 88.31),
        "final layer and batch norm": (shown(strategy="head") | chosen(seed=REPEAT), 88.72),
    }
)
SGD = said(optimizer="sgd", nesterov=True)
MEANT = MappingProxyType(
    {
        "meant: final layer with SGD": said(strategy="head") | SGD,
        "meant: batch norm with SGD": said(strategy="batchnorm") | SGD,
        "meant: batch norm with Adam": said(strategy="batchnorm"),
    }
)


def rows(base: RunConfig) -> list[RunSpec]:
    """Return the two rows as they were run, then those that train BatchNorm, with the last layer alone for comparison."""
    as_run = [row(base, label, "final layer", changes, {"test accuracy": accuracy}) for label, (changes, accuracy) in AS_RUN.items()]
    return as_run + [row(base, label, "meant", changes) for label, changes in MEANT.items()]


EXPERIMENT = Experiment(
    name="pets_batchnorm",
    title="The last layer of ResNet18 with and without its BatchNorm layers",
    question="Is it worth training the BatchNorm layers besides the head?",
    settings=PETS | shown(optimizer="adam", nesterov=False),
    rows=rows,
    quick=PETS_QUICK,
    smoke=PETS_SMOKE,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
