# SPDX-License-Identifier: Apache-2.0
"""The inner loop: adapts parameters to one task's support set by a few gradient steps.

MAML (Finn et al. 2017): θ_{s+1} = θ_s - α ∇L_S(θ_s), here with momentum and weight decay as settings:
  v_{s+1} = μ v_s + ∇L_S(θ_s) + λ θ_s,   θ_{s+1} = θ_s - α v_{s+1}.
With sharpness ρ the gradient is taken at θ_s + ρ g/‖g‖, g = ∇L_S(θ_s) (Sharp-MAML, Abbas et al. 2022).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.types import Tensors

Loss = Callable[[Tensors, Tensors], tf.Tensor]  # (parameters, the step's inputs) -> a scalar
# (velocities, the step's inputs) -> what is subtracted; with slots: (…, slots) -> (that, new slots)
# where it sees the step: (…, slots, Seen) -> (that, new slots)
Update = Callable[..., Any]
MEMORY = ("store", "recompute")

_inline = False


class Seen(NamedTuple):
    """What an update may be told of its step beside the velocities."""

    loss: tf.Tensor  # scalar: the support loss before the step
    params: Tensors  # the moving parameters before the step


@contextlib.contextmanager
def inline_steps() -> Iterator[None]:
    """Within it every inner step is traced into the graph, and not once as a function of its own.

    XLA takes what one function hands to the next for values that shapes depend on, and would compile
    the whole anew at every call. Not thread-safe.
    """
    global _inline
    before, _inline = _inline, True
    try:
        yield
    finally:
        _inline = before


@config.configurable
@dataclasses.dataclass(frozen=True)
class InnerLoop:
    """Settings of the inner loop.

    Attributes:
      steps: gradient steps, at least 0.
      inner_lr: the rate α; or a mapping from regular expressions on variable names ('conv1/kernel',
        'head/bias') to rates, of which the last that matches a name counts. Variables of rate 0, or
        that no expression matches, stay where they are.
      momentum: μ in [0, 1).
      weight_decay: λ >= 0.
      second_order: whether the outer gradient goes through the inner gradients (MAML) or takes them as
        constants (first-order MAML).
      adapt_batch_norm: whether BatchNorm's scales and offsets move.
      memory: 'store' keeps every step's activations for the outer gradient; 'recompute' keeps only the
        parameters of each step and computes the activations again, one step at a time.
      loss_scale: the loss is multiplied and its gradient divided by it, so that gradients in float16
        don't vanish; a power of 2 loses nothing.
      sharpness: ρ >= 0: each gradient is taken ρ uphill along the gradient, a constant to the outer
        gradient; 0 leaves it out. Costs one gradient more a step.
    """

    steps: int = 5
    inner_lr: float | Mapping[str, float] = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    second_order: bool = True
    adapt_batch_norm: bool = False
    memory: str = "store"
    loss_scale: float = 1.0
    sharpness: float = 0.0

    def __post_init__(self) -> None:
        rates = self._patterns().values()
        checks = (
            ("steps", self.steps >= 0, "must be at least 0"),
            ("inner_lr", len(rates) > 0, "must be a rate or a mapping with at least one"),
            ("inner_lr", all(math.isfinite(r) and r >= 0 for r in rates), "must be >= 0, finite"),
            ("momentum", 0 <= self.momentum < 1, "must be in [0, 1)"),
            ("weight_decay", self.weight_decay >= 0, "must be >= 0"),
            ("loss_scale", 0 < self.loss_scale < math.inf, "must be > 0, finite"),
            ("sharpness", 0 <= self.sharpness < math.inf, "must be >= 0, finite"),
            ("memory", self.memory in MEMORY, f"must be one of {', '.join(MEMORY)}"),
        )
        for name, holds, rule in checks:
            if not holds:
                value = getattr(self, name)
                raise ValueError(f"InnerLoop.{name} {rule}. Received: {value!r}.")

    def _patterns(self) -> Mapping[str, float]:
        return self.inner_lr if isinstance(self.inner_lr, Mapping) else {".*": self.inner_lr}

    def rates(self, names: Sequence[str], is_batch_norm: Sequence[bool]) -> list[float]:
        """The rate of each variable.

        Args:
          names: a name a variable.
          is_batch_norm: whether each is a BatchNorm's.

        Raises:
          ValueError: an expression matches no variable.
        """
        rates = [0.0] * len(names)
        for pattern, rate in self._patterns().items():
            matches = [i for i, name in enumerate(names) if re.search(pattern, name)]
            if not matches:
                raise ValueError(
                    "InnerLoop.inner_lr: every expression must match a variable. "
                    f"Received: {pattern!r}; the variables are {', '.join(names)}."
                )
            for i in matches:
                rates[i] = float(rate)
        frozen = [norm and not self.adapt_batch_norm for norm in is_batch_norm]
        return [0.0 if stays else rate for rate, stays in zip(rates, frozen)]


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one of the graph, however often it is called; see `inline_steps`."""
    if _inline:
        return function
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def by_rates(rates: Sequence[float | tf.Tensor]) -> Update:
    """Plain gradient descent: each velocity times its rate.

    Args:
      rates: one a moving variable.
    """
    return lambda velocities, _: [rate * v for rate, v in zip(rates, velocities)]


