"""Report C, "Pre-trained Models on ImageNet": which stem does a ResNet18 need for images of 32 px?

Question: trained from scratch on CIFAR-10 at 32 px, how much does the stem change (conv1 3x3 at stride 1, no max-pool) give?

Command: `make exp-scratch-stem`, or `python -m experiments.scratch_stem`

The report: original stem 30 %, CIFAR stem 91.5 %; SGD with momentum 0.9 and a cosine over 20 epochs. Rate, batch size and
augmentation of these runs are not given; see `experiments/_settings.py` for what is taken.

What differs: 30 % is far below what the original stem reaches with these settings (58.8 % after the two epochs of the quick
profile, the CIFAR stem 62.3 %); the report does not say what else was wrong with that run. 10 % of the train split is held out
for the curves; nothing is selected on it.
"""

import sys
from types import MappingProxyType

from experiments._settings import CIFAR_TABLE
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, Row

REPORTED = MappingProxyType({"imagenet": 30.0, "cifar": 91.5})
LABELS = MappingProxyType({"imagenet": "original stem", "cifar": "CIFAR stem"})


def rows(base: RunConfig) -> list[Row]:
    """The two stems."""
    return [
        Row(label=LABELS[stem], group=LABELS[stem], config=base.replace(stem=stem), reported={"test accuracy": accuracy})
        for stem, accuracy in REPORTED.items()
    ]


EXPERIMENT = Experiment(
    name="scratch_stem",
    title="ResNet18 from scratch at 32 px: original against CIFAR stem",
    question="How much does a stem made for small images give?",
    settings=MappingProxyType({**CIFAR_TABLE, "weights": "none", "strategy": "full", "image_size": 32}),
    rows=rows,
    quick=Profile(MappingProxyType({"epochs": 2})),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
