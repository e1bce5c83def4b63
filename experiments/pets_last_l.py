"""The last l stages of ResNet18 on pets (source report D, "Transfer Learning Via Default Project 1", strategy 1).

Question: On 37 breeds of Oxford-IIIT Pet, how many of the last stages should be fine-tuned together with the head?

Command: `make exp-pets-last-l`, or `python -m experiments.pets_last_l`

Said by the source report: 86.56, 88.33, 88.91, 89.32 and 89.07 % for l = 1 to 5.

Shown by its code: l = 1 trains the head alone, l = 2 layer4 too, l = 3 layer3, l = 4 layer2, l = 5 layer1; the stem is never trained.
SGD with Nesterov momentum 0.9.

What differs: l counts the trained stages, as the text suggests, so l = 1 trains layer4 and l = 5 the stem. Another backbone trains the
stages that correspond to the last l of a ResNet. `experiments/_settings.py` lists further differences.
"""

import sys

from experiments._settings import PETS, PETS_QUICK, last
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, RunSpec

# l -> test accuracy in per cent.
PUBLISHED = {1: 86.56, 2: 88.33, 3: 88.91, 4: 89.32, 5: 89.07}


def rows(base: RunConfig) -> list[RunSpec]:
    """Return one row per l."""
    return [
        RunSpec(
            label=f"l = {number}",
            line="last l",
            config=base.replace(strategy=last(base, number)),
            published={"test accuracy": accuracy},
        )
        for number, accuracy in PUBLISHED.items()
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
