"""Small learners that no file of the package knows, for tests of what every learner may count on."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners import Learner
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.types import TaskResult, Tensors


class Kept(NamedTuple):
    """What prediction needs."""

    network: Tensors
    state: Tensors
    centres: tf.Tensor  # [N, D]
    log_scale: tf.Tensor  # scalar


@config.configurable
@dataclasses.dataclass(frozen=True)
class Centres(Learner):
    """Logits −exp(log_scale) ‖features − centre‖²/D, a centre the mean of a class; log_scale is learned.

    Attributes:
      harmonized: whether log_scale is in the units.
    """

    harmonized: bool = True

    reference: ClassVar[str] = "of the tests"

    @property
    def any_way(self):
        return True

    def own(self, model):
        start = tf.constant(1.5, model.variables[0].dtype)
        return [OwnParameter("log_scale", start, harmonized=self.harmonized)]

    def trained(self, model):
        return [not head for head in model.is_head]

    def adapt(self, context, meta, images, labels):
        batch = context.training or self.batch_norm != "global"
        features, state = context.model.features(meta.network, meta.state, images, training=batch)
        members = tf.one_hot(labels, context.ways, dtype=features.dtype)
        counts = tf.reduce_sum(members, 0)[:, None]
        centres = tf.matmul(members, features, transpose_a=True) / counts
        state = state if self.batch_norm == "inductive" else meta.state
        return Kept(list(meta.network), list(state), centres, meta.own["log_scale"])

    def predict(self, context, adapted, images):
        batch = self.batch_norm == "transductive" or (context.training and self.batch_norm == "global")
        features, state = context.model.features(
            adapted.network, adapted.state, images, training=batch
        )
        squares = tf.square(features[:, None] - adapted.centres)
        return -tf.exp(adapted.log_scale) * tf.reduce_mean(squares, -1), list(state)


@config.configurable
@dataclasses.dataclass(frozen=True)
class CoupledCentres(Centres):
    """The same, each task's loss times 1 + its share of all the tasks' losses."""

    reference: ClassVar[str] = "of the tests"
    couples: ClassVar[bool] = True

    def scalar(self, context, meta, episode):
        return super().objective(context, meta, episode).loss

    def couple(self, scalars, context):
        return scalars / tf.reduce_sum(scalars)

    def objective(self, context, meta, episode) -> TaskResult:
        result = super().objective(context, meta, episode)
        loss = cross_entropy(result.logits, episode.query_labels)
        return result._replace(objective=(1 + context.coupling) * loss)
