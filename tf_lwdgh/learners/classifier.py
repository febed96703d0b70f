# SPDX-License-Identifier: Apache-2.0
"""Ordinary classification over all training classes, for a pretrained start; at test nearest class means.

A training task is a batch of as many classes as it holds, a few images each, and its loss the cross-entropy
of their numbers among all training classes. At test the head is not used: as Chen et al.'s
Classifier-Baseline, the learner compares by cosine with the means of the support features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import keras
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.learners.prototypes import cosines
from tf_lwdgh.learners.prototypical import PrototypicalNetwork
from tf_lwdgh.learners.training_classes import OfTrainingClasses
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.networks.parts import averaging
from tf_lwdgh.types import Episode, Meta, Published, TaskResult

HEADS = ("linear", "cosine")
FEATURES = "features"  # the part that keeps their mean
_KERNEL, _BIAS, _SCALES = "classifier/kernel", "classifier/bias", "classifier/scales"
_TEST_SCALE = 10.0  # of the cosines at test: moves no accuracy, and Meta-Baseline's at its start


@config.configurable
@dataclasses.dataclass(frozen=True)
class Classifier(OfTrainingClasses, PrototypicalNetwork):
    """The learner. In training it owns a head over all training classes, 'classifier/…'.

    A training task has its own shape, whatever the episodes' is: batch_size images, shared out evenly among
    all training classes, or two each of as many as fit; half of them come as support set, half as
    queries, and the loss is that of all, the logged loss and accuracy that of the queries among all
    classes. With one task a step every aggregator that weighs tasks is the mean; several are several
    batches.

    Attributes:
      n_classes: training classes; None: as many as the data set has, with rotations four times as many;
        those of a mixture are numbered set by set.
      batch_size: images of a training task, at least 4.
      head: 'linear', logits Wz + b; or 'cosine', s_c cos(z, w_c) with a learned scale a class.
      scale: the s_c at the start, > 0.
      label_smoothing: the share of each label that all classes get alike, in [0, 1).
    """

    batch_size: int = 64
    head: str = "linear"
    scale: float = 10.0
    label_smoothing: float = 0.0

    reference: ClassVar[str] = (
        "ordinary classification; its test by Chen, Liu, Xu, Darrell, Wang: Meta-Baseline, ICCV 2021"
    )
    equation: ClassVar[str] = "−log softmax(Wz + b) of the class among all; at test cos(z, c_k)"
    published: ClassVar[tuple[Published, ...]] = (
        Published(
            "mini-ImageNet 5-way 1-shot, Resnet12, Classifier-Baseline", "58.91 ± 0.23",
            "the repository of Meta-Baseline",
        ),
        Published(
            "mini-ImageNet 5-way 5-shot, Resnet12, Classifier-Baseline", "77.76 ± 0.17",
            "the repository of Meta-Baseline",
        ),
    )  # fmt: skip
    traps: ClassVar[str] = (
        "Batches hold every class equally often, where usual code draws from all images: the same on "
        "average where classes are of one size. The averages of batch_norm = 'global' and the mean "
        "feature follow the last hundred steps (OuterLoop.statistics_momentum)."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("batch_size", self.batch_size >= 4, "must be at least 4")
        self.require("head", self.head in HEADS, f"must be one of {', '.join(HEADS)}")
        self.require("scale", self.scale > 0, "must be > 0")
        self.require("label_smoothing", 0 <= self.label_smoothing < 1, "must be in [0, 1)")

    def training_shape(self, n_classes: int, n_images: int) -> Mapping[str, int]:
        n_way = min(n_classes, self.batch_size // 2)
        each = min(self.batch_size // n_way, n_images)
        return {"n_way": n_way, "k_shot": each // 2, "n_query": each - each // 2}

    def own(self, model: FunctionalModel) -> Sequence[OwnParameter]:
        if self.n_classes is None:
            return []
        dtype, shape = model.values()[0].dtype, (model.n_features, self.n_classes)
        kernel = keras.initializers.GlorotUniform()(shape, dtype.name)
        if self.head == "linear":
            rest = OwnParameter(_BIAS, tf.zeros([self.n_classes], dtype))
        else:
            rest = OwnParameter(_SCALES, tf.fill([self.n_classes], tf.constant(self.scale, dtype)))
        return [OwnParameter(_KERNEL, kernel), rest]

    def parts(self, model: FunctionalModel) -> Mapping[str, keras.Model]:
        """In training a BatchNorm of the features without parameters, for their mean over the tasks."""
        if self.n_classes is None and not self.needs_mean_feature:
            return {}
        return {FEATURES: averaging(model.n_features, model.variables[0].dtype)}

    @property
    def needs_mean_feature(self) -> bool:
        """Whether it takes the training classes' mean feature at test."""
        return False

    @staticmethod
    def mean_feature(context: Context, meta: Meta) -> tf.Tensor:
        """The average feature of training tasks, [D]."""
        return context.model.parts[FEATURES].averages(meta.state)[0]

    def compare(self, meta: Meta, features: tf.Tensor, means: tf.Tensor) -> tf.Tensor:
        return _TEST_SCALE * cosines(features, means)

    def objective(self, context: Context, meta: Meta, episode: Episode) -> TaskResult:
        """The cross-entropy of all images of a task; loss and logits are the queries'.

        The logits' columns are all training classes, those of the task first.

        Raises:
          ValueError: the number of training classes, or those of the task, are not known.
        """
        columns = self.columns(episode)
        images = tf.concat([episode.support_images, episode.query_images], 0)
        labels = tf.concat([episode.support_labels, episode.query_labels], 0)
        features, state = context.model.features(meta.network, meta.state, images, training=True)
        _, state = context.model.parts[FEATURES](meta.own, state, features, training=True)
        logits = tf.gather(self.class_logits(meta, features), columns, axis=1)
        objective = cross_entropy(logits, labels, self.label_smoothing)
        queries = logits[tf.shape(episode.support_labels)[0] :]
        return TaskResult(objective, cross_entropy(queries, episode.query_labels), queries, state)

    def class_logits(self, meta: Meta, features: tf.Tensor) -> tf.Tensor:
        """Of features [B, D] over all training classes: [B, n_classes]."""
        kernel = meta.own[_KERNEL]
        if self.head == "linear":
            return tf.matmul(features, kernel) + meta.own[_BIAS]
        return meta.own[_SCALES] * cosines(features, tf.transpose(kernel))
