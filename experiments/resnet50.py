"""Schedules, augmentation, freezing and regularization of ResNet50 on CIFAR-10 (source report E).

Question: For ResNet50 on CIFAR-10, which of the usual advice helps: learning-rate schedules, augmentation, freezing, other optimizers,
regularization, a stem for small images, or larger images?

Command: `make exp-resnet50`, or `python -m experiments.resnet50`

Said by the source report, "Why aren't ResNet50 transfer learning accuracy and losses improving on CIFAR-10?", which has no results:
a head of 2048 -> 10, SGD at 0.01 with momentum 0.9. Schedules: none, reduce on plateau with patience 5 and factor 0.1, step, cosine.
Augmentation: none, crop with padding 4 and flip, MixUp, CutOut, RandAugment, colour jitter. Freezing: all but layer4 and the head, then
more layers step by step, and full fine-tuning. It names other optimizers, dropout, weight decay and changes of the architecture, and
begins with the difference of 32 and 224 px.

Shown by its code: the weights are torchvision's first version, which `pretrained=True` loads.

Chosen here: 20 epochs, batches of 128, and all values that the source report names without a number: the factors of jitter, the rates
of Adam and AdamW, dropout 0.5, L2 5e-4, a CIFAR stem. The step schedule falls after each third of the run. The baseline is full
fine-tuning at 32 px without schedule or augmentation. It is the first row of all comparisons, among them "last:5", and runs once.

What differs: no value is published, so the rows are compared with each other alone. Each row changes one thing. Another backbone has
its default ImageNet weights, and the row "CIFAR stem" only if it has such a stem.
"""

import sys
from types import MappingProxyType

from experiments._settings import FIRST_WEIGHTS, OPEN, RESNET50, last, row, with_available_weights
from tl_keras.backbones import get_backbone
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec
from tl_keras.runs.origins import chosen, said, shown

# Label -> (line of the plot, changed settings).
TABLE = MappingProxyType(
    {
        "baseline": ("baseline", said()),
        "schedule plateau": ("schedule", said(schedule="plateau:patience=5,factor=0.1")),
        "schedule step": ("schedule", said(schedule="step")),
        "schedule cosine": ("schedule", said(schedule="cosine")),
        "augmentation crop_flip": ("augmentation", said(augmentation="crop_flip", normalization="cifar10")),
        "augmentation mixup": ("augmentation", said(augmentation="mixup")),
        "augmentation cutout": ("augmentation", said(augmentation="cutout")),
        "augmentation randaugment": ("augmentation", said(augmentation="randaugment")),
        "augmentation jitter": ("augmentation", chosen(augmentation="jitter:brightness=0.2,contrast=0.2,saturation=0.2")),
        "optimizer adam": ("optimizer", chosen(optimizer="adam", learning_rate=1e-3)),
        "optimizer adamw": ("optimizer", chosen(optimizer="adamw", learning_rate=1e-3, weight_decay=0.01)),
        "head dropout": ("regularization", chosen(head_dropout=0.5)),
        "weight decay": ("regularization", chosen(l2=5e-4)),
        "CIFAR stem": ("architecture", chosen(stem="cifar")),
        "224 px": ("image size", said(image_size=224)),
    }
)
MAX_LAST = 4  # the fifth is the stem: full fine-tuning, which is the baseline


def rows(base: RunConfig) -> list[RunSpec]:
    """Return the baseline, one row per change, and the last 1 to 4 stages."""
    base = with_available_weights(base)
    freezing = {f"last:{number}": ("freezing", said(strategy=last(base, number))) for number in range(1, MAX_LAST + 1)}
    stems = get_backbone(base.model.backbone).stems
    table = {label: entry for label, entry in {**TABLE, **freezing}.items() if entry[1].get("stem", "imagenet") in stems}
    return [row(base, label, line, changes) for label, (line, changes) in table.items()]


EXPERIMENT = Experiment(
    name="resnet50",
    title="ResNet50 on CIFAR-10: schedules, augmentation, freezing and regularization",
    question="Why does accuracy not improve, and which advice helps?",
    settings=OPEN
    | said(dataset="cifar10", backbone=RESNET50, image_size=32, augmentation="none", schedule="constant", strategy="full")
    | said(optimizer="sgd", learning_rate=0.01, momentum=0.9)
    | shown(weights=FIRST_WEIGHTS)
    | chosen(normalization="cifar10", schedule_interval="epoch", epochs=20, batch_size=128),
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.05, "validation_fraction": 0.02, "epochs": 7}), max_image_size=64),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
