"""The collapse of AdamW (source report D, "Transfer Learning Via Default Project 1"), and whether fixed BatchNorm statistics cause it.

Question: In source report D, AdamW at 0.001 trains the last stages of a ResNet50; its training loss jumps from 1.75 to 4.1 in epoch 2,
the first on running statistics of BatchNorm, and recovers. Do the fixed statistics cause the jump?

Command: `make exp-collapse`, or `python -m experiments.collapse`

Said by the source report: AdamW at 0.001 with weight decay 0.001. Shown by its code: batches of 32, that is 92 updates per epoch; BatchNorm
as in evaluation from epoch 2 on, with PyTorch's momentum of 0.1; learning rate times 0.1 after epoch 7.

Chosen: EfficientNet-Lite0 instead of ResNet50, with its last two groups of blocks, its last convolution and the head trained (16
convolutions with BatchNorm; the source report trains 29); 2,944 and 736 images of CIFAR-10, as many as the pets, at 96 px. Frozen stages
run in inference mode, so that their features are computed once; one check has them in training mode as the source report. Fixed
statistics mean evaluation mode, which switches dropout and stochastic depth off as well; one check fixes BatchNorm alone. At 0.003 an
update changes a kernel by about the fraction by which 0.001 changes one of a ResNet50 at the scale of He's formula.

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
# Of CIFAR-10's 50,000 training images as many as Oxford-IIIT Pet has after the split: 2,944 and 736.
NUM_TRAIN, VALIDATION_FRACTION = 2944, 736 / 50_000
SETTINGS = (
    said(optimizer="adamw", learning_rate=1e-3, weight_decay=1e-3, epochs=10)
    | shown(batch_size=32, batch_norm="train", batch_norm_momentum=0.9, momentum=0.9, nesterov=False, selection="last")
    | shown(schedule="step:every=7,factor=0.1", schedule_interval="epoch", loss="cross_entropy", head="linear")
    | chosen(dataset="cifar10", label="label", limit_train=NUM_TRAIN, validation_fraction=VALIDATION_FRACTION, limit_test=1000)
    | chosen(backbone="efficientnet_lite0", weights="imagenet", normalization="weights", image_size=96, crop_fraction=0.0)
    | chosen(interpolation="weights", augmentation="none", fraction=1.0, strategy="last:3", frozen_mode="inference", eval_mode_after=-1)
    | chosen(l2=0.0, precision="float32", save_model=False)
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
