"""Training losses: cross-entropy of logits and class probabilities, optionally smoothed, weighted by class, or focal.

All follow one formula, per example and in float32 for every precision of the model:

    loss = - sum over classes of  w_c  t_c  (1 - p_c)^gamma  log p_c,      t = (1 - s) target + s / classes

Here s is the label smoothing (Szegedy et al. 2016), gamma the exponent of the focal loss (Lin et al. 2017; 0 for cross-entropy)
and w the class weights. With gamma 0 it is torch.nn.CrossEntropyLoss for probabilities, which also weights smoothed targets.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from tl_keras.config import TrainConfig

Loss = Callable[[Any, Any], Any]
EPSILON = 1e-7  # lower bound of 1 - p, as its powers below 1 have no finite gradient at 0; float32 resolves no less near 1


def build_loss(config: TrainConfig, class_counts: Mapping[int, int], num_classes: int) -> Loss:
    """Return the loss that `config` names.

    Args:
        class_counts: label -> number of training examples, for the labels that occur.
        num_classes: size of the last axis of targets and logits.

    Returns:
        A function (targets (b, classes), logits (b, classes)) -> loss of each example, float32 (b,). The trainer divides their sum
        by the number of examples, as PyTorch does for targets that are probabilities. For targets that are labels, PyTorch
        divides by the sum of the class weights of the batch.
    """
    gamma = config.focal_gamma if config.loss == "focal" else 0.0
    smoothing = config.label_smoothing
    weights = balanced_weights(class_counts, num_classes) if config.class_weights == "balanced" else None

    def loss(targets: Any, logits: Any) -> Any:
        targets = (1 - smoothing) * ops.cast(targets, "float32") + smoothing / num_classes
        log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        terms = targets * log_p
        if gamma:
            terms = terms * ops.power(ops.maximum(-ops.expm1(log_p), EPSILON), gamma)
        if weights is not None:
            terms = terms * weights
        return -ops.sum(terms, axis=-1)

    return loss


def balanced_weights(class_counts: Mapping[int, int], num_classes: int) -> np.ndarray:
    """Return class weights, float32 (classes,), that give every class the same total weight and examples a mean weight of 1.

    The weight of class c is n / (k n_c) with k the number of classes that occur. A class without examples has weight 1, which
    only label smoothing uses.
    """
    weights = np.ones(num_classes, np.float32)
    num_examples = sum(class_counts.values())
    for label, count in class_counts.items():
        weights[label] = num_examples / (len(class_counts) * count)
    return weights