def adapt(
    loss: Loss,
    params: Tensors,
    *,
    settings: InnerLoop,
    moving: Sequence[int],
    update: Update,
    inputs: Callable[[int], Tensors] = lambda step: [],
    slots: Sequence[tf.Tensor] = (),
    steps: int | None = None,
    differentiable: bool = True,
    order: tf.Tensor | None = None,
    sees: bool = False,
) -> list[Tensors]:
    """Adapts parameters to a loss; a pure function, differentiable in `params` and `inputs`.

    Args:
      loss: the support loss, a scalar function of all parameters and of the step's inputs.
      params: one tensor a variable.
      settings: momentum, decay, order and memory.
      moving: the positions of the parameters that move; the others are returned as they came.
      update: from the moving parameters' velocities, and the step's inputs, to what is subtracted; where
        there are slots, also from them, and to their new values.
      inputs: what a step needs beside the parameters, that the outer gradient shall reach: tensors, of
        the same shapes at every step. (What `loss` captures is not reached with memory='recompute'.)
      slots: what the update keeps from step to step, before the first.
      steps: overrides `settings.steps`.
      differentiable: False where no outer gradient is wanted (evaluation, serving).
      order: scalar, 1 or 0: whether the outer gradient goes through the inner gradients at this
        meta-step, where that anneals; overrides `settings.second_order`.
      sees: whether the update, which then has slots, is given a `Seen` after them.

    Returns:
      The parameters before the first step and after each: steps + 1 lists of one tensor a variable.
    """
    steps = settings.steps if steps is None else steps
    if steps == 0 or not moving:
        return [list(params)] * (steps + 1)

    def one(carry: Tensors, given: Tensors) -> Tensors:
        kind = update, len(slots), sees
        return _step(loss, carry, given, settings, list(moving), kind, order)

    step = traced_once(one)
    if differentiable and settings.memory == "recompute":
        step = _recomputed(step)
    carry = [*params, *(tf.zeros_like(params[i]) for i in moving), *slots]
    states = [carry]
    for s in range(steps):
        states.append(step(states[-1], inputs(s)))
    return [state[: len(params)] for state in states]


def _step(
    loss: Loss,
    carry: Tensors,
    given: Tensors,
    settings: InnerLoop,
    moving: Sequence[int],
    kind: tuple[Update, int, bool],
    order: tf.Tensor | None,
) -> Tensors:
    """One step from and to a carry: all parameters, the velocities of the moving ones, the slots."""
    update, n_slots, sees = kind
    end = len(carry) - n_slots
    count = end - len(moving)
    params, velocity, slots = list(carry[:count]), carry[count:end], carry[end:]
    at = [params[i] for i in moving]
    value, gradients = _gradients(loss, params, given, moving, settings.loss_scale)
    if settings.sharpness:
        uphill = _uphill(gradients, settings.sharpness)
        shifted = list(params)
        for i, p, e in zip(moving, at, uphill):
            shifted[i] = p + e
        _, gradients = _gradients(loss, shifted, given, moving, settings.loss_scale)
    if order is not None:
        gradients = [order * g + (1 - order) * tf.stop_gradient(g) for g in gradients]
    elif not settings.second_order:
        gradients = [tf.stop_gradient(g) for g in gradients]
    if settings.weight_decay:
        gradients = [g + settings.weight_decay * p for g, p in zip(gradients, at)]
    if settings.momentum:
        velocity = gradients = [settings.momentum * v + g for v, g in zip(velocity, gradients)]
    told = [Seen(value, at)] if sees else []
    found = update(gradients, given, *([slots] if n_slots else []), *told)
    changes, slots = found if n_slots else (found, [])
    for i, p, change in zip(moving, at, changes):
        params[i] = p - change
    return [*params, *velocity, *slots]


def _gradients(
    loss: Loss, params: Tensors, given: Tensors, moving: Sequence[int], scale: float
) -> tuple[tf.Tensor, Tensors]:
    """The loss, and its gradient in the moving parameters."""
    at = [params[i] for i in moving]
    with tf.GradientTape() as tape:
        tape.watch(at)
        value = scale * loss(params, given)
    gradients = tape.gradient(value, at, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    if scale == 1:
        return value, gradients
    return value / scale, [g / scale for g in gradients]


def _uphill(gradients: Tensors, distance: float) -> Tensors:
    """ρ g/‖g‖ over all variables together, a constant; 0 where the gradient is."""
    gradients = [tf.stop_gradient(g) for g in gradients]
    norm = tf.linalg.global_norm(gradients)
    return [tf.math.divide_no_nan(distance * g, norm) for g in gradients]


def _recomputed(
    step: Callable[[Tensors, Tensors], Tensors],
) -> Callable[[Tensors, Tensors], Tensors]:
    """The step, keeping nothing but its carry for the outer gradient.

    With c_s the carry before step s and F the step, the outer gradient is the sweep
    v_s = (∂F/∂c at c_s)ᵀ v_{s+1}; for plain gradient descent these are the Hessian-vector products
    v_s = v_{s+1} - α ∇²L_S(θ_s) v_{s+1}. Each is built from c_s when v_{s+1} is known, then freed.
    """

    def through(carry: Tensors, given: Tensors) -> Tensors:
        count = len(carry)

        @tf.custom_gradient
        def run(*everything):
            kept = [tf.stop_gradient(c) for c in everything]

            def backward(*cotangents):
                with tf.control_dependencies(cotangents):
                    again = [tf.identity(c) for c in kept]
                with tf.GradientTape() as tape:
                    tape.watch(again)
                    new = step(again[:count], again[count:])
                zero = tf.UnconnectedGradients.ZERO
                return tape.gradient(new, again, output_gradients=cotangents, unconnected_gradients=zero)

            return step(kept[:count], kept[count:]), backward

        return list(run(*carry, *given))

    return through
