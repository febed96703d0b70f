# SPDX-License-Identifier: Apache-2.0
"""Logistic regression on frozen features (Tian et al. 2020): the minimum, not some steps towards it."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners import softmax_regression
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.head_learner import HeadLearner
from tf_lwdgh.types import Meta, Published


@config.configurable
@dataclasses.dataclass(frozen=True)
class LogisticRegression(HeadLearner):
    """The learner: a Classifier in training; at test softmax regression of features of length 1.

    Attributes:
      c: > 0: the weight of the support losses' sum against ½‖W‖²; 1, scikit-learn's default, as in the
        authors' code.
      normalise: whether features are brought to length 1.
      tolerance: > 0: no entry of the gradient is larger at the end; scikit-learn's default.
      most_steps: Newton steps, at least 1, after which it ends in any case; a handful is usual.
    """

    c: float = 1.0
    normalise: bool = True
    tolerance: float = 1e-4
    most_steps: int = 100

    reference: ClassVar[str] = (
        "Tian, Wang, Krishnan, Tenenbaum, Isola: Rethinking Few-Shot Image Classification, ECCV 2020"
    )
    equation: ClassVar[str] = "W, b = argmin c Σ −log softmax(Wx + b)[y] + ½‖W‖², x = z/‖z‖"
    published: ClassVar[tuple[Published, ...]] = (
        Published(
            "mini-ImageNet 5-way 1-shot, wide Resnet12 with DropBlock", "62.02 ± 0.63",
            "LibFewShot's tables",
        ),
        Published(
            "mini-ImageNet 5-way 5-shot, wide Resnet12 with DropBlock", "79.64 ± 0.44",
            "LibFewShot's tables",
        ),
    )  # fmt: skip
    traps: ClassVar[str] = (
        "The authors' evaluation counts each support image five times, augmented anew; not done here."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("c", 0 < self.c < math.inf, "must be > 0, finite")
        self.require("tolerance", self.tolerance > 0, "must be > 0")
        self.require("most_steps", self.most_steps >= 1, "must be at least 1")

    def represent(self, context: Context, meta: Meta, features: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(features, -1) if self.normalise else features

    def fit(self, context: Context, features: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return softmax_regression.fit(
            features, labels, context.ways,
            c=self.c, tolerance=self.tolerance, most_steps=self.most_steps,
        )  # fmt: skip
