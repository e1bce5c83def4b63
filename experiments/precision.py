"""Ours: does the precision that a device is fast at cost accuracy?

Question: ResNet18 from scratch on CIFAR-10 at 32 px, in float32 and in mixed bfloat16: is the difference more than that of seeds?

Command: `make exp-precision ARGS=--seeds=0,1,2`, or `python -m experiments.precision --seeds=0,1,2`

What differs: no report asked it; the settings are report C's, at the images' own 32 px. Weights are float32 in both rows, and so are
logits, loss and metrics; layers compute in what the row says. `--precision=auto` chooses bfloat16 where the device has units for it; a
device that has none computes it slowly, not otherwise.
"""

import sys
from types import MappingProxyType

from experiments._settings import CIFAR_TABLE
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, Row

PRECISIONS = ("float32", "mixed_bfloat16")


def rows(base: RunConfig) -> list[Row]:
    """One row for each precision."""
    return [Row(label=name, group=name, config=base.replace(precision=name)) for name in PRECISIONS]


EXPERIMENT = Experiment(
    name="precision",
    title="ResNet18 from scratch in float32 and in mixed bfloat16",
    question="Does the faster precision cost accuracy?",
    settings=MappingProxyType({**CIFAR_TABLE, "weights": "none", "strategy": "full", "image_size": 32}),
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.2, "epochs": 5})),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
