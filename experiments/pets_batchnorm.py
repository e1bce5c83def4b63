"""Report D, "Transfer Learning Via Default Project 1": is it worth training the batch-norm layers beside the last layer?

Question: ResNet18 on 37 breeds, the final layer alone against the final layer and all batch-norm layers.

Command: `make exp-pets-batchnorm`, or `python -m experiments.pets_batchnorm`

The report: final layer only 88.31 %, final layer and all batch-norm layers 88.72 %; SGD at 0.001 with Nesterov momentum 0.9.

What differs: the batch size is not given, 32 is taken. In the first row too, BatchNorm normalises with the batch and updates its
running statistics, as PyTorch leaves it; the third row is ours: it runs on the running statistics of ImageNet, as in evaluation.
"""

import sys
from types import MappingProxyType

from experiments._settings import PETS, PETS_QUICK
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Row

# Label -> what is trained, and the reported test accuracy in per cent; None where the row is ours.
TABLE = MappingProxyType(
    {
        "final layer": ({"strategy": "head"}, 88.31),
        "final layer and batch norm": ({"strategy": "batchnorm"}, 88.72),
        "final layer on fixed statistics": ({"strategy": "head", "frozen_mode": "inference"}, None),
    }
)


def rows(base: RunConfig) -> list[Row]:
    """The report's two rows, and ours."""
    return [
        Row(label=label, group=label, config=base.replace(**settings), reported={} if figure is None else {"test accuracy": figure})
        for label, (settings, figure) in TABLE.items()
    ]


EXPERIMENT = Experiment(
    name="pets_batchnorm",
    title="The final layer of ResNet18 with and without its batch-norm layers",
    question="Is it worth training the batch-norm layers beside the head?",
    settings=PETS,
    rows=rows,
    quick=PETS_QUICK,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
