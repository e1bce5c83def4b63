"""tl_keras: how best to reuse a pre-trained image classifier on your own data, with figures you can trust.

    import tl_keras as tl

    run = tl.fit("folder:photos", "runs/photos", backbone="efficientnet_lite0", strategy="head")
    print(run.evaluation)
    run.predict("cat.jpg").labels

Names are imported when they are used, so `import tl_keras` loads no TensorFlow. `tl_keras.strategies`, `tl_keras.weights` and
`tl_keras.errors` are public too.

    >>> import tl_keras
    >>> tl_keras.RunConfig().replace(backbone="alexnet", epochs=3).train.epochs
    3
"""

import importlib
from typing import Any

PUBLIC = {
    "Comparison": "tl_keras.interface.comparison",
    "Evaluation": "tl_keras.interface.evaluation",
    "ImageData": "tl_keras.interface.image_data",
    "Predictions": "tl_keras.results.predicted",
    "Run": "tl_keras.interface.run",
    "RunConfig": "tl_keras.config",
    "UserError": "tl_keras.errors",
    "build_model": "tl_keras.interface.fitting",
    "compare": "tl_keras.interface.comparison",
    "dry_run": "tl_keras.interface.fitting",
    "fit": "tl_keras.interface.fitting",
    "list_available": "tl_keras.interface.tables",
    "load_run": "tl_keras.interface.run",
    "lr_find": "tl_keras.interface.fitting",
    "write_report": "tl_keras.interface.tables",
}
NAMESPACES = ("errors", "strategies", "weights")

__all__ = sorted(PUBLIC)


def __getattr__(name: str) -> Any:
    if name in NAMESPACES:
        return importlib.import_module(f"tl_keras.{name}")
    if name not in PUBLIC:
        raise AttributeError(f"module 'tl_keras' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *PUBLIC, *NAMESPACES]
