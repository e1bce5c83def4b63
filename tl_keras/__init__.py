"""tl_keras: how best to reuse a pre-trained image classifier on your own data, with figures you can trust.

The public names are imported when they are used, so `import tl_keras` loads no TensorFlow.

    >>> import tl_keras
    >>> tl_keras.RunConfig().replace(backbone="alexnet", epochs=3).train.epochs
    3
"""

import importlib
from typing import Any

PUBLIC = {
    "RunConfig": "tl_keras.config",
    "Experiment": "tl_keras.runs.experiment",
    "Row": "tl_keras.runs.experiment",  # alias of RunSpec
    "RunSpec": "tl_keras.runs.experiment",
    "Phase": "tl_keras.strategies",
    "UserError": "tl_keras.errors",
    "build_classifier": "tl_keras.backbones",
    "export": "tl_keras.runs.export",
    "load_source": "tl_keras.data",
    "run": "tl_keras.runs.run",
}

__all__ = sorted(PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'tl_keras' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *PUBLIC]
