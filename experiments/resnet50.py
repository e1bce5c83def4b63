"""Schedules, augmentation and freezing of ResNet50 on CIFAR-10 (source report E).

Question: For ResNet50 on CIFAR-10, what do learning-rate schedules, augmentation, and freezing all but the last stage change?

Command: `make exp-resnet50`, or `python -m experiments.resnet50`

Said by the source report, "Why aren't ResNet50 transfer learning accuracy and losses improving on CIFAR-10?", which has no results:
a head of 2048 -> 10, SGD at 0.01 with momentum 0.9. Schedules: none, reduce on plateau with patience 5 and factor 0.1, step, cosine.
Augmentation: none, crop with padding 4 and flip, MixUp, CutOut, RandAugment. Freezing: all but layer4 and the head, full fine-tuning,
unfreezing step by step.

Chosen here: 32 px (the size of its crop), 20 epochs and batches of 128. The baseline is full fine-tuning without schedule or
augmentation; it is the first row of all three comparisons and runs once.

What differs: the weights are torchvision's second version, where the source report's `pretrained=True` loads the first. No value is
published, so the rows are compared with each other alone.
"""

import sys
from types import MappingProxyType

from experiments._settings import CIFAR_TABLE
from tl_keras.backbones import get_backbone, resnet_equivalent_stages
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec

SCHEDULES = ("plateau", "step", "cosine")
AUGMENTATIONS = ("crop_flip", "mixup", "cutout", "randaugment")


def rows(base: RunConfig) -> list[RunSpec]:
    """Return the baseline, then one row per change."""
    backbone = get_backbone(base.model.backbone)
    num_phases = 1 + len(backbone.stages)
    freezing = {
        "layer4 and head": {"strategy": f"train:{'+'.join(resnet_equivalent_stages(backbone, 'layer4'))}"},
        "step by step": {"strategy": "gradual", "epochs": max(base.train.epochs, num_phases)},  # at least one epoch per phase
    }
    return [
        RunSpec(label="baseline", line="baseline", config=base),
        *(RunSpec(label=f"schedule {name}", line="schedule", config=base.replace(schedule=name)) for name in SCHEDULES),
        *(RunSpec(label=f"augmentation {name}", line="augmentation", config=base.replace(augmentation=name)) for name in AUGMENTATIONS),
        *(RunSpec(label=label, line="freezing", config=base.replace(**settings)) for label, settings in freezing.items()),
    ]


EXPERIMENT = Experiment(
    name="resnet50",
    title="ResNet50 on CIFAR-10: schedules, augmentation and freezing",
    question="Why does accuracy not improve, and which advice helps?",
    settings=MappingProxyType(
        {
            **CIFAR_TABLE,
            "backbone": "resnet50_torch",
            "augmentation": "none",
            "schedule": "constant",
            "strategy": "full",
            "image_size": 32,
        }
    ),
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.05, "validation_fraction": 0.02, "epochs": 7})),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
