# SPDX-License-Identifier: Apache-2.0
"""BOIL (Oh et al. 2021), body only in the inner loop: a task changes the features, never the head.

The head is trained by the outer loop alone, and is the same for every task, bit for bit.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tf_lwdgh import config
from tf_lwdgh.learners.gradient_learner import GradientLearner
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Published


@config.configurable
@dataclasses.dataclass(frozen=True)
class BOIL(GradientLearner):
    """The learner. The head's rate is 0 whatever InnerLoop.inner_lr says.

    The authors' code takes one step at rate 0.5 (of the mean cross-entropy, as here), at test too,
    and moves BatchNorm's scales and offsets with the body: InnerLoop.adapt_batch_norm = True. Its
    network has 64 filters: convnet4.filters = 64.
    """

    reference: ClassVar[str] = "Oh, Yoo, Kim, Yun: BOIL: Towards Representation Change, ICLR 2021"
    equation: ClassVar[str] = "θ_{s+1} = θ_s − α∇_θ L_S(θ_s, w), w the head; ∂L_Q(θ_S, w)/∂(θ_0, w)"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "49.61 ± 0.16", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "66.45 ± 0.37", "the paper"),
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "47.92", "LibFewShot"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "64.39", "LibFewShot"),
    )
    traps: ClassVar[str] = (
        "The paper's ± is a deviation over 5 runs, not an interval over tasks. A head at zero "
        "gives the body no gradient, so it can't start there. LibFewShot's (as read) looks for "
        "'Linear' in the variables' names, finds none, and adapts the head too."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "must be 'learned': a head at zero that never moves gives the body no gradient"
        self.require("head", self.head == "learned", rule)

    def rates(self, model: FunctionalModel) -> list[float]:
        return [0.0 if head else rate for rate, head in zip(super().rates(model), model.is_head)]

    def check(self, model: FunctionalModel, steps: int | None = None) -> None:
        if not any(self.rates(model)):
            raise ValueError(
                "InnerLoop.inner_lr must be above 0 for a variable of the body, since BOIL moves "
                f"nothing else. Received: InnerLoop.inner_lr = {self.inner_loop.inner_lr!r}."
            )
