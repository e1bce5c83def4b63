"""Report E, "Why aren't ResNet50 transfer learning accuracy and losses improving on CIFAR-10?": its advice as an experiment.

Question: ResNet50 on CIFAR-10: what do learning-rate schedules, augmentation, and freezing all but the last stage change?

Command: `make exp-resnet50`, or `python -m experiments.resnet50`

The report is a question and an answer, without figures: a head of 2048 -> 10, SGD at 0.01 with momentum 0.9; schedules (none,
reduce on plateau with patience 5 and factor 0.1, step, cosine), augmentation (none, crop with padding 4 and flip, MixUp, CutOut,
RandAugment), and freezing all but layer4 and the head against full fine-tuning and unfreezing step by step.

What differs: size, epochs and batch size are not given: 32 px (its crop), 20 epochs and 128 are taken. The baseline, fine-tuned
in full without schedule or augmentation, is the first row of all three comparisons and run once.
"""

import sys
from types import MappingProxyType

from experiments._settings import CIFAR_TABLE
from tl_keras.backbones import get_backbone
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, Row, like_resnet

SCHEDULES = ("plateau", "step", "cosine")
AUGMENTATIONS = ("crop_flip", "mixup", "cutout", "randaugment")


def rows(base: RunConfig) -> list[Row]:
    """The baseline, then one change at a time."""
    num_phases = 1 + len(get_backbone(base.model.backbone).stages)
    freezing = {
        "layer4 and head": {"strategy": f"train:{'+'.join(like_resnet(base, 'layer4'))}"},
        "step by step": {"strategy": "gradual", "epochs": max(base.train.epochs, num_phases)},  # an epoch for each phase at least
    }
    return [
        Row(label="baseline", group="baseline", config=base),
        *(Row(label=f"schedule {name}", group="schedule", config=base.replace(schedule=name)) for name in SCHEDULES),
        *(Row(label=f"augmentation {name}", group="augmentation", config=base.replace(augmentation=name)) for name in AUGMENTATIONS),
        *(Row(label=label, group="freezing", config=base.replace(**settings)) for label, settings in freezing.items()),
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
