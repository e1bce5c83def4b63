"""Learning rate, L2 and augmentation of ResNet18 on pets (source report D, "Transfer Learning Via Default Project 1").

Question: On 37 breeds, with the head, layer4 and layer3 trained at once (l = 3), what does a change of one setting do?

Command: `make exp-pets-factors`, or `python -m experiments.pets_factors`

Said by the source report, for l = 3: baseline 88.91 %, learning rate 0.01 88.25 %, L2 0.01 88.58 %, augmentation (flip, rotation,
jitter) 89.72 %.

Shown by its code: the higher learning rate is 0.005. Augmentation begins with a random resized crop.

Chosen: two rows `meant: ...`, with the learning rate and with the augmentation that the text names.

What differs: the code augments the validation images too. See source report D in `experiments/_settings.py`.
"""

import sys
from types import MappingProxyType

from experiments._settings import MEANT_AUGMENTATION, PETS, PETS_AUGMENTATION, PETS_QUICK, PETS_SMOKE, last_children, row
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, RunSpec
from tl_keras.runs.origins import said, shown

# Label -> (changed settings, published test accuracy in per cent).
AS_RUN = MappingProxyType(
    {
        "baseline": (said(), 88.91),
        "higher rate": (shown(learning_rate=0.005), 88.25),
        "L2 0.01": (said(l2=0.01), 88.58),
        "augmentation": (shown(augmentation=PETS_AUGMENTATION), 89.72),
    }
)
MEANT = MappingProxyType({"meant: rate 0.01": said(learning_rate=0.01), "meant: augmentation": said(augmentation=MEANT_AUGMENTATION)})


def rows(base: RunConfig) -> list[RunSpec]:
    """Return the baseline and one row per factor, as they were run, then the factors as the text describes them."""
    strategy = shown(strategy=last_children(base, 3))
    as_run = [row(base, label, "l = 3", strategy | changes, {"test accuracy": accuracy}) for label, (changes, accuracy) in AS_RUN.items()]
    return as_run + [row(base, label, "meant", strategy | changes) for label, changes in MEANT.items()]


EXPERIMENT = Experiment(
    name="pets_factors",
    title="Learning rate, L2 and augmentation with the last two stages of ResNet18",
    question="Which change of one setting helps when two stages and the head are fine-tuned?",
    settings=PETS,
    rows=rows,
    quick=PETS_QUICK,
    smoke=PETS_SMOKE,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
