"""Representation learning against full fine-tuning of AlexNet (source report B, "CS 782 Advanced ML, Homework 4").

Question: On CIFAR-10, is it better to train a new last layer on ImageNet features, or to fine-tune every layer?

Command: `make exp-adaptation`, or `python -m experiments.adaptation`

Said by the source report: 224 px, batches of 128, 10 epochs of Adam at 0.001, a fifth of the training images for validation.
Representation learning trains the last layer and normalizes with ImageNet's statistics: 79.69 % in epoch 7. Full fine-tuning
normalizes with mean = std = 0.5: 80.59 %. So the two approaches differ in their normalization too.

Shown by its code: both validation sets are the test set, so the published validation losses, 0.6005 and 0.5826, are test losses.
Full fine-tuning trains on all 50,000 images, and with dropout in epoch 1 alone.

What differs: the epoch is selected on validation images that both approaches hold out, and the test set is scored once.
"""

import sys
from types import MappingProxyType

from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec

HEAD, FULL = "representation learning", "full fine-tuning"
SETTINGS = MappingProxyType({HEAD: {"strategy": "head"}, FULL: {"strategy": "full", "normalization": "half"}})
PUBLISHED = MappingProxyType(
    {
        HEAD: {"test accuracy": 79.69, "validation loss": 0.6005, "seconds": 1423.19},
        FULL: {"test accuracy": 80.59, "validation loss": 0.5826, "seconds": 1427.72},
    }
)


def rows(base: RunConfig) -> list[RunSpec]:
    """Return the two approaches."""
    return [
        RunSpec(label=label, line=label, config=base.replace(**settings), published=PUBLISHED[label])
        for label, settings in SETTINGS.items()
    ]


EXPERIMENT = Experiment(
    name="adaptation",
    title="Representation learning against full fine-tuning of AlexNet",
    question="Is it better to train a new last layer on fixed features, or to fine-tune every layer?",
    settings=MappingProxyType(
        {
            "dataset": "cifar10",
            "backbone": "alexnet",
            "weights": "imagenet",
            "validation_fraction": 0.2,
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "epochs": 10,
            "batch_size": 128,
            "selection": "best",
            "frozen_mode": "training",
        }
    ),
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.1, "epochs": 5}), max_image_size=128),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
