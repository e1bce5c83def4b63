"""Fine-tuning strategies: which weights each phase trains, how the others are frozen, and low-rank adapters."""

from tl_keras.backbones.registry import BATCH_NORM, BIAS
from tl_keras.strategies.strategy import (
    ADAPTERS,
    ALL_WEIGHTS,
    STRATEGIES,
    Lora,
    Phase,
    Strategy,
    build_phases,
    check_weight_groups,
    parse,
)

__all__ = [
    "ADAPTERS",
    "ALL_WEIGHTS",
    "BATCH_NORM",
    "BIAS",
    "STRATEGIES",
    "Lora",
    "Phase",
    "Strategy",
    "build_phases",
    "check_weight_groups",
    "parse",
]
