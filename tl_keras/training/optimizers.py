"""Optimizers with PyTorch's arithmetic, a rate scale per variable, decay where it is wanted, and clipping of the whole gradient.

Keras's own differ from the reports' in ways that move figures: its SGD keeps the learning rate inside the momentum buffer,
its Adam adds epsilon before the bias correction, counts one step for all variables, and its `weight_decay` is always
decoupled. Here `l2` is added to the gradient (torch.optim.SGD's and Adam's weight_decay) and `weight_decay` is decoupled
(AdamW's), and an optimizer is built once on every variable that any phase trains, so moments survive an unfreeze.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tl_keras.config import TrainConfig

# Biases, the weights of norms, and ViT's class token and position embedding: what timm and DeiT leave without decay.
NO_WEIGHT_DECAY = frozenset({"bias", "beta", "gamma", "class_token", "pos_embedding"})
CLIP_EPSILON = 1e-6  # of torch.nn.utils.clip_grad_norm_


class _TorchOptimizer(keras.optimizers.Optimizer):
    """What SGD and Adam share: clipping, decay, L2 and the rate of each variable; subclasses give the compute_update of the step.

    Args:
        decay_biases: whether `l2` and `decoupled_decay` act on the variables of `NO_WEIGHT_DECAY` too.
        clip_norm: the gradients of one `apply`, summed over the replicas, are scaled down to this L2 norm; 0 for no limit.
    """

    def __init__(
        self,
        learning_rate: float,
        *,
        l2: float = 0.0,
        decoupled_decay: float = 0.0,
        decay_biases: bool = True,
        clip_norm: float = 0.0,
        name: str = "optimizer",
    ):
        super().__init__(learning_rate=learning_rate, name=name)
        self.l2 = l2
        self.decoupled_decay = decoupled_decay
        self.decay_biases = decay_biases
        self.clip_norm = clip_norm
        self.lr_multipliers: Sequence[float] = ()

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the slots for `variables`, all with a rate scale of 1."""
        if self.built:
            return
        super().build(list(variables))
        self.lr_multipliers = [1.0] * len(variables)
        self._decays = [self.decay_biases or has_weight_decay(variable) for variable in variables]

    def _all_reduce_sum_gradients(self, pairs: Any) -> Any:
        # Keras's own clipping comes before this hook, when each replica has its own gradient.
        pairs = super()._all_reduce_sum_gradients(pairs)
        if not self.clip_norm:
            return pairs
        norm = ops.sqrt(sum(ops.sum(ops.square(ops.cast(gradient, "float32"))) for gradient, _ in pairs))
        factor = ops.minimum(self.clip_norm / (norm + CLIP_EPSILON), 1.0)
        return [(gradient * ops.cast(factor, gradient.dtype), variable) for gradient, variable in pairs]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # The TensorFlow backend passes a raw tf.Variable without a path: the index is the only key that holds.
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self.lr_multipliers[index]
        gradient = ops.cast(gradient, variable.dtype)
        decays = self._decays[index]
        if self.decoupled_decay and decays:
            self.assign_sub(variable, variable * (rate * self.decoupled_decay))
        if self.l2 and decays:
            gradient = gradient + self.l2 * variable
        self.assign_sub(variable, rate * self.compute_update(index, gradient))

    def compute_update(self, index: int, gradient: Any) -> Any:
        """The step of variable `index` before the rate, and the update of its slots."""
        raise NotImplementedError


class SGD(_TorchOptimizer):
    """torch.optim.SGD: `v = momentum * v + g`, step `v`, or `g + momentum * v` with Nesterov."""

    def __init__(self, learning_rate: float, *, momentum: float = 0.0, nesterov: bool = False, **settings: Any):
        super().__init__(learning_rate, name="sgd", **settings)
        self.momentum = momentum
        self.nesterov = nesterov

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(list(variables), "velocity") if self.momentum else []

    def compute_update(self, index: int, gradient: Any) -> Any:
        if not self.momentum:
            return gradient
        velocity = self.momentum * self._velocities[index] + gradient
        self.assign(self._velocities[index], velocity)
        return gradient + self.momentum * velocity if self.nesterov else velocity


class Adam(_TorchOptimizer):
    """torch.optim.Adam (Kingma and Ba 2015), or AdamW (Loshchilov and Hutter 2019) with decoupled decay.

    The bias correction counts the steps of each variable by itself, as PyTorch does: one that is unfrozen late starts
    with its own first step instead of a step three times too large.
    """

    BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._first_moments, self._second_moments = self.add_optimizer_variables(list(variables), ["mean", "square"])
        self._steps = [self.add_variable(shape=(), dtype="float32", name=f"step_{index}") for index in range(len(variables))]

    def compute_update(self, index: int, gradient: Any) -> Any:
        step = self._steps[index] + 1.0
        mean = self.BETA_1 * self._first_moments[index] + (1 - self.BETA_1) * gradient
        square = self.BETA_2 * self._second_moments[index] + (1 - self.BETA_2) * ops.square(gradient)
        self.assign(self._steps[index], step)
        self.assign(self._first_moments[index], mean)
        self.assign(self._second_moments[index], square)
        root = ops.sqrt(square / _one_minus_power(self.BETA_2, step)) + self.EPSILON
        return mean / _one_minus_power(self.BETA_1, step) / root


def _one_minus_power(beta: float, step: Any) -> Any:
    """1 - beta^step; in float32 the plain difference is off by one in 10^4 at the first steps."""
    return -ops.expm1(step * math.log(beta))


def has_weight_decay(variable: keras.Variable) -> bool:
    """Whether `variable` is a kernel, which decay is meant for: not one of `NO_WEIGHT_DECAY`, and not a vector or a scalar."""
    return len(variable.shape) > 1 and NO_WEIGHT_DECAY.isdisjoint(variable.path.split("/"))


def build_optimizer(config: TrainConfig) -> _TorchOptimizer:
    """The optimizer that `config` names, not yet built on variables."""
    settings = {
        "l2": config.l2,
        "decoupled_decay": config.weight_decay,
        "decay_biases": config.decay_biases,
        "clip_norm": config.clip_norm,
    }
    if config.optimizer == "sgd":
        return SGD(config.learning_rate, momentum=config.momentum, nesterov=config.nesterov, **settings)
    return Adam(config.learning_rate, name=config.optimizer, **settings)
