"""Report D, "Transfer Learning Via Default Project 1", strategy 1: how many of the last stages should be fine-tuned?

Question: ResNet18 on the 37 breeds of Oxford-IIIT Pet, the head and the last l = 1 to 5 stages trained at once.

Command: `make exp-pets-last-l`, or `python -m experiments.pets_last_l`

The report: 86.56, 88.33, 88.91, 89.32 and 89.07 % for l = 1 to 5; SGD at 0.001 with Nesterov momentum 0.9.

What differs: the batch size is not given, 32 is taken. Frozen stages run in training mode, as PyTorch leaves them. With another
backbone, l counts the stages that lie where ResNet's last l do.
"""

import sys

from experiments._settings import PETS, PETS_QUICK, last
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Row

# l -> test accuracy in per cent.
REPORTED = {1: 86.56, 2: 88.33, 3: 88.91, 4: 89.32, 5: 89.07}


def rows(base: RunConfig) -> list[Row]:
    """One row for each l."""
    return [
        Row(label=f"l = {number}", group="last l", config=base.replace(strategy=last(base, number)), reported={"test accuracy": figure})
        for number, figure in REPORTED.items()
    ]


EXPERIMENT = Experiment(
    name="pets_last_l",
    title="The last l stages of ResNet18 fine-tuned on 37 breeds",
    question="How many of the last stages should be fine-tuned?",
    settings=PETS,
    rows=rows,
    quick=PETS_QUICK,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
