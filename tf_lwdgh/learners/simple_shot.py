# SPDX-License-Identifier: Apache-2.0
"""SimpleShot (Wang et al. 2019): nearest class means of centred, normalised features of a classifier."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.classifier import Classifier
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.prototypes import squared_distances
from tf_lwdgh.types import Meta, Published

TRANSFORMS = ("none", "l2", "cl2")


@config.configurable
@dataclasses.dataclass(frozen=True)
class SimpleShot(Classifier):
    """The learner: a Classifier in training, at test the nearest class mean by Euclidean distance.

    Attributes:
      transform: of every feature before means are taken: 'none' (the paper's UN); 'l2', to length 1 (L2N);
        'cl2', less the mean feature of the training classes, and then to length 1 (CL2N).
    """

    transform: str = "cl2"

    reference: ClassVar[str] = "Wang, Chao, Weinberger, van der Maaten: SimpleShot, arXiv:1911.04623, 2019"
    equation: ClassVar[str] = "logits −‖x − c_k‖², x = (z − m)/‖z − m‖, c_k the mean of class k's x"
    published: ClassVar[tuple[Published, ...]] = ()
    traps: ClassVar[str] = (
        "The paper's figures could not be looked up here. Its code takes the mean over all training "
        "images by the finished network; here it is an average over the last training batches, as "
        "BatchNorm's are, so that a run and its export hold it and no training image is needed. Other "
        "learners' runs have none: SimpleShot.transform = 'l2'."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.transform in TRANSFORMS
        self.require("transform", known, f"must be one of {', '.join(TRANSFORMS)}")

    @property
    def needs_mean_feature(self) -> bool:
        return self.transform == "cl2"

    def represent(self, context: Context, meta: Meta, features: tf.Tensor) -> tf.Tensor:
        if self.transform == "cl2":
            features -= self.mean_feature(context, meta)
        return features if self.transform == "none" else tf.math.l2_normalize(features, -1)

    def compare(self, meta: Meta, features: tf.Tensor, means: tf.Tensor) -> tf.Tensor:
        return -squared_distances(features, means)
