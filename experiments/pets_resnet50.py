"""ResNet50 on pets, and the collapse of AdamW (source report D, "Transfer Learning Via Default Project 1").

Question: ResNet50 learns 37 breeds with SGD, SGD with L2 and AdamW at l = 0, 1 and 3. Why does AdamW fall to 48.71 % at l = 3, and
what prevents it?

Command: `make exp-pets-resnet50`, or `python -m experiments.pets_resnet50`

Said by the source report: l = 0: 90.49 (SGD), 90.71 (L2), 90.95 % (AdamW); l = 3: 91.99, 91.74, 48.71 %. Weight decay is 0.01 for L2
and 0.001 for AdamW. AdamW collapses after epoch 1 at l = 3, and no cure was found.

Shown by its code: l = 0 and l = 1 train the head alone, so they are the same run twice, of which the text prints one and averages
both. l = 3 trains the head, layer4 and layer3. The weights are torchvision's first version. The collapse happens in epoch 2, the
first that trains on the running statistics of BatchNorm.

The cause in a small setting (`python -m tools.adamw_collapse`: MobileNet, 3 breeds): Adam's first update is the learning rate times
the sign of the gradient, whatever its size. Kernels at the scale of ResNet50's 3x3x512 convolutions change by 5 % in the first
update, MobileNet's own kernels by 0.6 %. Before BatchNorm only this relative change matters. A lower learning rate prevents the
collapse, and so do learning rates that fall towards the stem. Warm-up only delays it. Clipping does nothing, because Adam divides by
the size of the gradient. All four are rows without a published value.

What differs: l counts the trained stages, as the text suggests, so l = 1 trains layer4 and l = 3 layer2 to layer4. The weights are
torchvision's second version. `experiments/_settings.py` lists further differences, BatchNorm among them.
"""

import sys
from types import MappingProxyType

from experiments._settings import PETS, last
from tl_keras.cli.experiment import experiment_main
from tl_keras.config import RunConfig
from tl_keras.runs.experiment import Experiment, Profile, RunSpec

ADAMW = MappingProxyType({"optimizer": "adamw", "nesterov": False, "weight_decay": 0.001})
OPTIMIZERS = MappingProxyType({"SGD": {}, "SGD with L2": {"l2": 0.01}, "AdamW": ADAMW})
# Optimizer -> l -> test accuracy in per cent. The text does not print l = 1.
PUBLISHED = MappingProxyType({"SGD": {0: 90.49, 3: 91.99}, "SGD with L2": {0: 90.71, 3: 91.74}, "AdamW": {0: 90.95, 3: 48.71}})
# Usual cures, at l = 3. Falling learning rates train every stage.
CURES = MappingProxyType(
    {
        "AdamW rate 0.0001": {"learning_rate": 1e-4},
        "AdamW falling rates": {"strategy": "layer_decay:0.3"},
        "AdamW clipping": {"clip_norm": 0.1},
    }
)


def rows(base: RunConfig) -> list[RunSpec]:
    """Return one row per optimizer and l, then one per cure of AdamW at l = 3."""
    table = [
        RunSpec(
            label=f"{name} l = {number}",
            line=name,
            config=base.replace(strategy=last(base, number), **settings),
            published={"test accuracy": PUBLISHED[name][number]} if number in PUBLISHED[name] else {},
        )
        for name, settings in OPTIMIZERS.items()
        for number in (0, 1, 3)
    ]
    collapsed = base.replace(strategy=last(base, 3), **ADAMW)
    cures = {**CURES, "AdamW warm-up": {"warmup_epochs": 0.2 * base.train.epochs}}
    return table + [RunSpec(label=label, line="cures", config=collapsed.replace(**settings)) for label, settings in cures.items()]


EXPERIMENT = Experiment(
    name="pets_resnet50",
    title="ResNet50 with SGD, L2 and AdamW, and cures of AdamW's collapse",
    question="Does a deeper model help, and why does AdamW collapse when three stages are trained?",
    settings=MappingProxyType({**PETS, "backbone": "resnet50_torch"}),
    rows=rows,
    quick=Profile(MappingProxyType({"epochs": 3, "fraction": 0.3}), max_image_size=96),
)

if __name__ == "__main__":
    sys.exit(experiment_main(EXPERIMENT, __doc__))
