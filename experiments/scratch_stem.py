"""The stem of ResNet18 for images of 32 px (source report C, "Pre-trained Models on ImageNet").

Question: Trained from scratch on CIFAR-10 at 32 px, how much does a CIFAR stem (conv1 3x3 at stride 1, no max-pool) improve ResNet18?

Command: `make exp-scratch-stem`, or `python -m experiments.scratch_stem`

Said by the source report: original stem 30 %, CIFAR stem 91.5 %.

Shown by its code: the row of 30 % has the original head of 1,000 classes, of which ten have images. The change of the stem comes with
a head of ten classes.

Chosen here: all settings of the optimizer and of augmentation; see `experiments/_settings.py`. A row of ours has the original stem and
ten classes, so that the rows beside it differ from it in one thing each.

What differs: with these settings, the original stem gets far beyond 30 % in two epochs. 10 % of the train split is held out for the
curves, and nothing is selected on it.
"""

import sys
from collections.abc import Mapping
from types import MappingProxyType

from experiments._settings import CIFAR_TABLE, row
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec
from tl_keras.runs.origins import Settings, chosen, said, shown

# Label -> (changed settings, published values).
TABLE: Mapping[str, tuple[Settings, Mapping[str, float]]] = MappingProxyType(
    {
        "original stem": (said(stem="imagenet") | shown(extra_classes=990), {"test accuracy": 30.0}),
        "original stem with 10 classes": (said(stem="imagenet") | chosen(extra_classes=0), {}),
        "CIFAR stem": (said(stem="cifar", extra_classes=0), {"test accuracy": 91.5}),
    }
)


def rows(base: RunConfig) -> list[RunSpec]:
    """Return one row per entry of TABLE."""
    return [row(base, label, label, changes, published) for label, (changes, published) in TABLE.items()]


EXPERIMENT = Experiment(
    name="scratch_stem",
    title="ResNet18 from scratch at 32 px: original against CIFAR stem",
    question="How much does a stem for small images improve the accuracy?",
    settings=CIFAR_TABLE | said(weights="none", strategy="full", image_size=32),
    rows=rows,
    quick=Profile(MappingProxyType({"epochs": 2})),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
