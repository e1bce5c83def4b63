"""Layers that compute their outputs in another way in a block."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import keras

Call = Callable[..., Any]
LayerT = TypeVar("LayerT", bound=keras.layers.Layer)


@contextmanager
def exchanged_calls(layers: Iterable[LayerT], make_call: Callable[[LayerT], Call]) -> Iterator[None]:
    """Let each of `layers` use `make_call(layer)` as its `call` in this block. After it, each has the `call` that it had before.

    The `call` of the instance is exchanged, not that of its class, so nothing of this is saved or copied.
    """
    with ExitStack() as stack:
        for layer in layers:
            call = make_call(layer)
            stack.callback(_restore, layer, vars(layer).get("call"))
            layer.call = call
        yield


def _restore(layer: keras.layers.Layer, own_call: Call | None) -> None:
    """Let `layer` use `own_call`, or the `call` of its class if it has none."""
    if own_call is None:
        del layer.call
    else:
        layer.call = own_call
