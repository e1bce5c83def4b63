"""Pre-training of AlexNet, by the fraction of the data (source report A, "COMP5541 Assignment 1, Question 3", part A).

Question: On CIFAR-10 with 10, 20 and 50 % of the training images, how much better is full fine-tuning from ImageNet weights than
training from scratch?

Command: `make exp-part-a`, or `python -m experiments.part_a --fractions=0.1,0.2,0.5 --seeds=0`

Said by the source report: 5,000, 10,000 and 25,000 training images, batches of 64. Its curves end at epoch 10.

Chosen here: images of 224 px, the normalization of the weights, and SGD at learning rate 0.001 with momentum 0.9. With it, AlexNet
from scratch barely leaves a loss of ln 10 in the 780 steps of the 10 % run, as published. `experiments/_settings.py` lists the other
settings.

What differs: 10 % of the train split, outside every fraction, is held out for the validation curves. Nothing is selected on it (the
last epoch is tested, once), so the numbers of training images are those of the source report. The source report scores the test set
in every epoch and prints the best.

The embedded version asks the same question of 1,797 handwritten digits, with a narrow AlexNet pre-trained on rendered glyphs. Its
training set is forty times smaller, so it uses batches of 16 and 20 epochs. The learning rate is the best of 0.001, 0.002 and 0.004
on validation, for pre-trained weights at 10 %. SGD from scratch learns almost nothing in so few steps, as in the source report. Adam
does learn (0.85 against 0.92 on validation), so this gap is due to optimization more than to data.
"""

import sys
from collections.abc import Sequence
from types import MappingProxyType

from experiments._settings import COMP5541
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec
from tl_keras.runs.origins import said

PRE_TRAINED, FROM_SCRATCH = "pre-trained", "from scratch"

# Fraction of the training data -> published values. Accuracy differences are in points, from the row from scratch.
PUBLISHED = MappingProxyType(
    {
        PRE_TRAINED: {
            0.1: {"test accuracy": 82.99, "accuracy difference": 70.10},
            0.2: {"test accuracy": 87.18, "accuracy difference": 49.77},
            0.5: {"test accuracy": 89.68, "accuracy difference": 38.62},
        },
        FROM_SCRATCH: {0.1: {"test accuracy": 12.89}, 0.2: {"test accuracy": 37.41}, 0.5: {"test accuracy": 51.06}},
    }
)
# Epoch -> (training loss, training accuracy in per cent), at 10 % of the data.
PUBLISHED_CURVES = MappingProxyType(
    {
        PRE_TRAINED: {1: (1.1414, 59.68), 5: (0.3922, 86.78), 10: (0.2157, 92.82)},
        FROM_SCRATCH: {1: (2.3024, 10.44), 5: (2.2999, 12.66), 10: (2.2823, 11.82)},
    }
)


def rows(base: RunConfig, fractions: Sequence[float]) -> list[RunSpec]:
    """Return two rows per fraction: pre-trained, with the weights of `base`, and from scratch."""
    return [_row(base, line, fraction) for fraction in fractions for line in (PRE_TRAINED, FROM_SCRATCH)]


def _row(base: RunConfig, line: str, fraction: float) -> RunSpec:
    changes = said(fraction=fraction, weights=base.model.weights if line == PRE_TRAINED else "none")
    return RunSpec(
        label=f"{line} {100 * fraction:g} %",
        line=line,
        train_fraction=fraction,
        config=base.replace(**changes),
        origins=changes.origins,
        published=PUBLISHED[line].get(fraction, {}),
        published_curve=PUBLISHED_CURVES[line] if fraction == 0.1 else {},
    )


EXPERIMENT = Experiment(
    name="part_a",
    title="Part A: pre-trained against from-scratch training, by fraction of the training data",
    question="How much does pre-training help, and how does that depend on the amount of data?",
    settings=COMP5541 | said(backbone="alexnet", strategy="full", batch_size=64),
    reference=FROM_SCRATCH,
    rows=rows,
    quick=Profile(MappingProxyType({"epochs": 4}), max_image_size=64),
    embedded=MappingProxyType({"learning_rate": 2e-3, "epochs": 20, "batch_size": 16, "precision": "float32"}),
    fractions=(0.1, 0.2, 0.5),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
