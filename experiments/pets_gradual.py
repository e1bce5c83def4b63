"""Gradual unfreezing of ResNet18 on pets (source report D, "Transfer Learning Via Default Project 1", strategy 2).

Question: On 37 breeds, does unfreezing one stage after the other help, from the last one down, and with which settings?

Command: `make exp-pets-gradual`, or `python -m experiments.pets_gradual`

Said by the source report: baseline 88.77 % in 208 s (GTX 1080), learning rate 0.01 88.85 %, L2 0.01 88.49 %, augmentation 85.34 %,
different learning rates (0.01 divided by ten for each layer) 88.69 %.

Shown by its code: the head and layer4 train from epoch 1, layer3 from 3, layer2 from 5, layer1 from 7, the stem never. A new optimizer is
created in each epoch, so momentum starts at zero and the schedule has no effect. The higher and the different learning rates are computed
and never used. A file of results has 87.49 % for L2.

So `baseline`, `higher rate` and `different rates` are one run with three outcomes, 88.77, 88.85 and 88.69 %: a measure of the noise. Ours
have equal settings too, and seeds that differ by 1000.

Chosen: the optimizer kept over all epochs, in one of the rows `meant: ...`. The others apply the learning rates: 0.01 for all weights, as
the text says; 0.01 for the stages and 0.001 for the head, as the code computes them; and 0.01 for layer4, a tenth of that for each earlier
stage and 0.001 for the head.

What differs: see source report D in `experiments/_settings.py`. With another number of epochs, a stage is unfrozen every fifth of them.
"""

import sys

from experiments._settings import (
    GRADUAL_SMOKE,
    MEANT_AUGMENTATION,
    PETS,
    PETS_AUGMENTATION,
    PETS_QUICK_CONSTANT,
    REPEAT,
    row,
    stage_learning_rates,
    stages,
)
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, RunSpec
from tl_keras.runs.origins import Settings, chosen, said, shown


def gradual(base: RunConfig, reset: str) -> str:
    """Return the strategy that unfreezes layer4 to layer1, one stage every fifth of the epochs. `reset` is that of the optimizer."""
    start, end = stages(base, "layer4", "layer1")
    return f"gradual:start={start},end={end},every={max(1, base.train.epochs // 5)},reset={reset}"


def rows(base: RunConfig) -> list[RunSpec]:
    """Return the baseline and one row per factor, as they were run, then the factors as they were meant."""
    strategy = shown(strategy=gradual(base, reset="epoch"))
    as_run: tuple[tuple[str, Settings, float, float], ...] = (
        ("baseline", said(), 88.77, 208),
        ("higher rate", chosen(seed=REPEAT), 88.85, 207),
        ("L2 0.01", said(l2=0.01), 88.49, 208),
        ("augmentation", shown(augmentation=PETS_AUGMENTATION), 85.34, 232),
        ("different rates", chosen(seed=2 * REPEAT), 88.69, 208),
    )
    by_layer = stage_learning_rates(base, head=1e-3, layer4=1e-2, layer3=1e-3, layer2=1e-4, layer1=1e-5)
    meant = {
        "meant: rate 0.01": said(learning_rate=0.01),
        "meant: rate 0.01 but head 0.001": shown(stage_learning_rates="head=0.001,*=0.01"),
        "meant: rates by layer": said(stage_learning_rates=by_layer),
        "meant: augmentation": said(augmentation=MEANT_AUGMENTATION),
        "meant: optimizer kept": chosen(strategy=gradual(base, reset="never")),
    }
    return [
        row(base, label, "gradual", strategy | changes, {"test accuracy": accuracy, "seconds": seconds})
        for label, changes, accuracy, seconds in as_run
    ] + [row(base, label, "meant", strategy | changes) for label, changes in meant.items()]


EXPERIMENT = Experiment(
    name="pets_gradual",
    title="Gradual unfreezing of ResNet18 on 37 breeds",
    question="Does unfreezing one stage after the other help, and with which settings?",
    settings=PETS | shown(schedule="constant"),
    rows=rows,
    quick=PETS_QUICK_CONSTANT,
    smoke=GRADUAL_SMOKE,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
