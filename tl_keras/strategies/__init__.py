"""Fine-tuning strategies: what is trained in which phase, how it is frozen, and adapters of low rank."""

from tl_keras.strategies.strategy import (
    ADAPTERS,
    ALL_WEIGHTS,
    BATCH_NORM,
    BIAS,
    STRATEGIES,
    Lora,
    Phase,
    parse,
    plan,
)

__all__ = ["ADAPTERS", "ALL_WEIGHTS", "BATCH_NORM", "BIAS", "STRATEGIES", "Lora", "Phase", "parse", "plan"]
