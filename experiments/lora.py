"""Report C, "Pre-trained Models on ImageNet": LoRA, which it describes and does not run.

Question: ViT-B/16 on CIFAR-10: how near do low-rank adapters of rank 4, 8 and 16 come to full fine-tuning, and how far are they
beyond a new head alone?

Command: `make exp-lora`, or `python -m experiments.lora`

The report: full fine-tuning 98.4 % (SGD, cosine over 20 epochs; see `experiments/_settings.py`); LoRA (Hu et al. 2021) without
a figure. So the rows of LoRA and of the head alone are ours: AdamW at 0.001, which adapters and heads are usually trained with;
adapters on queries and values, alpha twice the rank.

What differs: the one reported figure belongs to SGD, so the row of full fine-tuning keeps it. With a network that has no
attention, adapters go on all its dense layers and convolutions.
"""

import sys
from types import MappingProxyType

from experiments._settings import CIFAR_TABLE
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, Row

RANKS = (4, 8, 16)
ADAPTED = MappingProxyType({"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01})


def rows(base: RunConfig) -> list[Row]:
    """The head alone, three ranks, and everything."""
    targets = "query+value" if base.model.backbone.startswith("vit") else "all"
    adapted = {f"LoRA rank {rank}": f"lora:rank={rank},alpha={2 * rank},targets={targets}" for rank in RANKS}
    ours = {"head only": "head", **adapted}
    return [
        *(Row(label=label, group=label.split()[0], config=base.replace(strategy=name, **ADAPTED)) for label, name in ours.items()),
        Row(label="full fine-tuning", group="full", config=base.replace(strategy="full"), reported={"test accuracy": 98.4}),
    ]


EXPERIMENT = Experiment(
    name="lora",
    title="LoRA of rank 4, 8 and 16 beside a new head and full fine-tuning of ViT-B/16",
    question="How near do low-rank adapters come to full fine-tuning, with how many parameters?",
    settings=MappingProxyType({**CIFAR_TABLE, "backbone": "vit_b16", "frozen_mode": "inference"}),
    rows=rows,
    quick=Profile(MappingProxyType({"fraction": 0.04, "validation_fraction": 0.02, "limit_test": 2000, "epochs": 4}), max_image_size=64),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
