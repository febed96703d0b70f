# SPDX-License-Identifier: Apache-2.0
"""First-order MAML (Finn et al. 2017): the outer gradient takes the inner gradients as constants.

With θ' the parameters after the inner loop, the outer gradient is g = ∇L_Q at θ'. MAML's, for one
step, is (I − αH_S)·g, with H_S the support loss's Hessian at θ.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tf_lwdgh import config
from tf_lwdgh.learners.gradient_learner import GradientLearner
from tf_lwdgh.types import Published


@config.configurable
@dataclasses.dataclass(frozen=True)
class FOMAML(GradientLearner):
    """The learner; of first order whatever InnerLoop.second_order says."""

    reference: ClassVar[str] = "Finn, Abbeel, Levine: Model-Agnostic Meta-Learning, ICML 2017"
    equation: ClassVar[str] = "θ_{s+1} = θ_s − α∇L_S(θ_s); outer gradient ∇L_Q at θ_S"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "48.07 ± 1.75", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "63.15 ± 0.91", "the paper"),
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "48.67", "haebeom-lee/maml, a re-run"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "64.71", "haebeom-lee/maml, a re-run"),
    )
    traps: ClassVar[str] = (
        "The inner rate has MAML's trap: the original code's α of 0.01 is 0.05 here at 5-way. "
        "Learned rates (Meta-SGD, MAML++) have a gradient in first order too: only what goes "
        "through the inner gradients is left out."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        first_order = dataclasses.replace(self.inner_loop, second_order=False)
        object.__setattr__(self, "inner_loop", first_order)
