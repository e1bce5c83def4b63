"""Frees the graphs that TensorFlow's registry of custom gradients would keep for the rest of the process.

Inside a tf.function, `tf.custom_gradient` registers each gradient under a new name in a dictionary that is never emptied. A gradient refers
to its graph, and the graph to all variables that it reads. Summing gradients over replicas, even over one, is such a gradient, and so is
`tf.nn.silu`. A process would keep the weights and the optimizer of every model that it has trained, also those of Keras's `fit`.
"""

import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

PREFIX = "CustomGradient-"  # of the names that `tf.custom_gradient` makes up
# It has no public interface. Without it, graphs are kept as TensorFlow keeps them.
_ENTRIES: dict[str, dict[str, Any]] = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
_GRADIENT = "type"  # key of the gradient in an entry


@contextmanager
def free_custom_gradients() -> Iterator[None]:
    """Let every custom gradient that is registered in the block live as long as its graph. Others are left alone.

    A function that outlives the block can be differentiated as before.
    """
    before = set(_ENTRIES)
    try:
        yield
    finally:
        for name in set(_ENTRIES) - before:
            if name.startswith(PREFIX):
                _free_with_graph(name)


def _free_with_graph(name: str) -> None:
    """Let the graph of an entry hold the gradient, to which the registry keeps a weak reference only."""
    entry = _ENTRIES[name]
    gradient = entry[_GRADIENT]
    graph = _graph_of(gradient)
    if graph is None:
        return
    graph.tl_keras_gradients = [*getattr(graph, "tl_keras_gradients", ()), gradient]
    reference: Callable[[], Any] = weakref.ref(gradient)
    entry[_GRADIENT] = lambda op, *upstream: reference()(op, *upstream)
    weakref.finalize(graph, _ENTRIES.pop, name, None).atexit = False


def _graph_of(gradient: Any) -> tf.Graph | None:
    """Return the graph of the tensors that `gradient`, a function in the registry, encloses."""
    enclosed = inspect.getclosurevars(gradient).nonlocals
    enclosed = inspect.getclosurevars(enclosed["tape_grad_fn"]).nonlocals if "tape_grad_fn" in enclosed else {}
    return next((tensor.graph for tensor in tf.nest.flatten(enclosed.get("result")) if isinstance(tensor, tf.Tensor)), None)
