# SPDX-License-Identifier: Apache-2.0
"""TAML (Jamal & Qi 2019): MAML whose initialisation favours no task.

By entropy, with H the mean entropy of the predicted probabilities, a task's objective is
  L_Q(φ) + λ[−H(f_θ) + H(f_φ)]:
undecided before adaptation, decided after. By inequality, over the M tasks of a meta-batch,
  (1/M) Σ L_Q(φ_i) + λ I(ℓ_1, …, ℓ_M),  ℓ_i task i's loss at θ, before adaptation;
since the aggregator takes a mean of tasks, a task's gradient is ∇L_Q(φ_i) + λ M (∂I/∂ℓ_i) ∇ℓ_i.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners import inequality
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.gradient_learner import GradientLearner
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.networks.functional import Prepared
from tf_lwdgh.types import Episode, Meta, Published, TaskResult, Tensors

VARIANTS = ("entropy", "inequality")
SETS = ("support", "query")


@config.configurable
@dataclasses.dataclass(frozen=True)
class TAML(GradientLearner):
    """The learner.

    Attributes:
      variant: 'entropy' or 'inequality'.
      weight: λ >= 0; 0 is MAML.
      before_on: which images the terms of θ are of, H(f_θ) or ℓ: 'support' or 'query'.
      after_on: which images H(f_φ) is of.
      measure: of inequality: 'theil', 'generalised_entropy', 'atkinson', 'gini' or
        'variance_of_logs'.
      exponent: a of the generalised entropy.
      aversion: ε >= 0 of Atkinson's.
    """

    variant: str = "entropy"
    weight: float = 0.05
    before_on: str = "support"
    after_on: str = "query"
    measure: str = "theil"
    exponent: float = 2.0
    aversion: float = 0.5

    reference: ClassVar[str] = "Jamal, Qi: Task Agnostic Meta-Learning for Few-Shot Learning, CVPR 2019"
    equation: ClassVar[str] = "L_Q(φ) + λ[−H(f_θ) + H(f_φ)], or mean L_Q(φ_i) + λ I(ℓ_1 … ℓ_M)"
    published: ClassVar[tuple[Published, ...]] = (
        Published(
            "mini-ImageNet 5-way 1-shot, Convnet4, the best variant",
            "51.73 ± 1.88",
            "secondary tables",
        ),
        Published(
            "mini-ImageNet 5-way 5-shot, Convnet4, the best variant",
            "66.05 ± 0.85",
            "secondary tables",
        ),
        Published(
            "mini-ImageNet 5-way 1-shot, Convnet4",
            "46.28 ± 0.79",
            "Table 1 of the LWDGH paper; where it comes from is unknown",
        ),
    )
    traps: ClassVar[str] = (
        "The formulas are from a digest of the paper. Whether the terms of θ and of φ are of the "
        "support or the query set could not be found out: our choice is θ's on the support set and "
        "φ's on the queries (before_on, after_on). λ is tuned, 0.01 to 1, and 0.05 is from other "
        "people's code, which feeds the inequality the losses after adaptation. The inner loop's "
        "settings are taken to be MAML's. With one task a meta-batch there is no inequality."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {
            "variant": VARIANTS,
            "before_on": SETS,
            "after_on": SETS,
            "measure": inequality.MEASURES,
        }
        for name, known in choices.items():
            self.require(name, getattr(self, name) in known, f"must be one of {', '.join(known)}")
        for name in ("weight", "aversion"):
            self.require(name, 0 <= getattr(self, name) < math.inf, "must be >= 0, finite")
        self.require("exponent", math.isfinite(self.exponent), "must be finite")

    @property
    def couples(self) -> bool:
        """Whether a task's objective depends on the other tasks."""
        return self.variant == "inequality"

    def objective(self, context: Context, meta: Meta, episode: Episode) -> TaskResult:
        """The query loss and the variant's terms."""
        support = context.model.prepare(episode.support_images)
        path = self.trajectory(context, meta, support, episode.support_labels)
        adapted = self.adapted(context, meta, path[-1], support)
        logits, state = self.predict(context, meta, adapted, episode.query_images)
        loss = cross_entropy(logits, episode.query_labels)
        if self.couples:
            extra = context.coupling * self._first_loss(context, meta, path[0], support, episode)
        else:
            before, _ = self._logits(context, meta, path[0], support, episode, self.before_on)
            after = logits
            if self.after_on == "support":
                after, _ = self.apply_to_support(context, meta, path[-1], support)
            extra = self.weight * (mean_entropy(after) - mean_entropy(before))
        return TaskResult(loss + extra, loss, logits, state)

    def scalar(self, context: Context, meta: Meta, episode: Episode) -> tf.Tensor:
        """ℓ, the task's loss before adaptation."""
        support = context.model.prepare(episode.support_images)
        start = self.start(context, meta, support, episode.support_labels)
        return self._first_loss(context, meta, start, support, episode)

    def couple(self, scalars: tf.Tensor, context: Context) -> tf.Tensor:
        """λ M ∂I/∂ℓ_i of each task: [M] -> [M]."""
        slopes = inequality.gradient(self.measure, scalars, exponent=self.exponent, aversion=self.aversion)
        return self.weight * tf.cast(tf.size(scalars), scalars.dtype) * slopes

    def _first_loss(
        self, context: Context, meta: Meta, start: Tensors, support: Prepared, episode: Episode
    ) -> tf.Tensor:
        return cross_entropy(*self._logits(context, meta, start, support, episode, self.before_on))

    def _logits(
        self, context: Context, meta: Meta, params: Tensors, support: Prepared, episode: Episode,
        images: str,
    ) -> tuple[tf.Tensor, tf.Tensor]:  # fmt: skip
        """The logits of one set, and its labels."""
        if images == "support":
            logits, _ = self.apply_to_support(context, meta, params, support)
            return logits, episode.support_labels
        adapted = self.adapted(context, meta, params, support)
        return self.predict(context, meta, adapted, episode.query_images)[0], episode.query_labels


def mean_entropy(logits: tf.Tensor) -> tf.Tensor:
    """The mean over examples of −Σ p ln p in nats: [B, N] -> scalar."""
    log_p = tf.nn.log_softmax(logits)
    return -tf.reduce_mean(tf.reduce_sum(tf.exp(log_p) * log_p, -1))
