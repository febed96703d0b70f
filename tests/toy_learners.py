# SPDX-License-Identifier: Apache-2.0
"""Small learners that no file of the package knows, for tests of what every learner may count on."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners import Learner
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.embedding_learner import EmbeddingLearner
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.learners.prototypes import class_means
from tf_lwdgh.networks.layers.batch_norm import BatchNormalization
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
        batch = self.support_takes_batch(context)
        features, state = context.model.features(meta.network, meta.state, images, training=batch)
        members = tf.one_hot(labels, context.ways, dtype=features.dtype)
        counts = tf.reduce_sum(members, 0)[:, None]
        centres = tf.matmul(members, features, transpose_a=True) / counts
        state = state if self.batch_norm == "inductive" else meta.state
        return Kept(list(meta.network), list(state), centres, meta.own["log_scale"])

    def predict(self, context, meta, adapted, images):
        batch = self.queries_take_batch(context)
        features, state = context.model.features(adapted.network, adapted.state, images, training=batch)
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


@config.configurable
@dataclasses.dataclass(frozen=True)
class CountedCentres(Centres):
    """The same, and it keeps the sum of all tasks' losses, by which it moves log_scale a little."""

    reference: ClassVar[str] = "of the tests"

    def own(self, model):
        none = tf.zeros([], model.variables[0].dtype)
        return [*super().own(model), OwnParameter("kept/losses", none, trained=False)]

    def tells(self, model):
        return [tf.TensorSpec([], model.variables[0].dtype)]

    def objective(self, context, meta, episode) -> TaskResult:
        result = super().objective(context, meta, episode)
        return result._replace(told=[result.loss])

    def after_step(self, context, meta, told):
        losses = meta.own["kept/losses"] + told[0]
        moved = meta.own["log_scale"] + 1e-3 * losses * tf.cast(context.clock.step + 1, losses.dtype)
        return {"kept/losses": losses, "log_scale": moved}


class Means(NamedTuple):
    """What prediction needs of a task."""

    means: tf.Tensor  # [N, D]
    kept: Tensors


@config.configurable
@dataclasses.dataclass(frozen=True)
class Compared(EmbeddingLearner):
    """Logits are what a small network of its own makes of |features − class mean|."""

    reference: ClassVar[str] = "of the tests"

    def parts(self, model):
        dtype = model.variables[0].dtype
        pairs = keras.Input([model.n_features], dtype=dtype)
        x = keras.layers.Dense(4, name="hidden", dtype=dtype)(pairs)
        x = BatchNormalization(momentum=0.0, name="norm", dtype=dtype)(x)
        x = keras.layers.Dense(1, name="score", dtype=dtype)(keras.ops.tanh(x))
        return {"compare": keras.Model(pairs, x)}

    def _scores(self, context, meta, state, features, means, batch):
        apart = tf.abs(features[:, None] - means)
        flat = tf.reshape(apart, [-1, apart.shape[-1]])
        scores, state = context.model.parts["compare"](meta.own, state, flat, training=batch)
        return tf.reshape(scores, [-1, tf.shape(means)[0]]), state

    def adapt(self, context, meta, images, labels):
        batch = self.support_takes_batch(context)
        features, state = context.model.features(meta.network, meta.state, images, training=batch)
        means = class_means(features, labels, context.ways)
        if self.batch_norm != "inductive":
            return Means(means, [])
        return Means(means, self._scores(context, meta, state, features, means, True)[1])

    def predict(self, context, meta, adapted, images):
        batch = self.queries_take_batch(context)
        features, state = self.embed_queries(context, meta, adapted.kept, images)
        return self._scores(context, meta, state, features, adapted.means, batch)
