"""Optimizers with PyTorch's arithmetic, a learning-rate multiplier per variable, and clipping of the whole gradient.

Keras's own optimizers change results: SGD keeps the learning rate inside the momentum buffer, Adam adds epsilon before the bias
correction and counts one step for all variables, and `weight_decay` is always decoupled. Here `l2` is added to the gradient, as
the weight_decay of torch.optim.SGD and Adam, and `weight_decay` is decoupled, as in AdamW. An optimizer is built once on the
variables of all phases, so its moments survive an unfreeze.

A variable, its gradient and its slots move through memory once per update, in one kernel of TensorFlow. Composed operations with the
same arithmetic took a quarter of a training step of AlexNet. No kernel reads a 16-bit gradient of a float32 variable: XLA compiles one,
which saves the gradient in float32, a tenth of a step of AlexNet in bfloat16.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tl_keras.config import TrainConfig

# Biases, normalization parameters, and ViT's class token and position embedding: timm and DeiT do not decay these.
NO_WEIGHT_DECAY = frozenset({"bias", "beta", "gamma", "class_token", "pos_embedding"})
CLIP_EPSILON = 1e-6  # of torch.nn.utils.clip_grad_norm_


class _TorchOptimizer(keras.optimizers.Optimizer):
    """Base class of SGD and Adam: clipping, decay, L2 and the learning rate of each variable. Subclasses have the kernel.

    Args:
        weight_decay: decoupled decay. Keras's attribute of this name stays unset, since Keras would apply the decay again.
        decay_biases: True if `l2` and `weight_decay` also act on the variables of `NO_WEIGHT_DECAY`.
        clip_norm: the gradients of one `apply`, summed over the replicas, are scaled down to this L2 norm; 0 for no limit.

    Attributes:
        lr_multipliers: factor on the learning rate of each variable, in the order of `build`.
    """

    def __init__(
        self,
        learning_rate: float,
        *,
        l2: float = 0.0,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
        clip_norm: float = 0.0,
        name: str = "optimizer",
    ):
        super().__init__(learning_rate=learning_rate, name=name)
        self.l2 = l2
        self.decoupled_decay = weight_decay
        self.decay_biases = decay_biases
        self.clip_norm = clip_norm
        self.lr_multipliers: Sequence[float] = ()

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the slots of `variables`, with learning-rate multipliers of 1."""
        if self.built:
            return
        super().build(list(variables))
        self.lr_multipliers = [1.0] * len(variables)
        self._decays = [self.decay_biases or has_weight_decay(variable) for variable in variables]

    def _all_reduce_sum_gradients(self, pairs: Any) -> Any:
        # Keras clips before this hook, when each replica has its own gradient.
        pairs = super()._all_reduce_sum_gradients(pairs)
        if not self.clip_norm:
            return pairs
        norm = ops.sqrt(2 * sum(tf.nn.l2_loss(ops.cast(gradient, "float32")) for gradient, _ in pairs))
        factor = ops.minimum(self.clip_norm / (norm + CLIP_EPSILON), 1.0)
        return [(ops.cast(gradient, variable.dtype) * ops.cast(factor, variable.dtype), variable) for gradient, variable in pairs]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # The TensorFlow backend passes a raw tf.Variable without a path: the index is the only usable key.
        index = self._get_variable_index(variable)
        learning_rate = ops.cast(learning_rate, variable.dtype) * self.lr_multipliers[index]
        decay, l2 = (self.decoupled_decay, self.l2) if self._decays[index] else (0.0, 0.0)
        if gradient.dtype != variable.dtype:
            slots = [slot.value for slot in self.slots_of(index)]
            self._compiled_update(variable, slots, gradient, learning_rate, decay, l2)
            return
        if decay:
            self.assign(variable, variable * (1 - learning_rate * decay))
        if l2:
            gradient = gradient + l2 * variable
        self.apply_kernel(index, variable, gradient, learning_rate)

    @cached_property
    def _compiled_update(self) -> Any:
        """The whole update of a variable by a gradient of another dtype, in one pass. Variables of one shape share what is compiled."""

        @tf.function(jit_compile=True, autograph=False)
        def update(
            variable: tf.Variable,
            slots: Sequence[tf.Variable],
            gradient: tf.Tensor,
            learning_rate: tf.Tensor,
            decay: float,
            l2: float,
        ) -> None:
            decayed = variable * (1 - learning_rate * decay) if decay else variable
            gradient = tf.cast(gradient, variable.dtype)
            step, new_slots = self.formula(gradient + l2 * decayed if l2 else gradient, slots)
            variable.assign(decayed - learning_rate * step)
            for slot, value in zip(slots, new_slots, strict=True):
                slot.assign(value)

        return update

    def apply_kernel(self, index: int, variable: tf.Variable, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        """Update `variable`, the one of `index`, and its slots in one kernel."""
        raise NotImplementedError

    def formula(self, gradient: Any, slots: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        """Return the update of a variable before the learning rate, and the new values of its `slots`, which are as in `slots_of`."""
        raise NotImplementedError

    def compute_update(self, index: int, gradient: Any) -> Any:
        """Return the update of variable `index` before the learning rate, and update its slots.

        It is for learning rates that differ within a variable, which no kernel has.
        """
        slots = self.slots_of(index)
        update, values = self.formula(gradient, slots)
        for slot, value in zip(slots, values, strict=True):
            self.assign(slot, value)
        return update

    def slots_of(self, index: int) -> Sequence[keras.Variable]:
        """Return the moments of variable `index`, and the number of its steps if the optimizer counts them."""
        raise NotImplementedError

    @property
    def slots(self) -> Sequence[keras.Variable]:
        """The slots of all variables."""
        return [slot for index in range(len(self._decays)) for slot in self.slots_of(index)]

    def reset_slots(self) -> None:
        """Set all slots to zero, as in a new optimizer. The learning rate stays."""
        for slot in self.slots:
            slot.assign(ops.zeros_like(slot))


class SGD(_TorchOptimizer):
    """torch.optim.SGD: `v = momentum * v + g`, update `v`, or `g + momentum * v` with Nesterov."""

    def __init__(self, learning_rate: float, *, momentum: float = 0.0, nesterov: bool = False, **settings: Any):
        super().__init__(learning_rate, name="sgd", **settings)
        self.momentum = momentum
        self.nesterov = nesterov

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(list(variables), "velocity") if self.momentum else []

    def slots_of(self, index: int) -> Sequence[keras.Variable]:
        return [self._velocities[index]] if self.momentum else []

    def apply_kernel(self, index: int, variable: tf.Variable, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=learning_rate, delta=gradient)
            return
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self._velocities[index].value.handle,
            lr=learning_rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )

    def formula(self, gradient: Any, slots: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        if not slots:
            return gradient, []
        velocity = self.momentum * slots[0] + gradient
        return gradient + self.momentum * velocity if self.nesterov else velocity, [velocity]


class Adam(_TorchOptimizer):
    """torch.optim.Adam (Kingma and Ba 2015), or AdamW (Loshchilov and Hutter 2019) with decoupled decay.

    The bias correction counts the steps of each variable separately, as in PyTorch. With one count, the first step of a variable
    that is unfrozen late would be three times too large.
    """

    BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._first_moments, self._second_moments = self.add_optimizer_variables(list(variables), ["mean", "square"])
        self._steps = [self.add_variable(shape=(), dtype="float32", name=f"step_{index}") for index in range(len(variables))]

    def slots_of(self, index: int) -> Sequence[keras.Variable]:
        return [self._first_moments[index], self._second_moments[index], self._steps[index]]

    def apply_kernel(self, index: int, variable: tf.Variable, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        step = self._steps[index] + 1.0
        self.assign(self._steps[index], step)
        # The kernel computes 1 - beta in float32, so the bias correction has the beta of float32 as well. Its own correction is off, as it
        # has no expm1, and adds epsilon before dividing by the root; torch adds it after that.
        beta_1, beta_2 = (float(np.float32(beta)) for beta in (self.BETA_1, self.BETA_2))
        first, root = _one_minus_power(beta_1, step), ops.sqrt(_one_minus_power(beta_2, step))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._first_moments[index].value.handle,
            v=self._second_moments[index].value.handle,
            beta1_power=0.0,
            beta2_power=0.0,
            lr=learning_rate * root / first,
            beta1=self.BETA_1,
            beta2=self.BETA_2,
            epsilon=self.EPSILON * root,
            grad=gradient,
        )

    def formula(self, gradient: Any, slots: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        mean, square, step = slots
        step = step + 1.0
        mean = self.BETA_1 * mean + (1 - self.BETA_1) * gradient
        square = self.BETA_2 * square + (1 - self.BETA_2) * ops.square(gradient)
        root = ops.sqrt(square / _one_minus_power(self.BETA_2, step)) + self.EPSILON
        return mean / _one_minus_power(self.BETA_1, step) / root, [mean, square, step]


def _one_minus_power(beta: float, step: Any) -> Any:
    """Return 1 - beta^step. In float32 the plain difference has a relative error of 1e-4 in the first steps."""
    return -ops.expm1(step * math.log(beta))


def has_weight_decay(variable: keras.Variable) -> bool:
    """Return True if `variable` is a kernel: at least a matrix, and not in `NO_WEIGHT_DECAY`."""
    return len(variable.shape) > 1 and NO_WEIGHT_DECAY.isdisjoint(variable.path.split("/"))


def build_optimizer(config: TrainConfig) -> _TorchOptimizer:
    """Return the optimizer that `config` names, not yet built on variables."""
    settings: dict[str, Any] = {
        "l2": config.l2,
        "weight_decay": config.weight_decay,
        "decay_biases": config.decay_biases,
        "clip_norm": config.clip_norm,
    }
    if config.optimizer == "sgd":
        return SGD(config.learning_rate, momentum=config.momentum, nesterov=config.nesterov, **settings)
    return Adam(config.learning_rate, name=config.optimizer, **settings)
