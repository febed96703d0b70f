# SPDX-License-Identifier: Apache-2.0
"""Meta-Baseline (Chen et al. 2021): cosines to class means, times a learned scale, trained on episodes.

Logits τ cos(z, c_k), c_k the mean of class k's support features, which are not normalised before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.prototypes import cosines
from tf_lwdgh.learners.prototypical import PrototypicalNetwork
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Meta, Published


@config.configurable
@dataclasses.dataclass(frozen=True)
class MetaBaseline(PrototypicalNetwork):
    """The learner. It owns 'scale', which multiplies the cosines. Meant to start from a Classifier's run.

    Attributes:
      scale: τ at the start, > 0.
    """

    scale: float = 10.0

    reference: ClassVar[str] = "Chen, Liu, Xu, Darrell, Wang: Meta-Baseline: Exploring Simple Meta-Learning, ICCV 2021"
    equation: ClassVar[str] = "logits τ cos(z, c_k), c_k the mean of class k's support features"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Resnet12", "63.17 ± 0.23", "the authors' repository"),
        Published("mini-ImageNet 5-way 5-shot, Resnet12", "79.26 ± 0.17", "the authors' repository"),
    )
    traps: ClassVar[str] = (
        "The figures are of a network that was trained as a classifier first: Experiment.start = "
        "'runs/…', a run of gin/learners/classifier.gin. The authors' code embeds support set and queries "
        "as one batch; here they never meet."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("scale", self.scale > 0, "must be > 0")

    def own(self, model: FunctionalModel) -> Sequence[OwnParameter]:
        return [OwnParameter("scale", tf.constant(self.scale, model.values()[0].dtype))]

    def compare(self, meta: Meta, features: tf.Tensor, means: tf.Tensor) -> tf.Tensor:
        return meta.own["scale"] * cosines(features, means)
