"""The collapse of AdamW (source report D, "Transfer Learning Via Default Project 1"), and whether fixed BatchNorm statistics cause it.

Question: In source report D, AdamW at 0.001 trains the last stages of a ResNet50; its training loss jumps from 1.75 to 4.1 in epoch 2,
the first on running statistics of BatchNorm, and recovers. Do the fixed statistics cause the jump?

Command: `make exp-collapse`, or `python -m experiments.collapse`

Answer: yes, in the models that ran here. With `--profile=quick --seeds=0,1,2` (means; checks have seed 0), training loss, and validation
accuracy (%) after epochs 1, 2 and 4:

    row                            epoch 1  epoch 2: update 1  updates 6 to 10  epoch 2  epoch 4  accuracy
    AdamW batch statistics            1.19               0.54             0.59     0.53     0.22  71.7, 75.5, 75.3
    AdamW fixed from epoch 2          1.19               0.39             0.97     0.91     0.39  71.7, 68.5, 75.5
    AdamW fixed from the start        1.29               0.73             0.74     0.80     0.46  68.2, 72.2, 71.1
    AdamW 0.003 batch statistics      1.33               0.83             0.80     0.76     0.40  66.7, 72.1, 74.6
    AdamW 0.003 fixed from epoch 2    1.33               0.76             2.51     1.71     0.86  66.7, 52.2, 67.3
    SGD batch statistics              2.03               1.66             1.66     1.50     1.00  52.4, 61.1, 67.2
    SGD fixed from epoch 2            2.03               1.57             1.21     0.99     0.33  52.4, 67.9, 74.8
    SGD fixed from the start          1.11               0.55             0.60     0.58     0.27  71.8, 76.7, 77.9
    AdamW 0.0001 fixed from epoch 2   2.00               1.39             1.08     0.86     0.13  56.7, 68.5, 73.9
    frozen stages in training mode    1.39               0.55             1.19     1.16     0.48  61.7, 61.5, 65.6
    MobileNet batch statistics        1.16               0.41             0.59     0.52     0.22  64.8, 71.5, 70.9
    MobileNet fixed from epoch 2      1.16               0.46             3.17     2.47     2.36  64.8, 10.1, 10.1

- The running statistics fit at the switch: the first update has no higher loss. The loss then grows. Over updates 2 to 20 it is
  0.51 ± 0.49 above that on batch statistics at 0.001, and 1.49 ± 0.21 at 0.003 (95 % intervals of the difference seed by seed). At 0.003
  it exceeds that of guessing, 2.30, within ten updates and recovers in part, as in the source report. MobileNet goes from 0.46 to 5.33
  in one update and stays at guessing.
- On batch statistics there is no jump at either learning rate. On fixed ones there is none with AdamW at a tenth of the learning rate nor
  with SGD, which even learns faster (-0.43 ± 0.07 over updates 2 to 20).
- The weights change about as much as on batch statistics (kernels by 11 and 10 % in epoch 2), and their norms grow by 1 % in both, so
  it is not the scale of the kernels that grows. The activations move away from the fixed statistics: after epoch 2 by 1.09 running standard
  deviations, against 0.04. On statistics of the batch, the weights of AdamW at 0.001 have 77.9 % when they have 68.5 % on the fixed
  ones, and 77.3 % where the statistics were never fixed. At 0.003 the weights themselves are worse, too (61.8 against 75.0 %).
- From the start, fixed statistics slow AdamW down, but nothing has been learned yet that could be lost.
- Not shown: a ResNet50, and so the size of its jump. At 0.001, EfficientNet-Lite0 loses much less.

Said by the source report: AdamW at 0.001 with weight decay 0.001. Shown by its code: batches of 32, that is 92 updates per epoch;
evaluation mode from epoch 2 on; PyTorch's momentum of BatchNorm, 0.1; learning rate times 0.1 after epoch 7.

Chosen: EfficientNet-Lite0 with its last two groups of blocks, its last convolution and the head trained: 16 convolutions with BatchNorm,
where the source report trains 29. 2,944 and 736 images of CIFAR-10, as many as the pets, resized to 96 px bilinearly (bicubic, as for the
weights, seed 0 of AdamW 0.003 goes from 1.34 to 1.48 in epoch 2). Frozen stages run in inference mode, so
that their features are computed once; a check has them in training mode, as the source report. Fixed statistics mean evaluation
mode, which switches dropout and stochastic depth off and so lowers the training loss; a check fixes BatchNorm alone. At 0.003 an update
is about 4 % of the kernels, whose root mean square is 0.05 to 0.11, as it is at 0.001 for one of 0.02, the scale of He's formula for a 3x3
convolution of 512 channels.

What differs: data, model and size, so no value is compared with the source report, only the course of the training loss. Profile
`quick` has 4 epochs at a constant learning rate.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec
from tl_keras.runs.origins import Settings, chosen, said, shown

if TYPE_CHECKING:
    import keras

PROBE_FILE = "probe.json"  # in each run directory
# As many of CIFAR-10's 50,000 training images as Oxford-IIIT Pet has after the split: 2,944 and 736.
NUM_TRAIN, VALIDATION_FRACTION = 2944, 736 / 50_000
SETTINGS = (
    said(optimizer="adamw", learning_rate=1e-3, weight_decay=1e-3, epochs=10)
    | shown(batch_size=32, batch_norm="train", batch_norm_momentum=0.9, momentum=0.9, nesterov=False, selection="last")
    | shown(schedule="step:every=7,factor=0.1", schedule_interval="epoch", loss="cross_entropy", head="linear")
    | chosen(dataset="cifar10", label="label", limit_train=NUM_TRAIN, validation_fraction=VALIDATION_FRACTION, limit_test=1000)
    | chosen(backbone="efficientnet_lite0", weights="imagenet", normalization="weights", image_size=96, crop_fraction=0.0)
    | chosen(interpolation="bilinear", augmentation="none", fraction=1.0, strategy="last:3", frozen_mode="inference", eval_mode_after=-1)
    | chosen(l2=0.0, precision="float32", save_model=False, last_batch="keep")
)
ADAMW = said(optimizer="adamw", weight_decay=1e-3)
OPTIMIZERS = {
    "AdamW": ADAMW,
    "AdamW 0.003": ADAMW | chosen(learning_rate=3e-3),
    "SGD": said(optimizer="sgd", weight_decay=0.0) | shown(nesterov=True),
}
BATCH, SWITCH = "batch statistics", "fixed from epoch 2"
STATISTICS = {
    BATCH: chosen(eval_mode_after=-1),
    SWITCH: shown(eval_mode_after=1),
    "fixed from the start": chosen(eval_mode_after=0),
}
FIXED = ADAMW | STATISTICS[SWITCH]
MOBILENET = chosen(backbone="mobilenet_0.75", strategy="last:2")
CHECKS = {
    f"AdamW 0.0001 {SWITCH}": FIXED | chosen(learning_rate=1e-4),
    "frozen stages in training mode": FIXED | shown(frozen_mode="training"),
    "dropout on with BatchNorm fixed from the start": ADAMW | chosen(batch_norm="inference"),
    f"MobileNet 0.75 {SWITCH}": FIXED | MOBILENET,
    f"MobileNet 0.75 {BATCH}": ADAMW | MOBILENET | STATISTICS[BATCH],
}


def rows(base: RunConfig) -> list[RunSpec]:
    """Return one row per optimizer and statistics, then the checks."""
    cells = [
        _row(f"{optimizer} {statistics}", optimizer, base, changes | mode)
        for optimizer, changes in OPTIMIZERS.items()
        for statistics, mode in STATISTICS.items()
    ]
    return cells + [_row(f"check: {name}", "checks", base, changes) for name, changes in CHECKS.items()]


def _row(label: str, line: str, base: RunConfig, changes: Settings) -> RunSpec:
    return RunSpec(label=label, line=line, config=base.replace(**changes), origins=changes.origins)


def callbacks(config: RunConfig, run_dir: Path) -> "Sequence[keras.callbacks.Callback]":
    """Return the probe of a run."""
    from experiments._collapse_probe import Probe

    return (Probe(config, run_dir / PROBE_FILE),)


def write_files(directory: Path) -> Sequence[Path]:
    """Write the page and the plot of what the probes measured."""
    from experiments._collapse_report import write_page

    return write_page(directory, PROBE_FILE)


EXPERIMENT = Experiment(
    name="collapse",
    title="The collapse of AdamW, and the statistics of BatchNorm",
    question="Do fixed statistics of BatchNorm make AdamW lose in epoch 2 what it had learned?",
    settings=SETTINGS,
    rows=rows,
    quick=Profile({"epochs": 4, "schedule": "constant"}),
    callbacks=callbacks,
    write_files=write_files,
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
