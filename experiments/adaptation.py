"""Report B, "CS 782 Advanced ML, Homework 4": representation learning or full fine-tuning of AlexNet?

Question: on CIFAR-10, is it better to train a new last layer on ImageNet features, or to fine-tune every layer?

Command: `make exp-adaptation`, or `python -m experiments.adaptation`

The report: 224 px, batches of 128, 10 epochs of Adam at 0.001, a fifth of the training images for validation. The last layer
alone, normalised by ImageNet's statistics: 79.69 % (best of the epochs, the 7th), validation loss 0.6005, 1423 s on a T4; all
layers, normalised by mean = std = 0.5: 80.59 %, 0.5826, 1428 s. So its two approaches differ in the normalisation too.

What differs: the report scores the test set at every epoch and prints the best; here the epoch is chosen on validation, and
the test set is scored once.
"""

import sys
from types import MappingProxyType

from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, Row

HEAD, FULL = "representation learning", "full fine-tuning"
SETTINGS = MappingProxyType({HEAD: {"strategy": "head"}, FULL: {"strategy": "full", "normalization": "half"}})
REPORTED = MappingProxyType(
    {
        HEAD: {"test accuracy": 79.69, "validation loss": 0.6005, "seconds": 1423.19},
        FULL: {"test accuracy": 80.59, "validation loss": 0.5826, "seconds": 1427.72},
    }
)


def rows(base: RunConfig) -> list[Row]:
    """The two approaches, tested in their best epoch on validation."""
    return [
        Row(label=label, group=label, config=base.replace(**settings), reported=REPORTED[label]) for label, settings in SETTINGS.items()
    ]


EXPERIMENT = Experiment(
    name="adaptation",
    title="Representation learning against full fine-tuning of AlexNet",
    question="Train a new last layer on fixed features, or fine-tune every layer?",
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
