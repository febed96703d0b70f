# SPDX-License-Identifier: Apache-2.0
"""Baseline++ (Chen et al. 2019): Baseline whose heads take cosines, in training and on each task.

On a task: logits s g_c cos(v_c, z), with v_c and g_c learned: the authors' weight-normalised layer.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.baseline import Baseline
from tf_lwdgh.learners.context import Context
from tf_lwdgh.types import Meta, Published, Tensors


@config.configurable
@dataclasses.dataclass(frozen=True)
class BaselinePP(Baseline):
    """The learner: a Classifier with a cosine head in training; at test its network is frozen.

    Attributes:
      task_scale: s > 0; 2 in the authors' code for up to 200 classes, else 10.
      learned_norms: whether the g_c are learned, as in the authors' code, from the norms of the v_c at the
        start; else they are 1, as in the paper's words.
    """

    head: str = "cosine"
    task_scale: float = 2.0
    learned_norms: bool = True

    reference: ClassVar[str] = "Chen, Liu, Kira, Wang, Huang: A Closer Look at Few-shot Classification, ICLR 2019"
    equation: ClassVar[str] = "v, g = SGD on L_S(s g_c cos(v_c, z)), z frozen"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4 of 64 filters", "48.86 ± 0.35", "LibFewShot's rerun"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4 of 64 filters", "63.29 ± 0.30", "LibFewShot's rerun"),
    )
    traps: ClassVar[str] = (
        "On top of a Classifier's run with head = 'linear' only the tasks' heads take cosines; the published "
        "method trains with them: Classifier.head = 'cosine', or this learner itself. There the scale a "
        "class starts at Classifier.scale, 10, a choice of ours; the authors' at about 1.15."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("task_scale", self.task_scale > 0, "must be > 0")

    def represent(self, context: Context, meta: Meta, features: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(features, -1)

    def start(self, context: Context, features: tf.Tensor) -> Tensors:
        directions = super().start(context, features)[0]
        return [directions, tf.norm(directions, axis=0)] if self.learned_norms else [directions]

    def task_head(self, params: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        kernel = self.task_scale * tf.math.l2_normalize(params[0], 0)
        if self.learned_norms:
            kernel *= params[1]
        return kernel, tf.zeros_like(kernel[0])
