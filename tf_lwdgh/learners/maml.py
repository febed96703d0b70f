# SPDX-License-Identifier: Apache-2.0
"""MAML (Finn et al. 2017): an initialisation from which a few gradient steps learn a task.

The outer loss of a task is L_Q(θ'), θ' the parameters after the inner loop on the support set.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tf_lwdgh import config
from tf_lwdgh.learners.gradient_learner import GradientLearner
from tf_lwdgh.types import Published


@config.configurable
@dataclasses.dataclass(frozen=True)
class MAML(GradientLearner):
    """The learner; first order with InnerLoop.second_order = False."""

    reference: ClassVar[str] = "Finn, Abbeel, Levine: Model-Agnostic Meta-Learning, ICML 2017"
    equation: ClassVar[str] = "θ_{s+1} = θ_s − α∇L_S(θ_s); outer gradient ∂L_Q(θ_S)/∂θ_0"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "48.70 ± 1.84", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "63.11 ± 0.92", "the paper"),
    )
    traps: ClassVar[str] = (
        "The original code sums the support losses and divides by the shots, so that its α of 0.01 is "
        "0.05 here at 5-way; and it tests with as many queries a class as shots, not 15."
    )
