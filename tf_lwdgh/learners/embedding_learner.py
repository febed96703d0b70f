"""What the learners share that embed images once and compare: no inner loop, any number of ways."""

from __future__ import annotations

import dataclasses
import zlib

import tensorflow as tf

from tf_lwdgh.learners.base import Learner
from tf_lwdgh.learners.context import Context
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Meta, Tensors


@dataclasses.dataclass(frozen=True)
class EmbeddingLearner(Learner):
    """Embeds images by the network without its head, which is neither used nor trained."""

    @property
    def any_way(self) -> bool:
        return True

    def trained(self, model: FunctionalModel) -> list[bool]:
        return [not head for head in model.is_head]

    def support_takes_batch(self, context: Context) -> bool:
        """Whether BatchNorm takes the support set's own statistics."""
        return context.training or self.batch_norm != "global"

    def queries_take_batch(self, context: Context) -> bool:
        """Whether BatchNorm takes the queries' own statistics."""
        of_training = context.training and self.batch_norm == "global"
        return of_training or self.batch_norm == "transductive"

    def embed_support(
        self, context: Context, meta: Meta, images: tf.Tensor
    ) -> tuple[tf.Tensor, Tensors]:
        """Features [B, D] of a support set, and the statistics to be kept for its queries.

        Those are empty but for 'inductive'.
        """
        batch = self.support_takes_batch(context)
        features, state = context.model.features(
            meta.network, meta.state, images, training=batch, noise=noise(context, "support")
        )
        return features, list(state) if self.batch_norm == "inductive" else []

    def embed_queries(
        self, context: Context, meta: Meta, kept: Tensors, images: tf.Tensor
    ) -> tuple[tf.Tensor, Tensors]:
        """Features [B, D] of queries by the statistics that were kept, and their own statistics."""
        batch = self.queries_take_batch(context)
        return context.model.features(
            meta.network, kept or meta.state, images, training=batch, noise=noise(context, "query")
        )


def noise(context: Context, of: str) -> tf.Tensor | None:
    """What dropout draws by for some images of a task: a key in training, else nothing."""
    if not context.training:
        return None
    return tf.random.fold_in(context.task_key, zlib.crc32(of.encode()), alg="philox")
