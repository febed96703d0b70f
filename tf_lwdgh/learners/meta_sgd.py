# SPDX-License-Identifier: Apache-2.0
"""Meta-SGD (Li et al. 2017): the inner rate is learned, one for every parameter, of either sign.

One step is φ = θ − a∘∇L_S(θ), so that ∂L_Q(φ)/∂a = −∇L_S(θ)∘∇L_Q(φ). With all a = α it is MAML.
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
from tf_lwdgh.types import Meta, Published, Tensors, stream_key

INIT = ("uniform", "constant")


@config.configurable
@dataclasses.dataclass(frozen=True)
class MetaSGD(GradientLearner):
    """The learner. It owns 'inner_lr/<variable>', of the variable's shape, for all that move.

    Which variables move, InnerLoop says: those whose inner_lr is above 0, BatchNorm's only with
    adapt_batch_norm. The rates are trained by the same optimizer as the network.

    Attributes:
      init: the rates at the start: 'uniform' in init_range, or 'constant' at InnerLoop.inner_lr.
      init_range: the bounds for 'uniform'. (0.005, 0.1) is said to be the paper's, which we could
        not verify; other code starts all at 0.001 or at 1.
      seed: of the uniform rates.
      harmonize_rates: whether the aggregator treats the rates' gradients as it does the network's;
        else they get the tasks' mean.
    """

    init: str = "uniform"
    init_range: tuple[float, float] = (0.005, 0.1)
    seed: int = 0
    harmonize_rates: bool = False

    reference: ClassVar[str] = "Li, Zhou, Chen, Li: Meta-SGD: Learning to Learn Quickly, 2017"
    equation: ClassVar[str] = "θ_{s+1} = θ_s − a∘∇L_S(θ_s), a learned for every parameter"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "50.47 ± 1.87", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "64.03 ± 0.94", "the paper"),
        Published("mini-ImageNet 5-way 1-shot, Convnet4, 64 filters", "49.1", "jik0730's code"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4, 64 filters", "66.0", "jik0730's code"),
    )
    traps: ClassVar[str] = (
        "Twice the parameters to train and store. The head's rates are learned class by class, so "
        "a task can't have more ways than the head, and the order of its classes matters, with a "
        "head at zero too. Code that learns one scalar for all (foolyc's) is not this method."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("init", self.init in INIT, f"must be one of {', '.join(INIT)}")
        bounds = tuple(self.init_range)
        fits = len(bounds) == 2 and -math.inf < bounds[0] <= bounds[1] < math.inf
        self.require("init_range", fits, "must be two numbers, the smaller one first")

    @property
    def any_way(self) -> bool:
        """No: the head's rates are learned for its ways."""
        return False

    def own(self, model: FunctionalModel) -> Sequence[OwnParameter]:
        # A variable that batch statistics cancel has rates too: with averages it does move.
        return [
            OwnParameter(
                f"inner_lr/{name}",
                self._initial(name, rate, variable),
                harmonized=self.harmonize_rates and not idle,
            )
            for name, rate, variable, idle in zip(model.names, self.rates(model), model.values(), model.is_idle)
            if rate
        ]

    def _initial(self, name: str, rate: float, variable: tf.Tensor) -> tf.Tensor:
        if self.init == "constant":
            return tf.fill(variable.shape, tf.constant(rate, variable.dtype))
        key = stream_key(self.seed, "MetaSGD", name)
        low, high = self.init_range
        return tf.random.stateless_uniform(variable.shape, key, low, high, variable.dtype, alg="philox")

    def update(self, context: Context, meta: Meta, moving: Sequence[int]) -> Update:
        return lambda velocities, rates: [rate * v for rate, v in zip(rates, velocities)]

    def inputs(self, context: Context, meta: Meta, moving: Sequence[int], step: int) -> Tensors:
        """The rates, [*shape] a moving variable; the head's for the task's ways."""
        model = context.model
        rates = [meta.own[f"inner_lr/{model.names[i]}"] for i in moving]
        if context.n_way is None:
            return rates
        ways = context.n_way
        return [r[..., :ways] if model.is_head[i] else r for i, r in zip(moving, rates)]
