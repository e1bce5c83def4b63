"""Report C, "Pre-trained Models on ImageNet", Table 1: what of a pre-trained network should be trained, and at which size?

Question: ResNet18 with ImageNet weights and a new stem for 32 px: which stages must be trained beside the new stem and head?
And how do full fine-tuning at 32 and at 224 px, of ResNet18, VGG16 and ViT-B/16, compare?

Command: `make exp-table1`, or `python -m experiments.table1`; `--rows="fc+conv1+layer1"` runs one row

The report: 16 rows from 68.2 % (new stem and head alone) to 98.4 % (ViT-B/16); SGD with momentum 0.9 and a cosine over 20
epochs. Rate, batch size and the augmentation of the runs at 32 px are not given; see `experiments/_settings.py`.

What differs: `conv1` is the stage `stem` here, which has its batch norm too. Rotation and flip happen at the source resolution,
before the resize to 224. Frozen stages run in training mode, as PyTorch leaves them. The rows from scratch are in scratch_stem.
"""

import sys
from types import MappingProxyType

from experiments._settings import CIFAR_TABLE
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, Row

RATES = "rates:stem=7e-3,head=1e-2,*=5e-3"
SMALL, STEM = {"image_size": 32}, {"image_size": 32, "stem": "cifar"}
LARGE = {"image_size": 224}


def _stages(*stages: str) -> dict[str, object]:
    return {**STEM, "strategy": f"train:{'+'.join(('stem', *stages))}"}


# Label -> settings and the reported test accuracy in per cent.
TABLE = MappingProxyType(
    {
        "fc (original stem)": ({**SMALL, "strategy": "head"}, 80.9),
        "fc+conv1": (_stages(), 68.2),
        "fc+conv1+layer1": (_stages("layer1"), 88.4),
        "fc+conv1+layer2": (_stages("layer2"), 89.3),
        "fc+conv1+layer3": (_stages("layer3"), 89.8),
        "fc+conv1+layer4": (_stages("layer4"), 89.0),
        "fc+conv1+layer1+layer4": (_stages("layer1", "layer4"), 92.7),
        "fc+conv1+layer2+layer3": (_stages("layer2", "layer3"), 92.5),
        "fc+conv1+layer1+layer2": (_stages("layer1", "layer2"), 89.3),
        "fc+conv1+layer3+layer4": (_stages("layer3", "layer4"), 90.9),
        "full": ({**STEM, "strategy": "full"}, 93.7),
        "full with rates by layer": ({**STEM, "strategy": RATES}, 94.1),
        "full at 224 px": ({**LARGE, "strategy": "full"}, 96.3),
        "VGG16 full at 32 px": ({**SMALL, "backbone": "vgg16", "weights": "torchvision", "strategy": "full"}, 90.5),
        "VGG16 full at 224 px": ({**LARGE, "backbone": "vgg16", "weights": "torchvision", "strategy": "full"}, 95.1),
        "ViT-B/16 full at 224 px": ({**LARGE, "backbone": "vit_b16", "strategy": "full"}, 98.4),
    }
)
NETWORKS = MappingProxyType({"resnet18": "ResNet18", "vgg16": "VGG16", "vit_b16": "ViT-B/16"})


def rows(base: RunConfig) -> list[Row]:
    """The rows of the report's table that start from ImageNet weights."""
    return [
        Row(label=label, group=NETWORKS[str(settings.get("backbone", "resnet18"))], config=base.replace(**settings), reported=reported)
        for label, settings, reported in ((label, settings, {"test accuracy": figure}) for label, (settings, figure) in TABLE.items())
    ]


EXPERIMENT = Experiment(
    name="table1",
    title="Table 1: trained stages and input sizes of pre-trained networks",
    question="Which stages must be trained after a change of stem, and how much does a larger input give?",
    settings=CIFAR_TABLE,
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.04, "validation_fraction": 0.02, "limit_test": 2000, "epochs": 3}), max_image_size=64),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
