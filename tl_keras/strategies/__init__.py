"""Fine-tuning strategies: which weights each phase trains, how the others are frozen, and low-rank adapters.

A strategy is a text or an object, e.g. `lora:rank=4` or `Lora(rank=4)`; `str` of the object is the text.
"""

from tl_keras.backbones.registry import BATCH_NORM, BIAS
from tl_keras.strategies.strategy import (
    ADAPTERS,
    ALL_WEIGHTS,
    STRATEGIES,
    BatchNorm,
    Bias,
    Freeze,
    Full,
    Gradual,
    HeadOnly,
    HeadThenFull,
    Last,
    LayerDecay,
    Lora,
    Phase,
    Strategy,
    Train,
    build_phases,
    check_weight_groups,
    parse,
    to_text,
)

__all__ = [
    "ADAPTERS",
    "ALL_WEIGHTS",
    "BATCH_NORM",
    "BIAS",
    "BatchNorm",
    "Bias",
    "Freeze",
    "Full",
    "Gradual",
    "HeadOnly",
    "HeadThenFull",
    "Last",
    "LayerDecay",
    "Lora",
    "Phase",
    "STRATEGIES",
    "Strategy",
    "Train",
    "build_phases",
    "check_weight_groups",
    "parse",
    "to_text",
]
