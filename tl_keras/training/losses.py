"""Training losses: cross-entropy from logits and targets that may be mixtures, smoothed, weighted by class, or focal.

All are one formula, per example and in float32 whatever the model computes in:

    loss = - sum over classes of  w_c  t_c  (1 - p_c)^gamma  log p_c,      t = (1 - s) target + s / classes

with s of label smoothing (Szegedy et al. 2016), gamma of the focal loss (Lin et al. 2017; 0 for cross-entropy) and class
weights w. It is torch.nn.CrossEntropyLoss on probabilities as targets, which also puts the weights on the smoothed targets.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from tl_keras.config import TrainConfig

Loss = Callable[[Any, Any], Any]
SMALLEST = 1e-7  # below it 1 - p counts as this, whose powers below 1 have a gradient; float32 is no finer near 1


def build_loss(config: TrainConfig, class_counts: Mapping[int, int], num_classes: int) -> Loss:
    """The loss that `config` names.

    Args:
        class_counts: label -> training examples, of the labels that occur.
        num_classes: width of targets and logits.

    Returns:
        A function (targets (b, classes), logits (b, classes)) -> loss of each example, float32 (b,). An objective divides their
        sum by the number of examples. So does PyTorch's mean over targets that are probabilities; over targets that are labels
        it divides by the sum of the batch's weights instead, and a batch counts as much whatever classes it has.
    """
    gamma = config.focal_gamma if config.loss == "focal" else 0.0
    smoothing = config.label_smoothing
    weights = balanced_weights(class_counts, num_classes) if config.class_weights == "balanced" else None

    def loss(targets: Any, logits: Any) -> Any:
        targets = (1 - smoothing) * ops.cast(targets, "float32") + smoothing / num_classes
        log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        terms = targets * log_p
        if gamma:
            terms = terms * ops.power(ops.maximum(-ops.expm1(log_p), SMALLEST), gamma)
        if weights is not None:
            terms = terms * weights
        return -ops.sum(terms, axis=-1)

    return loss


def balanced_weights(class_counts: Mapping[int, int], num_classes: int) -> np.ndarray:
    """Weights float32 (classes,) under which each class that occurs has the same total weight, and examples weigh 1 on average.

    The weight of class c is n / (classes that occur x n_c). A class without examples has 1; only label smoothing meets it.
    """
    weights = np.ones(num_classes, np.float32)
    num_examples = sum(class_counts.values())
    for label, count in class_counts.items():
        weights[label] = num_examples / (len(class_counts) * count)
    return weights
