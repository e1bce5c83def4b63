"""The stem of ResNet18 for images of 32 px (source report C, "Pre-trained Models on ImageNet").

Question: Trained from scratch on CIFAR-10 at 32 px, how much does a CIFAR stem (conv1 3x3 at stride 1, no max-pool) improve ResNet18?

Command: `make exp-scratch-stem`, or `python -m experiments.scratch_stem`

Said by the source report: original stem 30 %, CIFAR stem 91.5 %.

Shown by its code: the row of 30 % has the head of 1,000 classes.

Chosen here: all settings of the optimizer and of augmentation; see `experiments/_settings.py`.

What differs: both rows have a head of 10 classes. The original stem gets far beyond 30 % with these settings: 58.8 % after the two
epochs of the quick profile, where the CIFAR stem gets 62.3 %. 10 % of the train split is held out for the curves, and nothing is
selected on it.
"""

import sys
from types import MappingProxyType

from experiments._settings import CIFAR_TABLE
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec

# Stem -> test accuracy in per cent.
PUBLISHED = MappingProxyType({"imagenet": 30.0, "cifar": 91.5})
LABELS = MappingProxyType({"imagenet": "original stem", "cifar": "CIFAR stem"})


def rows(base: RunConfig) -> list[RunSpec]:
    """Return one row per stem."""
    return [
        RunSpec(label=LABELS[stem], line=LABELS[stem], config=base.replace(stem=stem), published={"test accuracy": accuracy})
        for stem, accuracy in PUBLISHED.items()
    ]


EXPERIMENT = Experiment(
    name="scratch_stem",
    title="ResNet18 from scratch at 32 px: original against CIFAR stem",
    question="How much does a stem for small images improve the accuracy?",
    settings=MappingProxyType({**CIFAR_TABLE, "weights": "none", "strategy": "full", "image_size": 32}),
    rows=rows,
    quick=Profile(MappingProxyType({"epochs": 2})),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
