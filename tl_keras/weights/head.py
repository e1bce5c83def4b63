"""Takes the columns of a trained head whose classes the new data set has, by name."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.backbones import LOGITS, variables_by_path
from tl_keras.weights.trained_model import TrainedModel

if TYPE_CHECKING:
    import keras

KERNEL, BIAS = f"{LOGITS}/kernel", f"{LOGITS}/bias"


def transfer_head(
    model: "keras.Model", arrays: Mapping[str, Any], trained: TrainedModel, class_names: Sequence[str]
) -> tuple[dict[str, Any], str]:
    """Return `arrays` with the head of `trained` in the order of `class_names`, and what was taken, as text.

    The column of the kernel and the bias of a class of equal name are taken. Those of other classes are the initial values of `model`.
    Without a class in common, or if the logits of one side do not stand for one class each, `arrays` has no head.

    Args:
        arrays: variable path -> array of the trained model.
        class_names: names of the logits of `model`; empty: they do not stand for one class each.
    """
    backbone = {path: array for path, array in arrays.items() if path not in (KERNEL, BIAS)}
    if reason := _obstacle(arrays, trained, class_names):
        return backbone, f"left out: {reason}"
    columns = {name: column for column, name in enumerate(trained.class_names)}
    common = [(index, columns[name]) for index, name in enumerate(class_names) if name in columns]
    text = f"{len(common)} of {len(class_names)} classes taken from {trained.name} by name"
    if not common:
        return backbone, text
    here, there = np.array(common).T
    variables = variables_by_path(model)
    kernel, bias = (np.array(variables[path].numpy()) for path in (KERNEL, BIAS))
    kernel[:, here], bias[here] = np.asarray(arrays[KERNEL])[:, there], np.asarray(arrays[BIAS])[there]
    return {**backbone, KERNEL: kernel, BIAS: bias}, text


def _obstacle(arrays: Mapping[str, Any], trained: TrainedModel, class_names: Sequence[str]) -> str:
    """Return why no column can be taken, or ""."""
    if not class_names:
        return "the new head has one logit for two classes, or classes without images"
    if not trained.has_linear_head:
        return f"that of {trained.name} has one logit for two classes, or classes without images"
    if not trained.class_names:
        return f"{trained.name} has no class names"
    shapes = [tuple(arrays[path].shape) if path in arrays else () for path in (KERNEL, BIAS)]
    if len(shapes[0]) != 2 or shapes != [(shapes[0][0], len(trained.class_names)), (len(trained.class_names),)]:
        return f"{trained.name} has {len(trained.class_names)} class names, and its head the shapes {shapes[0]} and {shapes[1]}"
    return ""
