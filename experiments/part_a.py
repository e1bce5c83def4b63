"""Pre-training of AlexNet, by the fraction of the data (source report A, "COMP5541 Assignment 1, Question 3", part A).

Question: On CIFAR-10 with 10, 20 and 50 % of the training images, how much better is full fine-tuning from ImageNet weights than
training from scratch?

Command: `make exp-part-a`, or `python -m experiments.part_a --fractions=0.1,0.2,0.5 --seeds=0`

Said by the source report: 5,000, 10,000 and 25,000 training images, batches of 64. Its curves end at epoch 10.

Chosen here: SGD at learning rate 0.001 with momentum 0.9. With it, AlexNet from scratch barely leaves a loss of ln 10 in the
780 steps of the 10 % run, as published. `experiments/_settings.py` lists the other settings.

What differs: 10 % of the train split, outside every fraction, is held out for the validation curves. Nothing is selected on it (the
last epoch is tested, once), so the numbers of training images are those of the source report.

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

PRE_TRAINED, FROM_SCRATCH = "pre-trained", "from scratch"

# Fraction of the training data -> test accuracy in per cent.
PUBLISHED = MappingProxyType(
    {
        PRE_TRAINED: {0.1: 82.99, 0.2: 87.18, 0.5: 89.68},
        FROM_SCRATCH: {0.1: 12.89, 0.2: 37.41, 0.5: 51.06},
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
    return [
        RunSpec(
            label=f"{line} {100 * fraction:g} %",
            line=line,
            train_fraction=fraction,
            config=base.replace(fraction=fraction, weights=base.model.weights if line == PRE_TRAINED else "none"),
            published={"test accuracy": PUBLISHED[line][fraction]} if fraction in PUBLISHED[line] else {},
            published_curve=PUBLISHED_CURVES[line] if fraction == 0.1 else {},
        )
        for fraction in fractions
        for line in (PRE_TRAINED, FROM_SCRATCH)
    ]


EXPERIMENT = Experiment(
    name="part_a",
    title="Part A: pre-trained against from-scratch training, by fraction of the training data",
    question="How much does pre-training help, and how does that depend on the amount of data?",
    settings=MappingProxyType({**COMP5541, "backbone": "alexnet", "strategy": "full"}),
    rows=rows,
    quick=Profile(MappingProxyType({"epochs": 4}), max_image_size=64),
    embedded=MappingProxyType({"learning_rate": 2e-3, "epochs": 20, "batch_size": 16, "precision": "float32"}),
    fractions=(0.1, 0.2, 0.5),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
