"""Accuracy of ResNet18 in float32 and in mixed bfloat16. No source report asks this.

Question: ResNet18 is trained from scratch on CIFAR-10 at 32 px. Does mixed bfloat16 change the accuracy more than another seed does?

Command: `make exp-precision ARGS=--seeds=0,1,2`, or `python -m experiments.precision --seeds=0,1,2`

Chosen here: the settings of source report C at 32 px, see `experiments/_settings.py`. Weights, logits, loss and metrics are float32 in
both rows; layers compute in the precision of the row. `--precision=auto` selects bfloat16 on devices with units for it. Other devices
compute it slowly, with the same result.

What differs: no value is published, so the rows are compared with each other alone.
"""

import sys
from types import MappingProxyType

from experiments._settings import CIFAR_TABLE
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec
from tl_keras.runs.origins import CHOSEN, chosen

PRECISIONS = ("float32", "mixed_bfloat16")


def rows(base: RunConfig) -> list[RunSpec]:
    """Return one row per precision."""
    return [RunSpec(label=name, line=name, config=base.replace(precision=name), origins={"precision": CHOSEN}) for name in PRECISIONS]


EXPERIMENT = Experiment(
    name="precision",
    title="ResNet18 from scratch in float32 and in mixed bfloat16",
    question="Does the faster precision cost accuracy?",
    settings=chosen(**CIFAR_TABLE) | chosen(weights="none", strategy="full", image_size=32),
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.2, "epochs": 5})),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
