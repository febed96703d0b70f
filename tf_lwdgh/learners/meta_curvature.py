# SPDX-License-Identifier: Apache-2.0
"""Meta-Curvature (Park & Oliva 2019): inner gradients are multiplied by learned matrices first.

θ' = θ − α MC(∇L_S(θ)). A kernel's gradient G is a tensor over its positions (a 3×3 kernel has 9),
its input and its output channels, and MC multiplies it by a matrix along each:
  MC(G)[p, i, o] = Σ P[p, p'] I[i, i'] O[o, o'] G[p', i', o'];
a vector's gradient (biases, BatchNorm) is multiplied by a vector, element by element. All start as
identities, with which it is MAML.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.gradient_learner import GradientLearner
from tf_lwdgh.learners.inner_loop import Update
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Meta, Published, Tensors

MODES = ("positions", "in", "out")  # of a kernel's tensor; a matrix each


@config.configurable
@dataclasses.dataclass(frozen=True)
class MetaCurvature(GradientLearner):
    """The learner.

    It owns 'curvature/<variable>/positions', '…/in' and '…/out' (of a vector,
    'curvature/<variable>'), for all variables that move: those whose InnerLoop.inner_lr is above 0,
    BatchNorm's only with InnerLoop.adapt_batch_norm.

    Attributes:
      harmonize_curvature: whether the aggregator treats the matrices' gradients as it does the
        network's; else they get the tasks' mean.
    """

    harmonize_curvature: bool = False

    reference: ClassVar[str] = "Park, Oliva: Meta-Curvature, NeurIPS 2019"
    equation: ClassVar[str] = "θ_{s+1} = θ_s − α MC(∇L_S(θ_s)), MC a product with a matrix a mode"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "54.08 ± 0.93", "a secondary table"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "67.99 ± 0.73", "a secondary table"),
    )
    traps: ClassVar[str] = (
        "The head's input matrix has the square of its inputs: 640,000 numbers for Convnet4 with "
        "32 filters at 84×84. The head's output matrix mixes classes, whose order then matters, "
        "and a task can't have more ways than the head. The authors' code for mini-ImageNet was "
        "announced and not found: rate and steps are MAML's, by choice of ours."
    )

    @property
    def any_way(self) -> bool:
        """No: the head's matrices are learned for its ways."""
        return False

    def own(self, model: FunctionalModel) -> Sequence[OwnParameter]:
        return [
            OwnParameter(
                factor,
                initial,
                layer=f"curvature/{model.layer_names[i]}",
                harmonized=self.harmonize_curvature and not model.is_idle[i],
            )
            for i, (rate, variable) in enumerate(zip(self.rates(model), model.values()))
            if rate
            for factor, initial in identities(model.names[i], variable).items()
        ]

    def update(self, context: Context, meta: Meta, moving: Sequence[int]) -> Update:
        rates = self.rates(context.model)
        counts = [len(self._factors(context, meta, i)) for i in moving]

        def update(velocities: Tensors, given: Tensors) -> Tensors:
            rest = iter(given)
            factors = [[next(rest) for _ in range(count)] for count in counts]
            return [rates[i] * curved(v, f) for i, v, f in zip(moving, velocities, factors)]

        return update

    def inputs(self, context: Context, meta: Meta, moving: Sequence[int], step: int) -> Tensors:
        """The factors of all moving variables, one after the other."""
        return [factor for i in moving for factor in self._factors(context, meta, i)]

    @staticmethod
    def _factors(context: Context, meta: Meta, i: int) -> Tensors:
        """The factors of a variable: positions (if there are several), in, out; or the vector."""
        model = context.model
        name = f"curvature/{model.names[i]}"
        if name in meta.own:
            vector = meta.own[name]
            return [vector[: context.n_way] if model.is_head[i] else vector]
        found = [meta.own[f"{name}/{m}"] for m in MODES if f"{name}/{m}" in meta.own]
        if model.is_head[i]:
            found[-1] = found[-1][: context.n_way, : context.n_way]
        return found


def identities(name: str, variable: tf.Tensor) -> dict[str, tf.Tensor]:
    """The factors of a variable at the start by name; none for a single position.

    Args:
      name: the variable's.
      variable: [*positions, I, O] or [C].
    """
    shape, dtype = variable.shape, variable.dtype
    if len(shape) < 2:
        return {f"curvature/{name}": tf.ones(shape, dtype)}
    sizes = dict(zip(MODES, (math.prod(shape[:-2]), *shape[-2:])))
    return {
        f"curvature/{name}/{mode}": tf.eye(size, dtype=dtype)
        for mode, size in sizes.items()
        if mode != "positions" or size > 1
    }


def curved(gradient: tf.Tensor, factors: Tensors) -> tf.Tensor:
    """MC of a gradient.

    Args:
      gradient: [*positions, I, O] or [C].
      factors: positions [P, P] (where P > 1), in [I, I] and out [O, O]; or a vector [C].

    Returns:
      Of the gradient's shape.
    """
    if len(gradient.shape) < 2:
        return factors[0] * gradient
    *positions, inward, outward = factors
    result = tf.matmul(tf.matmul(inward, gradient), outward, transpose_b=True)
    if not positions:
        return result
    rows = tf.reshape(result, [positions[0].shape[0], -1])
    return tf.reshape(tf.matmul(positions[0], rows), tf.shape(gradient))
