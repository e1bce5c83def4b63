"""Part A of "COMP5541 Assignment 1, Question 3": does pre-training help, and how much with little data?

Question: AlexNet on CIFAR-10 with 10, 20 and 50 % of the training images: fine-tuned in full from ImageNet weights, against
trained from scratch.

Command: `make exp-part-a`, or `python -m experiments.part_a --fractions=0.1,0.2,0.5 --seeds=0`

The report: images resized to 224, 10 epochs, batch size 64, 5,000 / 10,000 / 25,000 training images. It does not name the
optimizer: SGD with rate 0.001 and momentum 0.9 is chosen, for which AlexNet from scratch barely leaves a loss of ln 10 in the
780 steps of the 10 % run, as reported. It does not name a normalisation: that of the weights is used.

What differs: 10 % of the train split, outside every fraction, is held out for the validation curves; nothing is selected on it
(the last epoch is tested, once), so the training images are as many as the report's.

The embedded version asks the same of 1,797 handwritten digits with a narrow AlexNet pre-trained on rendered glyphs. Its
training set is forty times smaller, so it takes batches of 16 and 20 epochs; of the rates 0.001, 0.002 and 0.004 the one with
the best validation accuracy at 10 %, pre-trained, was chosen. From scratch hardly learns in so few steps of SGD, as in the
report; with Adam it does (0.85 against 0.92 on validation), so that gap is one of optimization more than of data.
"""

import sys
from collections.abc import Sequence
from types import MappingProxyType

from experiments._settings import COMP5541
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, Row

PRE_TRAINED, FROM_SCRATCH = "pre-trained", "from scratch"

# Test accuracy in per cent by fraction of the training data.
REPORTED = MappingProxyType(
    {
        PRE_TRAINED: {0.1: 82.99, 0.2: 87.18, 0.5: 89.68},
        FROM_SCRATCH: {0.1: 12.89, 0.2: 37.41, 0.5: 51.06},
    }
)
# epoch -> (training loss, training accuracy in per cent), at 10 % of the data.
REPORTED_CURVES = MappingProxyType(
    {
        PRE_TRAINED: {1: (1.1414, 59.68), 5: (0.3922, 86.78), 10: (0.2157, 92.82)},
        FROM_SCRATCH: {1: (2.3024, 10.44), 5: (2.2999, 12.66), 10: (2.2823, 11.82)},
    }
)


def rows(base: RunConfig, fractions: Sequence[float]) -> list[Row]:
    """Each fraction, pre-trained (from the weights of `base`) and from scratch."""
    return [
        Row(
            label=f"{group} {100 * fraction:g} %",
            group=group,
            x=fraction,
            config=base.replace(fraction=fraction, weights=base.model.weights if group == PRE_TRAINED else "none"),
            reported={"test accuracy": REPORTED[group][fraction]} if fraction in REPORTED[group] else {},
            reported_curve=REPORTED_CURVES[group] if fraction == 0.1 else {},
        )
        for fraction in fractions
        for group in (PRE_TRAINED, FROM_SCRATCH)
    ]


EXPERIMENT = Experiment(
    name="part_a",
    title="Part A: pre-trained against from-scratch training, by share of the training data",
    question="How much does pre-training help, and how does that depend on the amount of data?",
    settings=MappingProxyType({**COMP5541, "backbone": "alexnet", "strategy": "full"}),
    rows=rows,
    quick=Profile(MappingProxyType({"epochs": 4}), max_image_size=64),
    embedded=MappingProxyType({"learning_rate": 2e-3, "epochs": 20, "batch_size": 16, "precision": "float32"}),
    fractions=(0.1, 0.2, 0.5),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
