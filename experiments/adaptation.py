"""Representation learning against full fine-tuning of AlexNet (source report B, "CS 782 Advanced ML, Homework 4").

Question: On CIFAR-10, is it better to train a new last layer on ImageNet features, or to fine-tune every layer?

Command: `make exp-adaptation`, or `python -m experiments.adaptation`

Said by the source report: 224 px, batches of 128, 10 epochs of Adam at 0.001, a fifth of the training images for validation.
Representation learning trains the last layer and normalizes with ImageNet's statistics: 79.69 % in epoch 7. Full fine-tuning
normalizes with mean = std = 0.5: 80.59 %. So the two approaches differ in their normalization too.

Shown by its code: the "validation" of both approaches is the test set. So both accuracies are those of the best of ten epochs on test,
and the losses, 0.6005 and 0.5826, are test losses of the last epoch. Full fine-tuning trains on all 50,000 images. It sets evaluation
mode after epoch 1 and never training mode again, so dropout is on in epoch 1 alone. Representation learning has dropout in every epoch.

Chosen here: a fifth of the training images is stratified, and the epoch is selected on it. `experiments/_settings.py` lists the other
settings.

What differs: the test set is scored once. Full fine-tuning as it was run leaves no image for validation, so its last epoch is tested.
The published accuracy of the best epoch on test is higher than that of the last one, by an unknown amount. The row "meant: full
fine-tuning" has the images of the text and dropout in every epoch.
"""

import sys
from types import MappingProxyType

from experiments._settings import OPEN, row
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import SMOKE_SETTINGS, Experiment, Profile, RunSpec
from tl_keras.runs.origins import chosen, said, shown

HEAD, FULL = "representation learning", "full fine-tuning"
FINE_TUNING = said(strategy="full", normalization="half")
ROWS = MappingProxyType(
    {
        HEAD: said(strategy="head", normalization="imagenet") | shown(eval_mode_after=-1),
        FULL: FINE_TUNING | shown(validation_fraction=0.0, eval_mode_after=1) | chosen(selection="last"),
        f"meant: {FULL}": FINE_TUNING,
    }
)
PUBLISHED = MappingProxyType(
    {
        HEAD: {"test accuracy": 79.69, "test loss": 0.6005, "seconds": 1423.19},
        FULL: {"test accuracy": 80.59, "test loss": 0.5826, "seconds": 1427.72},
    }
)


def rows(base: RunConfig) -> list[RunSpec]:
    """Return the two approaches as they were run, and the second one as the text describes it."""
    return [row(base, label, label, changes, PUBLISHED.get(label, {})) for label, changes in ROWS.items()]


EXPERIMENT = Experiment(
    name="adaptation",
    title="Representation learning against full fine-tuning of AlexNet",
    question="Is it better to train a new last layer on fixed features, or to fine-tune every layer?",
    settings=OPEN
    | said(dataset="cifar10", backbone="alexnet", weights="imagenet", image_size=224, crop_fraction=1.0)
    | said(optimizer="adam", learning_rate=1e-3, epochs=10, batch_size=128, validation_fraction=0.2)
    | shown(frozen_mode="training")
    | chosen(selection="best"),
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.1, "epochs": 5}), max_image_size=128),
    smoke=Profile(MappingProxyType({**SMOKE_SETTINGS, "epochs": 2}), max_image_size=64),  # one before the switch, one after it
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
