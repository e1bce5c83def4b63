"""The last l stages of ResNet18 on pets (source report D, "Transfer Learning Via Default Project 1", strategy 1).

Question: On 37 breeds of Oxford-IIIT Pet, how many of the last stages should be fine-tuned together with the head?

Command: `make exp-pets-last-l`, or `python -m experiments.pets_last_l`

Said by the source report: 86.56, 88.33, 88.91, 89.32 and 89.07 % for l = 1 to 5, in 185, 198, 208, 218 and 223 s. Its text suggests that
l counts stages, so that l = 1 trains layer4 and l = 5 the stem.

Shown by its code: l = 1 trains the head alone, l = 2 layer4 too, and so on to layer1 at l = 5; the stem is never trained. The learning
rate falls to a tenth after epoch 7. From epoch 2 on BatchNorm runs on its running statistics.

Chosen: a row `meant: l = 5` that trains the stem too. The text's l = 1 to 4 are the rows l = 2 to 5.

What differs: see source report D in `experiments/_settings.py`. Another backbone trains the stages that correspond to those of a ResNet.
"""

import sys
from types import MappingProxyType

from experiments._settings import PETS, PETS_QUICK, PETS_SMOKE, last, last_children, row
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, RunSpec
from tl_keras.runs.origins import said, shown

# l -> published test accuracy in per cent, and seconds.
PUBLISHED = MappingProxyType({1: (86.56, 185), 2: (88.33, 198), 3: (88.91, 208), 4: (89.32, 218), 5: (89.07, 223)})


def rows(base: RunConfig) -> list[RunSpec]:
    """Return one row per l as it was run, and the text's l = 5."""
    as_run = [
        row(
            base,
            f"l = {number}",
            "last l",
            shown(strategy=last_children(base, number)),
            {"test accuracy": accuracy, "seconds": seconds},
        )
        for number, (accuracy, seconds) in PUBLISHED.items()
    ]
    return [*as_run, row(base, "meant: l = 5", "meant", said(strategy=last(base, 5)))]


EXPERIMENT = Experiment(
    name="pets_last_l",
    title="The last l stages of ResNet18 fine-tuned on 37 breeds",
    question="How many of the last stages should be fine-tuned?",
    settings=PETS,
    rows=rows,
    quick=PETS_QUICK,
    smoke=PETS_SMOKE,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
