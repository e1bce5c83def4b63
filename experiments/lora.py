"""LoRA of ViT-B/16, which source report C, "Pre-trained Models on ImageNet", describes and does not run.

Question: On CIFAR-10, how close do low-rank adapters of rank 4, 8 and 16 come to full fine-tuning of ViT-B/16? How much better
than a new head alone are they?

Command: `make exp-lora`, or `python -m experiments.lora`

Said by the source report: full fine-tuning at 224 px, with rotation and flip, reaches 98.4 %. It describes LoRA (Hu et al. 2021)
without a result.

Chosen here: the head alone and LoRA train with AdamW at 0.001, as is usual for heads and adapters. Adapters are on queries and
values, with alpha twice the rank. `experiments/_settings.py` lists the other settings.

What differs: LoRA and the head have no published value, and full fine-tuning keeps SGD. A model without attention gets adapters on
all its dense and convolutional layers.
"""

import sys
from types import MappingProxyType

from experiments._settings import CIFAR_TABLE, row
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec
from tl_keras.runs.origins import SAID, chosen

RANKS = (4, 8, 16)
ADAMW = chosen(optimizer="adamw", learning_rate=1e-3, weight_decay=0.01)


def rows(base: RunConfig) -> list[RunSpec]:
    """Return the head alone, LoRA of three ranks, and full fine-tuning."""
    targets = "query+value" if base.model.backbone.startswith("vit") else "all"
    lora = {f"LoRA rank {rank}": f"lora:rank={rank},alpha={2 * rank},targets={targets}" for rank in RANKS}
    strategies = {"head only": "head", **lora}
    changes = {label: ADAMW | chosen(strategy=strategy) for label, strategy in strategies.items()}
    return [*(row(base, label, label.split()[0], settings) for label, settings in changes.items()), _full(base)]


def _full(base: RunConfig) -> RunSpec:
    """Return the row of the source report, in which some settings are said that are chosen for the other rows."""
    return RunSpec(
        label="full fine-tuning",
        line="full",
        config=base.replace(strategy="full"),
        origins=dict.fromkeys(("strategy", "backbone", "image_size", "augmentation"), SAID),
        published={"test accuracy": 98.4},
    )


EXPERIMENT = Experiment(
    name="lora",
    title="LoRA of rank 4, 8 and 16 against a new head and full fine-tuning of ViT-B/16",
    question="How close do low-rank adapters come to full fine-tuning, and with how many parameters?",
    settings=CIFAR_TABLE | chosen(backbone="vit_b16", image_size=224, frozen_mode="inference"),
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.04, "validation_fraction": 0.02, "limit_test": 2000, "epochs": 4}), max_image_size=64),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
